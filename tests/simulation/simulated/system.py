"""The system under simulation: chain nodes, Redis, Leases, relayer and miner processes, gateways."""

import asyncio
import functools
import hashlib
import json
import os
import random
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocket.api.workload import MinerConfig, RelayerConfig
from pocket.coordination.rendezvous import shard_of
from pocket.errors import PocketError
from pocket.protocol.relays.messages import RelayResponse, SessionHeader, decode_relay_response
from pocket.protocol.relays.wire import bytes_field
from pocket.redis_store.redis_keys import RedisKeys
from pocket_localnet.hydration import hydrate
from pocket_localnet.local_chain import CommittedBlock, LocalChain
from pocket_miner.process.miner_platform import MinerPlatform
from pocket_miner.process.miner_process import MinerProcess
from pocket_miner.storage.trie_pool import SealedSet, compute_proof, compute_root
from pocket_relayer.backends.http_calls import Clients
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.pipeline.pipeline import RelayResult
from pocket_relayer.pipeline.relay import Transport, TransportInfo
from pocket_relayer.process.relayer_platform import RelayerPlatform
from pocket_relayer.process.reports import WorkerReport
from pocket_relayer.process.worker import Worker
from simulated import promises
from simulated.http import Http, Ports
from simulated.leases import LeaseServer
from simulated.loop import Loop, Process
from simulated.machine import Machine
from simulated.network import Network
from simulated.nodes import Channel, Node, messages_of, tx_hash_of
from simulated.plan import BLOCK_SECONDS, NODES, SERVICES, SESSION_BLOCKS, SUPPLIERS, WINDOW_BLOCKS, Kind
from simulated.redis_servers import RedisService
from world import World, address, key

GENESIS_SECONDS = 1_767_225_600
STARTS = (1, 11)
SETTLED = 11 + SESSION_BLOCKS + 2 + 2 * WINDOW_BLOCKS
"""Height at which the last sessions are over."""
STAKE = 10**9
RELAYS = 5
REDIS_URL = "redis://simulated:6379/0"
SHARDS = 4
_CLIENT_SECONDS = 30.0
PREFIX = "sim"
_DEFECTS = (TypeError, AttributeError, NameError, LookupError, ValueError, ArithmeticError, AssertionError)
KEYS = RedisKeys(PREFIX)


def block_hash(seed: int, height: int, _: bytes = b"") -> bytes:
    """Return the hash of a block.

    Hashes at session starts, and so the sessions, are the same in every life. The others differ.
    """
    life = b"" if height % SESSION_BLOCKS == 1 or not height % SESSION_BLOCKS else b"%d" % seed
    return hashlib.sha256(b"block %d " % height + life).digest()


@functools.cache
def world() -> World:
    return World(suppliers=SUPPLIERS, services=SERVICES)


@functools.cache
def signed_request(header: SessionHeader, supplier: str, number: int) -> bytes:
    """Return the bytes of a signed relay request.

    They are cached, because signing a ring is slow.
    """
    made = World(SUPPLIERS, SERVICES, chance=random.Random(number))
    return made.request(header, supplier, b'{"jsonrpc":"2.0","id":%d}' % number).encode()


class Tries:
    """The trie functions, in the process itself."""

    async def root(self, path: Path, supplier: str, session_id: str, sealed_root: bytes = b"") -> SealedSet:
        return await asyncio.to_thread(compute_root, str(path), supplier, session_id, sealed_root)

    async def proof(
        self, path: Path, supplier: str, session_id: str, proof_path: bytes, sealed_root: bytes = b""
    ) -> tuple[bytes, bytes]:
        return await asyncio.to_thread(compute_proof, str(path), supplier, session_id, proof_path, sealed_root)

    def close(self) -> None:
        return


class _Admin:
    """A miner's own port, closed with the process."""

    def __init__(self, ports: Ports, place: str) -> None:
        self._ports, self._place = ports, place

    async def cleanup(self) -> None:
        self._ports.open.pop(self._place, None)


class _Reports:
    """Where a worker's reports go."""

    def __init__(self) -> None:
        self.latest: WorkerReport | None = None

    async def open(self) -> None:
        return

    def write(self, report: WorkerReport) -> None:
        self.latest = report

    def close(self) -> None:
        return


