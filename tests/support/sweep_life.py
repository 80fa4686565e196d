"""One life of two suppliers with two sessions each, with faults where they are told to be. Everything else is real.

A life is lived block by block: the relayer records, the Leases are renewed, each supplier is tailed and decides. What
came of it is compared with the chain: stakes, settlements, and balances.
"""

import asyncio
import contextlib
import random
import shutil
import sqlite3
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from direct import DirectSettlements
from pocket.chain.fallback_blocks import FallbackBlocks
from pocket.coordination.elector import timing_for_blocks
from pocket.coordination.lease_names import LeaseNames
from pocket.coordination.shard_leases import ShardLeaseManager
from pocket.coordination.stores.lease_store import LeaseUnavailable, StoredLease
from pocket.protocol.transactions.build import GasPrice
from pocket.protocol.transactions.timeouts import UnorderedNonceAllocator
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import RedisStoreError, RedisUnavailable, StaleEpoch
from pocket.redis_store.stream_reader import StreamReader
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_localnet.hydration import hydrate
from pocket_localnet.local_chain import LocalChain
from pocket_miner.ingest.peers import Peers
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.ingest.session_copies import SessionCopies
from pocket_miner.status.report import Reports
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.storage.trie_pool import TriePool
from pocket_miner.submission.claims import ClaimSubmitter
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.proofs import ProofSubmitter
from pocket_miner.submission.seeds import SeedHashes
from pocket_miner.submission.sender import Sender
from pocket_miner.suppliers.error_scope import TRANSIENT_ERRORS
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.proof_params import ProofParamsByHeight
from pocket_miner.suppliers.sealed_work import SealedWork
from pocket_miner.suppliers.supplier_miner import SupplierMiner
from sweep_faults import (
    Fault,
    FaultyChain,
    FaultyComet,
    FaultyLeases,
    FaultyPeer,
    FaultyProcess,
    FaultyRedis,
    Killed,
    faulty_files,
    faulty_sqlite,
)
from world import World, address, key

SUPPLIERS = ("alice", "bob")
SERVICES = ("eth", "base")
STAKE = 10**9
FIRST, LAST = 8, 24
"""Blocks that are lived: the sessions begin at 1, and nothing happens before their relays come."""
AFTER = 4  # blocks for what an outage at the end held up
RECORDED_AT = (8, 9)
RELAYS = 2  # of each session at each of these heights
WALL = datetime(2026, 1, 1, tzinfo=UTC)
TIMING = timing_for_blocks(1.0)
STAGES = {"serving": (FIRST, 11), "claim window": (12, 15), "proof window": (16, 19), "settlement": (20, LAST)}
VOLUMES = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
PRICE = GasPrice.parse("0.000001upokt")


async def _settled(_blocks) -> bool:
    return True


class Script:
    """The same sessions and relays for every life: making relays costs more than living one."""

    def __init__(self, **genesis: Any) -> None:
        world = World(suppliers=SUPPLIERS, services=SERVICES)
        self.genesis = world.genesis(**genesis)
        chain = LocalChain(self.genesis)
        self.headers = [hydrate(chain.state, chain.block_hash, world.application(s), s, 1).header for s in SERVICES]
        self.rows: dict[int, list[WalRecord]] = {
            height: [
                WalRecord(address(name), h.session_id, h.encode(), world.relay(h, name, 10 * height + n),
                       h.session_end_block_height)
                for name in SUPPLIERS for h in self.headers for n in range(RELAYS)
            ]
            for height in RECORDED_AT
        }  # fmt: skip


