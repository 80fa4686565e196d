"""Measure CPU and memory of the whole miner process on this machine.

It works against a real Redis and a localnet. Relays are written as a relayer writes them: at a steady rate, or as fast
as Redis accepts them. The CPU of the same time without relays is subtracted. The machine's speed changes while others
use it, so every figure has a calibration: what one ring verification without accelerator took in the same minute.
"""

import argparse
import asyncio
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import parts
from benchmarks.growth import Growth, exponent, listed, print_growth
from benchmarks.machine import cpu_seconds, resident_mib
from pocket.api.workload import MinerConfig, config_text
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.coordination.rendezvous import shard_of
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.relays.envelope import HttpRequest
from pocket.protocol.relays.messages import Relay, RelayRequest, RelayResponse, SessionHeader
from pocket.redis_store.connection import connect
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.notifications import RelayNotifier
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_operator.resources.trial_redis import REDIS_OPTIONS
from relayctl.local_ports import free_port
from relayctl.local_process import Process, await_http, await_port
from relayctl.local_redis import redis_server

SAMPLES = Path(__file__).resolve().parent.parent / "manifests/samples/trial"
_PREFIX = "bench"
_SHARDS = 16
_SESSION_BLOCKS = 3000
_MOST_PER_SESSION = 25
_WAIT_SECONDS = 120.0
SUPPLIERS = (1, 10, 100, 1000)
RELAYS = (10_000, 100_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one phase cost. `ring_ms` is the calibration of the same time, ms CPU."""

    relays: int
    seconds: float
    cpu_seconds: float
    ring_ms: float
    resident_mib: float

    def per_relay_ms(self, idle: float) -> float:
        """Return the CPU per relay in ms, less that of an idle miner.

        That is given in seconds of CPU per second.
        """
        return max(0.0, self.cpu_seconds - idle * self.seconds) / self.relays * 1000


def _genesis(suppliers: Sequence[str], public_keys: Sequence[bytes]) -> dict[str, Any]:
    """Return a genesis with these suppliers and enough applications.

    Most suppliers have a session.
    """
    genesis: dict[str, Any] = yaml.safe_load((SAMPLES / "genesis.yaml").read_text())
    applications = max(2, math.ceil(2 * len(suppliers) / _MOST_PER_SESSION))
    shared = genesis["shared_params"]
    shared["num_blocks_per_session"] = _SESSION_BLOCKS
    genesis["num_suppliers_per_session"] = min(_MOST_PER_SESSION, len(suppliers))
    template = genesis["suppliers"][0]
    genesis["suppliers"] = [{**template, "operator": address, "owner": address} for address in suppliers]
    gateway = genesis["gateways"][0]["address"]
    app_keys = [parts.key(f"application {n}") for n in range(applications)]
    genesis["applications"] = [
        {"address": address_of(key.public_key), "stake": 10**12, "service": "eth", "gateways": [gateway]}
        for key in app_keys
    ]
    keys = [*public_keys, *(key.public_key for key in app_keys)]
    genesis["accounts"] += [
        {"address": address_of(key), "balance": 10**10, "public_key": key.hex()} for key in keys
    ]  # fmt: skip
    return genesis


@dataclass(slots=True)
class Bench:
    """A miner with its Redis and chain, and the sessions that relays are written for."""

    miner: Process
    redis_url: str
    node: NodeAddress
    admin: str
    folder: Path
    suppliers: list[str]

    @property
    def pid(self) -> int:
        """Return the process id of the miner."""
        if self.miner.child is None:
            raise RuntimeError("the miner is not running")
        return self.miner.child.pid

    async def sessions(self) -> list[tuple[str, SessionHeader]]:
        """Return (supplier, header) of every running session."""
        found = []
        genesis = yaml.safe_load((self.folder / "genesis.yaml").read_text())
        async with ChainClient([self.node]) as chain:
            for application in genesis["applications"]:
                session = await chain.session(application["address"], "eth", 0)
                found += [(supplier, session.header) for supplier in session.supplier_addresses]
        return found


@contextmanager
def running_miner(suppliers: int, block_seconds: float = 1.0) -> Iterator[Bench]:
    """Run Redis, a localnet and a miner with this many suppliers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ports = {part: free_port() for part in ("redis", "grpc", "rpc", "admin")}
        keys = [parts.key(f"supplier {n}") for n in range(suppliers)]
        addresses = [str(address_of(key.public_key)) for key in keys]
        (folder / "keys").mkdir(mode=0o700)
        for key, address in zip(keys, addresses, strict=True):
            path = folder / "keys" / address
            path.touch(mode=0o600)
            path.write_text(f"{key.scalar:064x}\n")
        (folder / "redis").mkdir()
        genesis = _genesis(addresses, [key.public_key for key in keys])
        genesis["block_seconds"] = block_seconds
        (folder / "genesis.yaml").write_text(yaml.safe_dump(genesis))
        redis_url = f"redis://127.0.0.1:{ports['redis']}/0"
        grpc, rpc = f"grpc://127.0.0.1:{ports['grpc']}", f"http://127.0.0.1:{ports['rpc']}"
        config = MinerConfig.model_validate({
            "name": "bench", "namespace": "bench", "prefix": _PREFIX, "redisUrl": redis_url, "shards": _SHARDS,
            "keysDir": folder / "keys", "dataDir": folder / "data", "adminHost": "127.0.0.1",
            "adminPort": ports["admin"], "checkEndpoints": False,
            "chain": {"id": "pocket", "blockSeconds": block_seconds, "nodes": [{"grpc": grpc, "rpc": rpc}]},
        })  # fmt: skip
        (folder / "miner.json").write_text(config_text(config))
        python = sys.executable
        commands = {
            "redis": [redis_server(), "--port", str(ports["redis"]), "--dir", str(folder / "redis"), *REDIS_OPTIONS],
            "localnet": [python, "-m", "pocket_localnet", "chain", "--genesis", str(folder / "genesis.yaml"),
                         "--grpc-port", str(ports["grpc"]), "--rpc-port", str(ports["rpc"])],
            "miner": [python, "-m", "pocket_miner", "--config", str(folder / "miner.json")],
        }  # fmt: skip
        processes = {part: Process(part, command, folder / f"{part}.log") for part, command in commands.items()}
        try:
            for process in processes.values():
                process.start()
            await_port(ports["redis"], processes["redis"])
            await_http(f"{rpc}/health", processes["localnet"])
            admin = f"http://127.0.0.1:{ports['admin']}"
            await_http(f"{admin}/ready", processes["miner"], 60)
            yield Bench(processes["miner"], redis_url, NodeAddress.parse(grpc, rpc), admin, folder, addresses)
        finally:
            for part in ("miner", "localnet", "redis"):
                processes[part].stop()


def relay_of(supplier: str, header: SessionHeader, number: int, chance: random.Random) -> bytes:
    """Return a relay as it lies in a stream.

    Its signatures are random: the relayer has verified them.
    """
    body = b'{"jsonrpc":"2.0","id":%d,"method":"eth_getBalance","params":["0x00",%d]}' % (number, number)
    envelope = HttpRequest("POST", "http://relayer:8080/", {"Content-Type": ("application/json",)}, body)
    request = RelayRequest(header, chance.randbytes(199), supplier, envelope.encode())
    return Relay(request, RelayResponse(header, chance.randbytes(64), b"", chance.randbytes(32))).encode()


class Writer:
    """Writes relays into the streams of all sessions in turn.

    A relayer's worker does the same.
    """

    def __init__(self, recorder: RelayRecorder, sessions: Sequence[tuple[str, SessionHeader]]) -> None:
        self._recorder = recorder
        self._sessions = sessions
        self._chance = random.Random(3)
        self._made = 0

    def prepare(self, count: int) -> list[WalRecord]:
        """Return that many relays that were never written before."""
        found = []
        for number in range(self._made, self._made + count):
            supplier, header = self._sessions[number % len(self._sessions)]
            relay = relay_of(supplier, header, number, self._chance)
            found.append(WalRecord(supplier, header.session_id, header.encode(), relay))
        self._made += count
        return found

    async def at_rate(self, records: Sequence[WalRecord], per_second: float) -> None:
        """Write at a steady rate."""
        begun = time.perf_counter()
        waiting = []
        for number, record in enumerate(records):
            early = begun + number / per_second - time.perf_counter()
            if early > 0:
                await asyncio.sleep(early)
            waiting.append(self._recorder.submit(record))
        await asyncio.gather(*waiting)

    async def at_once(self, records: Sequence[WalRecord]) -> None:
        """Write as fast as Redis accepts them."""
        for start in range(0, len(records), 500):
            await asyncio.gather(*map(self._recorder.submit, records[start : start + 500]))


@asynccontextmanager
async def _writing(bench: Bench) -> AsyncIterator[tuple[Writer, "Progress"]]:
    redis, keys = connect(bench.redis_url), RedisKeys(_PREFIX)
    sessions = await bench.sessions()
    notifier = RelayNotifier(redis, keys, lambda address: shard_of(address, _SHARDS))
    recorder = RelayRecorder(redis, keys, WriteAheadLog(bench.folder / "log", "w"), notifier=notifier)
    task = asyncio.create_task(recorder.run())
    try:
        yield Writer(recorder, sessions), Progress(redis, keys, sessions)
    finally:
        task.cancel()
        await redis.aclose()


class Progress:
    """Waits until the miner's volume has everything that is in the streams."""

    def __init__(self, redis: Any, keys: RedisKeys, sessions: Sequence[tuple[str, SessionHeader]]) -> None:
        self._redis = redis
        self._keys = keys
        self._sessions = sessions

    async def caught_up(self) -> None:
        """Wait for it. Raises TimeoutError."""
        async with asyncio.timeout(_WAIT_SECONDS):
            for supplier, header in self._sessions:
                while not await self._stored(supplier, header.session_id):  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(0.1)

    async def _stored(self, supplier: str, session_id: str) -> bool:
        last = await self._redis.xrevrange(self._keys.stream(supplier, session_id), count=1)
        mark = await self._redis.hget(self._keys.replicated(supplier), session_id)
        return not last or (mark is not None and mark.decode().rpartition("/")[2] == last[0][0].decode())


async def _phase(bench: Bench, relays: int, work: Any) -> Cost:
    rings = [await asyncio.to_thread(parts.wheel_only_ring)]
    cpu, begun = cpu_seconds(bench.pid), time.perf_counter()
    await work()
    used, seconds = cpu_seconds(bench.pid) - cpu, time.perf_counter() - begun
    rings.append(await asyncio.to_thread(parts.wheel_only_ring))
    return Cost(relays, seconds, used, statistics.fmean(rings) * 1000, resident_mib(bench.pid))


async def _measure(
    bench: Bench, rates: Sequence[float], seconds: float, backlog: int
) -> tuple[Cost, dict[str, Cost]]:  # fmt: skip
    async with _writing(bench) as (writer, progress):
        sessions = len(await bench.sessions())
        await writer.at_once(writer.prepare(2 * sessions))  # every session is known and its terms are learnt
        await progress.caught_up()
        await asyncio.sleep(8)
        idle = await _phase(bench, 1, lambda: asyncio.sleep(seconds))
        found = {}
        for rate in rates:
            records = writer.prepare(int(rate * seconds))

            async def paced(records: Sequence[WalRecord] = records, rate: float = rate) -> None:
                await writer.at_rate(records, rate)
                await progress.caught_up()

            found[f"{rate:g}/s"] = await _phase(bench, len(records), paced)
        if backlog:
            records = writer.prepare(backlog)

            async def at_once() -> None:
                await writer.at_once(records)
                await progress.caught_up()

            found["backlog"] = await _phase(bench, backlog, at_once)
        return idle, found


def measure(
    suppliers: int = 3, rates: Sequence[float] = (150.0, 400.0), seconds: float = 15.0, backlog: int = 30_000,
    block_seconds: float = 1.0,
) -> dict[str, float]:  # fmt: skip
    """Return the measurements of one miner by name.

    Units are ms of CPU, ring verifications and MiB.
    """
    with running_miner(suppliers, block_seconds) as bench:
        idle, found = asyncio.run(_measure(bench, rates, seconds, backlog))
    per_second = idle.cpu_seconds / idle.seconds
    figures = {
        "idle: CPU per second, ms": per_second * 1000,
        "idle: calibration, ms": idle.ring_ms,
        "idle: resident, MiB": idle.resident_mib,
    }
    for name, cost in found.items():
        per_relay = cost.per_relay_ms(per_second)
        figures[f"{name}: CPU per second, ms"] = cost.cpu_seconds / cost.seconds * 1000
        figures[f"{name}: CPU per relay, ms"] = per_relay
        figures[f"{name}: calibration, ms"] = cost.ring_ms
        figures[f"{name}: CPU per relay, ring verifications"] = per_relay / cost.ring_ms
        figures[f"{name}: resident, MiB"] = cost.resident_mib
    return figures


def growth(suppliers: Sequence[int] = SUPPLIERS, relays: Sequence[int] = RELAYS) -> Growth:
    """Return measurements by name for growing numbers, with exponents.

    The numbers are of suppliers, and of relays in two sessions.
    """
    found: dict[str, list[float]] = {}
    for number in suppliers:
        figures = measure(number, rates=(400.0,), seconds=8, backlog=0)
        for name in ("idle: CPU per second, ms", "400/s: CPU per second, ms", "400/s: resident, MiB"):
            found.setdefault(f"{listed(suppliers)} suppliers, {name}", []).append(figures[name])
    for number in relays:
        figures = measure(1, rates=(), seconds=8, backlog=number)
        for name in ("backlog: CPU per relay, ring verifications", "backlog: resident, MiB"):
            found.setdefault(f"{listed(relays)} relays, {name}", []).append(figures[name])
    return {name: (values, exponent(suppliers if "suppliers" in name else relays, values))
            for name, values in found.items()}  # fmt: skip


def main() -> None:
    """Measure one miner and print the measurements as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suppliers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rates", type=float, nargs="*", default=[150.0, 400.0])
    parser.add_argument("--backlog", type=int, default=30_000)
    parser.add_argument("--block-seconds", type=float, default=1.0)
    parser.add_argument("--growth", action="store_true", help="print how the measurements grow instead")
    parser.add_argument("--growth-suppliers", type=int, nargs="*", default=list(SUPPLIERS))
    parser.add_argument("--growth-relays", type=int, nargs="*", default=list(RELAYS))
    options = parser.parse_args()
    if options.growth:
        print_growth(growth(options.growth_suppliers, options.growth_relays))
        return
    figures = measure(options.suppliers, options.rates, options.seconds, options.backlog, options.block_seconds)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