@dataclass(eq=False)
class Program:
    """A miner or a relayer on its volume, in whatever process it runs at present."""

    name: str
    relayer: bool
    folder: Path
    lives: int = 0
    process: Process | None = None
    made: Any = None
    wanted: bool = True
    task: "asyncio.Task[Any] | None" = None

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.process.dead and self.task is not None and not self.task.done()


@dataclass
class System:
    """Everything of one life."""

    seed: int
    loop: Loop
    folder: Path
    kubernetes: bool
    proofs: float  # probability with which a proof is required
    network: Network = field(init=False)
    programs: dict[str, Program] = field(default_factory=dict)
    acknowledged: dict[tuple[str, str], set[bytes]] = field(default_factory=dict)
    acknowledged_at: dict[bytes, float] = field(default_factory=dict)
    headers: dict[str, SessionHeader] = field(default_factory=dict)
    roots: dict[tuple[str, str], dict[bytes, str]] = field(default_factory=dict)
    events: list[tuple[float, int, str]] = field(default_factory=list)
    senders: dict[str, str] = field(default_factory=dict)
    sent_at: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    lost_volumes: int = 0
    losing: int = 0
    lost_at: int = 0  # height at which a transaction was lost last
    observed: list[str] = field(default_factory=list)
    disturbed_at: float = 0.0

    def __post_init__(self) -> None:
        self.network = Network(self.loop)
        self.genesis = world().genesis(
            block_seconds=BLOCK_SECONDS, time=GENESIS_SECONDS,
            proof_params={"proof_request_probability": self.proofs, "proof_missing_penalty": 1_000_000},
            shared_params={
                "compute_units_to_tokens_multiplier": 1_000_000,
                "claim_window_close_offset_blocks": WINDOW_BLOCKS, "proof_window_close_offset_blocks": WINDOW_BLOCKS,
            },
        )  # fmt: skip
        self.chain = LocalChain(self.genesis, functools.partial(block_hash, self.seed))
        self.nodes = {name: Node(name, self.chain, self.loop, self.network, self._broadcast) for name in NODES}
        self.redis = RedisService(
            self.loop,
            self.wall,
            self.network.redis,
            self.network.redis_is_slow,
            self.observed.append,
            self.network.redis_hangs,
        )
        self.leases = LeaseServer(self.network, self.observed.append)
        self.ports = Ports()
        self.machine = Machine(lambda process: bool(self.network.of(Kind.DISK_FULL, target=process.name)))
        self._keys()

    def _keys(self) -> None:
        folder = self.folder / "keys"
        folder.mkdir(parents=True)
        for name in SUPPLIERS:
            (folder / name).write_text(f"{key(name).scalar:064x}")
            os.utime(folder / name, (GENESIS_SECONDS - 60, GENESIS_SECONDS - 60))

    def wall(self) -> float:
        return GENESIS_SECONDS + self.loop.time()

    def tell(self, text: str) -> None:
        """Add a line to the story."""
        self.events.append((self.loop.time(), self.chain.height, text))
        self.disturbed_at = self.loop.time()
        self.loop.note(text)

    # The chain.

    def _broadcast(self, sender: str, request: bytes) -> None:
        lives = self.programs[sender].lives
        self.senders.setdefault(tx_hash_of(request), f"{sender}, life {lives}")
        self.sent_at.setdefault(tx_hash_of(request), self.chain.height)
        for message in messages_of(request):
            if hasattr(message, "root_hash"):
                pair = (message.supplier_operator_address, message.session_header.session_id)
                self.roots.setdefault(pair, {}).setdefault(bytes(message.root_hash), sender)
            self._check_owner(sender, message.supplier_operator_address)

    def _check_owner(self, sender: str, supplier: str) -> None:
        """Report a transaction of a former owner that must know of the present one.

        A miner that starts while Redis is away knows no owner, and sends what is sealed on its volume.
        """
        name, now = f"sim-miner-shard-{shard_of(supplier, SHARDS)}", self.loop.time()
        holder = self.leases.holder(name)
        process = self.programs[sender].process
        if holder in ("", sender) or process is None or self.network.holding:
            return
        redis = self.redis.primary
        if not redis.up or redis.loading:
            return
        if now - max(self.leases.held_since[name], process.went_on_at, redis.started) > BLOCK_SECONDS:
            self.observed.append(f"{sender} sends for a supplier of {holder}")

    def step(self) -> CommittedBlock:
        self._lose_transactions()
        block = self.chain.step(int(self.wall() * 1e9))
        for node in self.nodes.values():
            node.announce(block.height)
        return block

    def _lose_transactions(self) -> None:
        """Remove transactions from every mempool, but not before the last block of a window.

        In half of the cases nodes still report that they have them.
        """
        pending = self.chain._mempool
        while self.losing and pending and not promises.is_last_chance(self.chain.height + 1):
            lost = pending.pop(0)
            self.losing, self.lost_at = self.losing - 1, self.chain.height
            if self.losing % 2:
                self.chain._known.discard(lost.tx_hash)

    # Processes.

    def _config(self, program: Program) -> dict[str, Any]:
        number = int(program.name.rsplit("-", 1)[1])
        nodes = [{"grpc": f"grpc://{name}:9090", "rpc": f"http://{name}:26657"} for name in NODES]
        return {
            "name": "sim", "namespace": "default", "prefix": PREFIX, "redisUrl": REDIS_URL,
            "dataDir": str(program.folder), "keysDir": str(self.folder / "keys"),
            "chain": {
                "id": "pocket", "nodes": nodes, "blockSeconds": BLOCK_SECONDS, "queryTimeoutSeconds": 2.0,
            },
            "adminHost": "0.0.0.0" if self.kubernetes else program.name,
            "adminPort": 9090 if self.kubernetes else 9100 + number,
        }  # fmt: skip

    def _common(self, process: Process) -> dict[str, Any]:
        chance = random.Random(self.loop.chance.random())
        return {
            "clock": self.loop.time, "cpu_seconds": lambda: 0.0, "rng": chance, "connect_redis": self.redis.client,
            "wall_nanoseconds": lambda: int((self.wall() + process.wall_offset_seconds) * 1e9),
            "unique": lambda: f"{chance.getrandbits(128):032x}",
            "channel": lambda node: Channel(self.nodes[node.name.partition(":")[0]]),
            "http": lambda: Http(self.network, self.nodes, self.ports),
        }  # fmt: skip

    def start(self, program: Program) -> None:
        """Start a process of a program that does not run yet."""
        program.lives += 1
        program.folder.mkdir(parents=True, exist_ok=True)
        process = program.process = Process(program.name)
        common = self._common(process)
        work = self._relayer(program, common) if program.relayer else self._miner(program, process, common)
        program.task = self.loop.spawn(process, self._watched(program, process, work))

    async def _watched(self, program: Program, process: Process, work: Any) -> None:
        """Run a process and report how it ended.

        The world starts it again, as a kubelet does.
        """
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - a simulated process must not end the simulation
            told = _told(error)
            if _is_a_defect(error):
                self.observed.append(f"{program.name} ended: {told}")
            self.tell(f"{program.name} ended: {told}")
        self.machine.died(process)
        self.loop.kill(process)

    async def _miner(self, program: Program, process: Process, common: Mapping[str, Any]) -> None:
        lease = {"lease": "sim-miner", "peerDomain": "peers"} if self.kubernetes else {}
        config = MinerConfig.model_validate(
            {**self._config(program), "checkEndpoints": False, "shards": SHARDS, **lease}
        )
        place = f"{program.name}.peers:9090" if self.kubernetes else f"{config.admin_host}:{config.admin_port}"

        async def serve(*_: Any, routes: Any, **__: Any) -> _Admin:
            self.ports.open[place] = (process, {route.path: route.handler for route in routes})
            return _Admin(self.ports, place)

        environment = {"POD_NAME": program.name, "POD_UID": "uid"} if self.kubernetes else {}
        program.made = MinerProcess(
            config, MinerPlatform(
                **common, environment=environment, tries=Tries, serve_admin=serve, connect_kube=self.leases.api
            ),
        )  # fmt: skip
        await program.made.run()

    async def _relayer(self, program: Program, common: Mapping[str, Any]) -> None:
        hot = self.folder / f"{program.name}.json"
        backends = {"jsonRpc": {"urls": ["http://backend:8545"], "maxRetries": 1}}
        hot.write_text(json.dumps({"services": [{"id": s, "backends": backends} for s in SERVICES]}))
        config = RelayerConfig.model_validate(
            {**self._config(program), "hotFile": str(hot), "shards": SHARDS, "drainSeconds": 2.0, "adminPort": 0}
        )
        (program.folder / "relay-log").mkdir(exist_ok=True)
        http = Http(self.network, self.nodes, self.ports)
        platform = RelayerPlatform(**common, environment={}, backend_http=lambda _: Clients(http, http))
        program.made = Worker(config, program.lives, _Reports(), platform)
        await program.made.run()

    def kill(self, program: Program) -> None:
        """SIGKILL."""
        process = program.process
        if process is None or process.dead:
            return
        self.loop.kill(process)
        self.machine.died(process)

    def terminate(self, program: Program) -> None:
        """SIGTERM: it drains and ends."""
        process = program.process
        if process is not None and not process.dead and (handler := process.signals.get(signal.SIGTERM)):
            handler()

    # Redis.

    def put_garbage(self, supplier: str) -> None:
        """Rows that no program of ours writes, beside the supplier's own."""
        operator, redis = address(supplier), self.redis.primary.model
        far = SessionHeader(world().application(SERVICES[0]), SERVICES[0], "f" * 64, 2**63 - 10, 2**63 - 1)
        rows = {b"\xff\xfe\xfd": b"\x00", b"no header": b"garbage", far.session_id.encode(): far.encode()}
        for session, header in rows.items():
            redis.execute((b"HSET", KEYS.sessions(operator).encode(), session, header))
            redis.execute((b"HSET", KEYS.seals(operator).encode(), session, b"no JSON"))
        for session in [far.session_id, *(pair[1] for pair in self.acknowledged if pair[0] == operator)]:
            stream = KEYS.stream(operator, session).encode()
            if session == far.session_id or stream in redis.data.values:
                redis.execute((b"XADD", stream, b"*", b"r", b"no relay"))

    # Gateways.

    def session(self, service: str, height: int) -> SessionHeader:
        found = hydrate(self.chain.state, self.chain.block_hash, world().application(service), service, height).header
        self.headers[found.session_id] = found
        return found

    async def relay(self, header: SessionHeader, supplier: str, number: int, first: Program | None = None) -> bool:
        """Send one relay to a relayer that answers, and return whether it was acknowledged.

        It is acknowledged once a signed response arrived.
        """
        request = signed_request(header, address(supplier), number)
        programs = [p for p in self.programs.values() if p.relayer and p.alive]
        self.loop.chance.shuffle(programs)
        programs.sort(key=lambda program: program is not first)
        for program in programs:
            pipeline = program.made.pipeline if program.made else None
            if pipeline is None or program.made._draining or program.process is None:
                continue
            answered = self.loop.spawn(program.process, _handled(pipeline, request))
            await asyncio.wait([answered], timeout=_CLIENT_SECONDS)
            found = answered.result() if answered.done() and not answered.cancelled() else None
            if isinstance(found, bytes):
                mined = bytes_field(1, request) + bytes_field(2, _without_payload(found))
                self.acknowledged.setdefault((address(supplier), header.session_id), set()).add(mined)
                self.acknowledged_at[mined] = self.loop.time()
                self.loop.note("acknowledged", number)
                return True
            self.refused += 1
        return False

    def clean(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


async def _handled(pipeline: Any, request: bytes) -> bytes | str:
    try:
        found: RelayResult = await pipeline.handle(request, TransportInfo(Transport.HTTP, {"Rpc-Type": "json_rpc"}))
    except Rejected as error:
        return f"{error.reason}: {error}"
    return found.body


def _without_payload(body: bytes) -> bytes:
    response: RelayResponse = decode_relay_response(body)
    return response.without_payload().encode()


def _is_a_defect(error: BaseException) -> bool:
    """Whether no fault of the world explains an error, and an operator could do nothing about it."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_a_defect, error.exceptions))
    return isinstance(error, _DEFECTS) and not isinstance(error, PocketError)


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(_told, error.exceptions))
    return f"{type(error).__name__}: {str(error)[:200]}"