class Relayer:
    """One worker's recording: queue, log and streams. One that is killed is followed by another that adopts its log."""

    def __init__(self, redis: Any, keys: RedisKeys, folder: Path) -> None:
        self._redis, self._keys, self._folder = redis, keys, folder
        self._number = 0
        self._log: WriteAheadLog | None = None
        self._publisher: RelayRecorder | None = None
        self.acknowledged: dict[tuple[str, str], int] = {}

    def _start(self) -> RelayRecorder:
        self.close()
        self._number += 1
        self._log = WriteAheadLog(self._folder, f"w{self._number}")
        limits = RecorderLimits(linger_seconds=0, append_timeout_seconds=0, retry_seconds=0)
        self._publisher = RelayRecorder(self._redis, self._keys, self._log, limits)
        return self._publisher

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
        self._log = self._publisher = None

    async def step(self, rows: list[WalRecord], *, roll: bool) -> None:
        """Record relays, and what a worker does once a second."""
        try:
            publisher = self._publisher or self._start()
            if rows:
                await self._record(publisher, rows)
            if roll and self._log is not None:
                self._log.rotate()
            with contextlib.suppress(RedisStoreError, *TRANSIENT_ERRORS):
                await publisher.maintain_once()
        except (Killed, OSError):
            self.close()

    async def _record(self, publisher: RelayRecorder, rows: list[WalRecord]) -> None:
        done = [publisher.submit(row) for row in rows]
        flushing = asyncio.create_task(publisher.run())
        try:
            await asyncio.wait([flushing, asyncio.gather(*done, return_exceptions=True)],
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        finally:
            flushing.cancel()
            ended = (await asyncio.gather(flushing, return_exceptions=True))[0]
        for row, future in zip(rows, done, strict=True):
            if future.done() and future.exception() is None:
                pair = row.supplier, row.session_id
                self.acknowledged[pair] = self.acknowledged.get(pair, 0) + 1
        if isinstance(ended, Killed):
            raise ended


class Life:
    """`restart` is a height at which the miner is started anew, besides where it is killed."""

    def __init__(self, script: Script, redis: Any, fault: Fault, restart: int = 0) -> None:
        self.script, self.redis, self.fault, self.restart = script, redis, fault, restart
        self.chain = LocalChain(script.genesis)
        self.keys = RedisKeys("sweep")
        self.folder = Path(tempfile.mkdtemp(prefix="sweep-", dir=VOLUMES))
        self.relayer = Relayer(FaultyRedis(redis, fault, "recorder"), self.keys, self.folder / "relayer")
        self.leases: dict[str, StoredLease] = {}
        self.frozen = 0.0
        self.starts = 0
        self.relay_store = self.audit = self.pool = None
        self.miners: dict[str, SupplierMiner] = {}
        self.epoch = 0
        # Only a process that hangs is waited for in vain: a busy machine must not look like one.
        self.trie_seconds = 0.05 if fault.kind == "worker hung" else 60.0
        self.last = LAST + (AFTER if fault.blocks else 0)
        # The standby's volume: it holds what this miner read, as of the last block.
        self.peer = RelayStore(self.folder / "peer"), Audit(self.folder / "peer.sqlite")

    # What the shards' keeper asks of its owner.

    async def known_epoch(self, shard: int) -> int:
        """Read it as the miner's SupplierManager does: from the volume and from Redis."""
        volume = fences = None
        with contextlib.suppress(sqlite3.Error):
            volume = await asyncio.to_thread(self.audit.epoch, shard)
        with contextlib.suppress(RedisUnavailable):
            fences = [await self.connection.get(self.keys.fence(name)) for name in self.addresses]
        if volume is None and fences is None:
            raise LeaseUnavailable("the epoch can be read neither from the volume nor from Redis")
        return max(volume or 0, *(int(fence or 0) for fence in fences or ()), 0)

    async def on_acquired(self, shard: int, epoch: int) -> None:
        with contextlib.suppress(*TRANSIENT_ERRORS):
            await asyncio.to_thread(self.audit.save_epoch, shard, epoch)
        self.epoch = epoch

    async def on_lost(self, shard: int) -> None:
        self.epoch = 0
        self.miners.clear()

    async def confirm(self) -> None:
        epoch = self.epoch
        try:
            current = await self.keeper.verify_lease(0)
        except LeaseUnavailable as error:
            raise RedisUnavailable(f"the Lease cannot be read: {error}") from error
        if not epoch or current != epoch:
            raise StaleEpoch("not ours", current)

    # Its parts.

    def _freeze(self) -> None:
        """Advance the clock by the longest time of a call."""
        self.frozen += TIMING.call

    def _clock(self) -> float:
        return self.chain.height + self.frozen

    def start(self) -> None:
        """Start a process on the volume as it is."""
        self.close()
        self.starts += 1
        self.relay_store, self.audit = RelayStore(self.folder / "mirror"), Audit(self.folder / "audit.sqlite")
        self.client, self.comet = FaultyChain(self.chain, self.fault), FaultyComet(self.chain, self.fault)
        self.blocks = FallbackBlocks(self.comet, self.client, clock=self._clock)
        self.connection = FaultyRedis(self.redis, self.fault)
        self.pool = TriePool(start=lambda: FaultyProcess(self.fault), small_seconds=self.trie_seconds)
        self.fees, self.reports = FeeTracker(PRICE, self.audit), Reports(self.audit)
        self.seeds = SeedHashes(self.comet, self.client)
        self.params, self.board = ProofParamsByHeight(self.client), LatestBlock()
        self.peers = Peers(FaultyPeer(self.fault, self.peer), lambda: ["http://peer"])
        self.miners, self.epoch = {}, 0
        self.keeper = ShardLeaseManager(
            FaultyLeases(self.leases, self.fault, self._freeze), LeaseNames("sweep", 1), f"volume_here_{self.starts}",
            self, TIMING, clock=self._clock, wall_clock=lambda: WALL + timedelta(seconds=self._clock()),
            rng=random.Random(1),
        )  # fmt: skip
        self.sealed = SealedWork(
            self, self.board, self.params, 1.0, lambda: self.keeper.is_recent, lambda: self.miners, 0.0,
            lambda addresses: set(addresses) if self.keeper.unowned else set(),
        )  # fmt: skip

    @property
    def addresses(self) -> list[str]:
        return [address(name) for name in SUPPLIERS]

    def detached(self, supplier: str) -> SupplierMiner:
        made = self._miner(supplier, 0)
        made.detached = True
        return made

    def _miner(self, supplier: str, epoch: int) -> SupplierMiner:
        name = next(name for name in SUPPLIERS if address(name) == supplier)
        sessions: dict = {}
        store = SealStore(self.connection, self.keys, supplier, epoch)
        sender = Sender(self.client, supplier, key(name), chain_id="pocket", gas_price=PRICE, gas_adjustment=1.7,
                        block_seconds=1.0, nonces=UnorderedNonceAllocator(offset=epoch))  # fmt: skip
        consumer = RelayConsumer(
            StreamReader(self.connection, self.keys, supplier), self.relay_store, self.client, sessions,
            dead_letters=DeadLetters(self.folder / "refused.sqlite"),
        )  # fmt: skip
        copies = SessionCopies(consumer, self.relay_store, self.peers)
        latest = {"latest_height": lambda: self.chain.height}
        claims = ClaimSubmitter(
            supplier, store, self.audit, self.relay_store, self.pool, sender, consumer, self.fees, copies=copies,
            open_sessions=sessions, **latest,
        )  # fmt: skip
        proofs = ProofSubmitter(
            supplier, self.client, self.comet, self.relay_store, self.pool, sender, self.fees, store,
            seeds=self.seeds, copies=copies, **latest,
        )  # fmt: skip
        return SupplierMiner(
            supplier, self.client, DirectSettlements(self.comet), store, self.audit, self.relay_store, consumer, claims,
            proofs, sessions, 1, _settled, self.reports.of(supplier), self.peers, self.confirm,
        )  # fmt: skip

    def close(self) -> None:
        for part in filter(None, (self.relay_store, self.audit, self.pool)):
            part.close()
        self.relay_store = self.audit = self.pool = None

    # Its blocks.

    async def _tick(self) -> None:
        with contextlib.suppress(LeaseUnavailable):
            await self.keeper.tick()

    async def _decide(self, supplier: str) -> None:
        block = await self.blocks.block()
        self.board.publish(block)
        await self.miners[supplier].on_block(block, await self.params.at(block.height))

    async def _tail(self, supplier: str) -> None:
        await self.miners[supplier].tail()

    async def _turn(self, supplier: str) -> None:
        """As the miner's tasks do it: tailing and deciding fail apart, and what failed is done again."""
        for work in (self._tail, self._decide):
            for _ in range(2):
                if not self.epoch:
                    return
                if supplier not in self.miners:
                    self.miners[supplier] = self._miner(supplier, self.epoch)
                try:
                    await work(supplier)
                    break
                except StaleEpoch as error:
                    self.keeper.report_stale_epoch(0, error.epoch)
                    self.miners.pop(supplier, None)
                    await self._tick()
                except TRANSIENT_ERRORS:
                    continue

    async def _without_lease(self) -> None:
        with contextlib.suppress(*TRANSIENT_ERRORS):
            self.board.publish(await self.blocks.block())
            await self.sealed.at_block()

    async def _miner_step(self) -> None:
        self.fault.supplier = -1
        await self._tick()
        if not self.miners and not self.epoch:
            await self._tick()
        for number, supplier in enumerate(self.addresses):
            self.fault.supplier = number
            await self._turn(supplier)
        self.fault.supplier = -1
        await self._without_lease()

    async def step(self) -> None:
        self.chain.step()
        height = self.fault.height = self.chain.height
        self.fault.supplier = -1
        await self.relayer.step(self.script.rows.get(height, []), roll=height == RECORDED_AT[-1])
        if height == self.restart:
            await self._begin()
        try:
            await self._miner_step()
        except Killed:
            await self._begin()
            await self._miner_step()

    async def run(self) -> list[str]:
        """Run the life and return its losses, none if all is well."""
        await self.redis.flushdb()
        try:
            while self.chain.height < FIRST - 1:
                self.chain.step()
            with faulty_sqlite(self.fault, self.folder), faulty_files(self.fault, self.folder):
                await self._begin()
                while self.chain.height < self.last:
                    await self.step()
            self.fault.boundary = "over"
            return self._losses() + [f"the loop was held: {name}" for name in self.fault.held_up]
        finally:
            self.close()
            self.relayer.close()
            for file in self.peer:
                file.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _begin(self) -> None:
        """Start the miner, and again each time the fault kills it."""
        for _ in range(self.fault.blocks * 2 + 2):
            with contextlib.suppress(Killed):
                await asyncio.to_thread(self.start)
                return

    # What came of it.

    def _losses(self) -> list[str]:
        rows = self.audit.outcomes()
        ended = {(row["supplier"], row["session_id"]): row for row in rows}
        found = []
        for name in SUPPLIERS:
            supplier = address(name)
            found += [text for h in self.script.headers if (text := self._lost(ended, supplier, h.session_id))]
            stake = self.chain.state.suppliers[supplier].stake_upokt
            if stake != STAKE:
                found.append(f"slashed {STAKE - stake}")
            elif not found:
                found += self._wrong_books(supplier, [row["details"] for row in rows if row["supplier"] == supplier])
        return found

    def _lost(self, ended: dict, supplier: str, session_id: str) -> str:
        wanted = self.relayer.acknowledged.get((supplier, session_id), 0)
        row = ended.get((supplier, session_id))
        if row is None:
            return "no outcome" if wanted else ""
        if row["outcome"] != "settled":
            return f"{row['outcome']}: {row['reason'][:60]}" if wanted else ""
        paid = row["details"]["relays"]
        return f"{wanted - paid} acknowledged relays not paid" if paid < wanted else ""

    def _wrong_books(self, supplier: str, details: list[dict]) -> list[str]:
        """Compare the accounts with the chain's balance."""
        genesis = next(row.balance for row in self.script.genesis.accounts if row.address == supplier)
        earned = sum(row.get("earned_by", {}).get(supplier, 0) for row in details)
        fees = sum(row.get("fees_upokt", 0) for row in details)
        wrong = self.chain.state.balances[supplier] - genesis - earned + fees
        return [f"books differ from the chain by {wrong} upokt"] if wrong else []
