"""A miner in the test's own process: real Redis, real gRPC to a localnet that is stepped by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

import slow_curve as slow
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.protocol.relays.messages import SessionHeader, relay_hash
from pocket.protocol.smst.digest import path_of
from pocket.protocol.transactions.build import GasPrice
from pocket.protocol.transactions.timeouts import UnorderedNonceAllocator
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.seals import SealStore
from pocket.redis_store.stream_reader import StreamReader
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_localnet.hydration import hydrate
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import Localnet, serve
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.settlement.event_reader import SettlementReader
from pocket_miner.storage.account_numbers import AccountNumbers
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.storage.trie_pool import SealedSet, TooLarge, compute_proof, compute_root
from pocket_miner.submission.claims import ClaimSubmitter
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.proofs import ProofSubmitter
from pocket_miner.submission.sender import Sender
from pocket_miner.suppliers.supplier_miner import SupplierMiner
from world import World, address, key

PREFIX = "test"
STAKE = 10**9


class HereTriePool:
    """The trie functions in a thread."""

    async def root(self, path: Path, supplier: str, session_id: str, sealed_root: bytes = b"") -> SealedSet:
        return await asyncio.to_thread(compute_root, str(path), supplier, session_id, sealed_root)

    async def proof(
        self, path: Path, supplier: str, session_id: str, proof_path: bytes, sealed_root: bytes = b""
    ) -> tuple[bytes, bytes]:
        return await asyncio.to_thread(compute_proof, str(path), supplier, session_id, proof_path, sealed_root)


def waits_as_a_large_session(gate: str, most: int | None = None) -> str:
    """Stands for seconds of computing in the trie's process: goes on when somebody writes to the FIFO."""
    if most is not None:
        raise TooLarge
    return Path(gate).read_text()


def slow_root(rows: list[WalRecord]) -> bytes:
    """Return the root of recorded relays by the independent implementation, with weight 100 each."""
    return slow.trie_root({path_of(relay_hash(row.relay)): (row.relay, 100) for row in rows})


@dataclass
class Mine:
    """One supplier's miner with its world.

    `restart` creates a new owner on the same volume.
    """

    world: World
    chain: LocalChain
    localnet: Localnet
    redis: object
    folder: Path
    client: ChainClient
    comet: CometClient
    settlements: SettlementReader
    supplier_name: str = "alice"
    settled: bool = True
    epoch: int = 0
    number: int = 0
    log: list[str] = field(default_factory=list)
    miner: SupplierMiner | None = None
    relay_store: RelayStore | None = None
    audit: Audit | None = None

    @property
    def supplier(self) -> str:
        return address(self.supplier_name)

    def header(self, height: int = 0, service: str = "eth") -> SessionHeader:
        session = hydrate(self.chain.state, self.chain.block_hash, self.world.application(service), service, height)
        return session.header

    def relays(self, header: SessionHeader, count: int) -> list[WalRecord]:
        rows = []
        for _ in range(count):
            self.number += 1
            relay = self.world.relay(header, self.supplier_name, self.number)
            end = header.session_end_block_height
            rows.append(WalRecord(self.supplier, header.session_id, header.encode(), relay, end))
        return rows

    async def record(self, rows: list[WalRecord]) -> None:
        """Append relays with the script of the workers."""
        log = WriteAheadLog(self.folder / "log", f"w{self.number}")
        publisher = RelayRecorder(self.redis, RedisKeys(PREFIX), log, RecorderLimits(linger_seconds=0))
        segment = log.append(rows)
        try:
            await publisher._append(self.supplier, rows, segment)
        finally:
            log.close()

    def start(self, pool: object | None = None) -> SupplierMiner:
        """Start a (new) owner and drop the old one, as after SIGKILL."""
        self.close()
        self.relay_store = RelayStore(self.folder / "mirror")
        self.audit = Audit(self.folder / "audit.sqlite")
        self.epoch += 1
        self.miner = self.owner(self.epoch, pool)
        return self.miner

    def owner(self, epoch: int, pool: object | None = None) -> SupplierMiner:
        keys = RedisKeys(PREFIX)
        sessions = {}
        gas_price = GasPrice.parse("0.000001upokt")
        store = SealStore(self.redis, keys, self.supplier, epoch)
        sender = Sender(
            self.client, self.supplier, key(self.supplier_name), chain_id="pocket", gas_price=gas_price,
            gas_adjustment=1.7, block_seconds=1.0, nonces=UnorderedNonceAllocator(offset=epoch),
            numbers=AccountNumbers(self.folder / "accounts.json"),
        )  # fmt: skip
        consumer = RelayConsumer(
            StreamReader(self.redis, keys, self.supplier), self.relay_store, self.client, sessions,
            dead_letters=DeadLetters(self.folder / "refused.sqlite"),
        )  # fmt: skip
        trie = pool or HereTriePool()
        fees = FeeTracker(gas_price, self.audit)
        claims = ClaimSubmitter(
            self.supplier, store, self.audit, self.relay_store, trie, sender, consumer, fees, open_sessions=sessions
        )
        proofs = ProofSubmitter(self.supplier, self.client, self.comet, self.relay_store, trie, sender, fees, store)
        return SupplierMiner(
            self.supplier, self.client, self.settlements, store, self.audit, self.relay_store, consumer, claims, proofs,
            sessions, 1, self._redis_settled,
        )  # fmt: skip

    async def _redis_settled(self, blocks: int) -> bool:
        return self.settled

    def close(self) -> None:
        if self.relay_store is not None:
            self.relay_store.close()
        if self.audit is not None:
            self.audit.close()
        self.relay_store = self.audit = None

    async def block(self) -> dict[str, int]:
        """One block, and what the miner does at it."""
        self.localnet.step()
        return await self.decide()

    async def decide(self) -> dict[str, int]:
        await self.miner.tail()
        block = await self.comet.block()
        return await self.miner.on_block(block, await self.client.proof_params())

    async def recorded(self, count: int) -> SessionHeader:
        """Record relays of the current session. Returns its header."""
        header = self.header()
        await self.record(self.relays(header, count))
        return header

    async def to(self, height: int) -> dict[str, int]:
        """Blocks up to a height, each seen by the miner."""
        stages = {}
        while self.chain.height < height:
            stages = await self.block()
        return stages

    def skip(self, height: int) -> None:
        """Blocks that the miner does not see."""
        while self.chain.height < height:
            self.localnet.step()

    def outcomes(self) -> dict[str, dict]:
        return {row["session_id"]: row for row in self.audit.outcomes()}

    def claim(self, header: SessionHeader):
        return self.chain.state.claims.get((header.session_id, self.supplier))


@contextlib.asynccontextmanager
async def mine(redis: object, folder: Path, world: World | None = None, **genesis: object) -> AsyncIterator[Mine]:
    world = world or World()
    chain = LocalChain(world.genesis(**genesis))
    async with serve(chain) as localnet, aiohttp.ClientSession() as http:
        node = NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)
        async with ChainClient([node]) as client:
            comet = CometClient([node], http)
            settlements = SettlementReader(comet, list, wait_timeout_seconds=10.0, failure_seconds=0.0)
            made = Mine(world, chain, localnet, redis, folder, client, comet, settlements)
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(settlements.run())
                try:
                    made.start()
                    yield made
                finally:
                    made.close()
                    reading.cancel()


def ended(miner: Mine, header: SessionHeader) -> str | None:
    """Return the outcome of a session, None while it has none."""
    return (miner.outcomes().get(header.session_id) or {}).get("outcome")


def unharmed(miner: Mine, header: SessionHeader) -> bool:
    """Return True if a session is settled and the supplier's stake is whole."""
    return (ended(miner, header), miner.chain.state.suppliers[miner.supplier].stake_upokt) == ("settled", STAKE)
