"""Manage the suppliers that this process mines or follows.

Source: docs/fragile/ownership.md. A supplier is mined if its key is loaded and its shard is owned here. Both change
while the process runs.
"""

import asyncio
import random
import sqlite3
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import structlog
from structlog.contextvars import bind_contextvars
from structlog.typing import FilteringBoundLogger

from pocket.coordination.rendezvous import shard_of
from pocket.coordination.stores.lease_store import LeaseUnavailable
from pocket.errors import PocketError
from pocket.redis_store.node_addresses import Address
from pocket.redis_store.notifications import NotificationReader
from pocket.redis_store.redis_errors import redis_deadline
from pocket.redis_store.store_errors import RedisUnavailable, StaleEpoch
from pocket.runtime.concurrency import map_bounded
from pocket.runtime.ticks import sleep_to_tick
from pocket_miner import miner_metrics
from pocket_miner.storage.corruption import VolumeCorrupted, corruption_in
from pocket_miner.suppliers.error_scope import STEP_ERRORS
from pocket_miner.suppliers.factory import SupplierFactory
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.proof_params import ProofParamsByHeight
from pocket_miner.suppliers.running import SupplierWorker
from pocket_miner.suppliers.standby import Standby, delete_leftovers

if TYPE_CHECKING:
    from pocket.coordination.shard_leases import ShardLeaseManager

_LOG: FilteringBoundLogger = structlog.get_logger()
_AT_ONCE = 12
_TAILED_AT_ONCE = 12
_FOLLOW_AT_ONCE = 4
_KEYS_SECONDS = 2.0
_FOLLOW_SECONDS = 0.5
_NOTHING_FOLLOWED_SECONDS = 1.0
_HEAL_SECONDS = 5.0
_LEFTOVERS_SECONDS = 60.0
_AGAIN_SECONDS = 2.0
_FENCE_SECONDS = 1.0


class SupplierManager:
    """Starts and stops a worker per supplier as keys and owned shards change.

    It listens to the shard leases. `keeper` must be set before any other method is called.
    """

    keeper: "ShardLeaseManager"

    def __init__(
        self, suppliers: SupplierFactory, board: LatestBlock, block_seconds: float, rng: random.Random | None = None
    ) -> None:
        self._suppliers = suppliers
        self._board = board
        self._block_seconds = block_seconds
        self._decide_limit = asyncio.Semaphore(_AT_ONCE)
        self._consume_limit = asyncio.Semaphore(_TAILED_AT_ONCE)
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self.params = ProofParamsByHeight(suppliers.chain)
        self._epochs: dict[int, int] = {}
        self._running: dict[str, SupplierWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.corruption: asyncio.Future[VolumeCorrupted] = asyncio.get_running_loop().create_future()
        self._standbys: dict[str, Standby] = {}
        self._due: set[str] = set()
        self._shards: dict[str, int] = {}
        self._stopped = False

    # Queries.

    @property
    def running(self) -> Mapping[str, SupplierWorker]:
        """Return the workers of mined suppliers, by address."""
        return self._running

    @property
    def epochs(self) -> Mapping[int, int]:
        """Return the owned shards with their epochs."""
        return self._epochs

    def seconds_since_scan(self) -> dict[str, float]:
        """Return the seconds since each supplier's latest complete scan of Redis began.

        A supplier that has not completed a scan is missing from the result.
        """
        now = asyncio.get_running_loop().time()
        rows = ((address, running.supplier.last_scan_at) for address, running in self._running.items())
        return {address: round(now - scanned, 1) for address, scanned in rows if scanned is not None}

    def reread(self, primaries: Collection[Address | None]) -> None:
        """Read the streams on these primaries from their start.

        They may hold other entries under known ids.
        """
        for running in self._running.values():
            if running.supplier.consumer.tail.primary in primaries:
                running.supplier.on_redis_restarted()
                running.wake()
        for standby in self._standbys.values():
            if standby.consumer.tail.primary in primaries:
                standby.consumer.reread()

    def stages(self) -> dict[str, int]:
        """Return the number of sessions by stage, over all mined suppliers."""
        totals: dict[str, int] = {}
        for running in self._running.values():
            for stage, number in running.stages.items():
                totals[stage] = totals.get(stage, 0) + number
        return totals

    # Ownership.

    def _shard(self, address: str) -> int:
        if address not in self._shards:
            self._shards[address] = shard_of(address, self._suppliers.config.shards)
        return self._shards[address]

    def _of(self, shard: int) -> list[str]:
        """Return the suppliers of a shard whose keys are loaded or that are retiring."""
        known = {*self._suppliers.addresses, *self._running}
        return sorted(address for address in known if self._shard(address) == shard)

    def unowned(self, addresses: Collection[str]) -> set[str]:
        """Return the suppliers whose shard no live miner holds, as last seen."""
        shards = self.keeper.unowned
        return {address for address in addresses if self._shard(address) in shards}

    async def known_epoch(self, shard: int) -> int:
        """Return the highest epoch of a shard in its suppliers' fences and on this volume.

        Raises LeaseUnavailable if neither can be read.
        """
        volume = fences = None
        try:
            volume = await asyncio.to_thread(self._suppliers.audit.epoch, shard)
        except sqlite3.Error as error:
            self._report_corruption(error)
            _LOG.warning("epoch not read from the volume", error=error)
        try:
            async with redis_deadline(_FENCE_SECONDS):  # held Leases are renewed only after that
                fences = await self._suppliers.highest_fence(self._of(shard))
        except RedisUnavailable as error:
            _LOG.info("fences not read from Redis", error=error)
        if volume is None and fences is None:
            raise LeaseUnavailable(f"the epoch of shard {shard} can be read neither from the volume nor from Redis")
        return max(volume or 0, fences or 0)

    async def on_acquired(self, shard: int, epoch: int) -> None:
        """Start to mine the shard's suppliers."""
        try:
            await asyncio.to_thread(self._suppliers.audit.save_epoch, shard, epoch)
        except sqlite3.Error as error:
            self._report_corruption(error)
            # Not fatal: the Lease and Redis hold the epoch too.
            _LOG.warning("epoch not saved to the volume: free up space on it", error=error)
        self._epochs[shard] = epoch
        await self._align()

    async def on_lost(self, shard: int) -> None:
        """Stop mining the shard's suppliers.

        None of their tasks runs when this returns.
        """
        self._epochs.pop(shard, None)
        await self._end([address for address in self._running if self._shard(address) == shard])

    def _fenced(self, address: str, error: StaleEpoch) -> None:
        _LOG.error("mining stopped, another miner owns the supplier", supplier=address, error=error)
        self.keeper.report_stale_epoch(self._shard(address), error.epoch)

    async def _confirm(self, address: str, epoch: int) -> None:
        """Read the Lease again to confirm ownership under this epoch.

        Raises StaleEpoch if it is not ours and RedisUnavailable if it cannot be read.
        """
        shard = self._shard(address)
        try:
            current = await self.keeper.verify_lease(shard)
        except LeaseUnavailable as error:
            raise RedisUnavailable(f"the Lease of shard {shard} cannot be read: {error}") from error
        if current != epoch:
            raise StaleEpoch(f"shard {shard} is not ours under epoch {epoch}", current)

    async def _end(self, addresses: Collection[str]) -> None:
        tasks = [self._tasks[address] for address in addresses if address in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for address in addresses:
            self._running.pop(address, None)
            self._tasks.pop(address, None)
            miner_metrics.forget_funds(address)  # the next owner publishes them

    async def _align(self) -> None:
        """Start and retire supplier workers to match the loaded keys and the owned shards."""
        if self._stopped:
            return
        loaded = set(self._suppliers.addresses)
        for address in sorted(loaded - set(self._running)):
            epoch = self._epochs.get(self._shard(address))
            if epoch is not None:
                self._standbys.pop(address, None)
                self._start(address, epoch)
        now = asyncio.get_running_loop().time()
        for address, running in list(self._running.items()):
            running.retire(None if address in loaded else now)
            if self._tasks[address].done() and running.retiring_since is not None:
                await self._end([address])
                _LOG.info("supplier retired", supplier=address)
            elif self._tasks[address].done():
                # It met another owner, but the Lease is still ours: start again.
                await self._end([address])
                epoch = self._epochs.get(self._shard(address))
                if epoch is not None:
                    self._start(address, epoch)
        miner_metrics.SUPPLIERS.labels("owner").set(len(self._running))
        miner_metrics.SUPPLIERS.labels("standby").set(len(self._standbys))

    def _start(self, address: str, epoch: int) -> None:
        supplier = self._suppliers.miner(address, epoch, lambda: self._confirm(address, epoch))
        running = SupplierWorker(
            supplier, self.params, self._board, self._decide_limit, self._consume_limit, self._block_seconds,
            self._fenced, self._rng, lambda: len(self._running),
        )  # fmt: skip
        self._running[address] = running
        self._tasks[address] = asyncio.create_task(self._supervise(running), name=f"mine {address}")

    async def _supervise(self, running: SupplierWorker) -> None:
        """Run a supplier's worker and restart it after an unexpected error."""
        while True:
            try:
                await running.run()
                return
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - one supplier's defect must not cost others their windows
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    return  # a task group whose child failed at the same moment swallows the cancellation
                if self._report_corruption(error):
                    return
                miner_metrics.ERRORS.labels("unforeseen").inc()
                _LOG.error(
                    "mining a supplier failed unexpectedly, restarting",
                    exc_info=error,
                    supplier=running.supplier.supplier,
                )
                await asyncio.sleep(_AGAIN_SECONDS)

    def _report_corruption(self, error: BaseException) -> bool:
        """Resolve `corruption` if the error shows that the volume is damaged.

        Returns True if it does.
        """
        corruption = corruption_in(error)
        if corruption is not None and not self.corruption.done():
            self.corruption.set_result(corruption)
        return corruption is not None

    # Loops.

    async def watch_keys(self) -> None:
        """Add and retire suppliers as their keys come and go, without a restart."""
        while True:
            try:
                await asyncio.to_thread(self._suppliers.keyring.reload)
                await self._align()
            except (PocketError, OSError, sqlite3.Error) as error:
                self._report_corruption(error)
                miner_metrics.ERRORS.labels("keys").inc()
                _LOG.warning("applying keys failed, retrying", error=error)
            self._suppliers.observe_signer()
            miner_metrics.SHARDS.set(len(self._epochs))
            miner_metrics.LEADER.set(self.keeper.leads)
            await sleep_to_tick(_KEYS_SECONDS)

    async def listen(self, wakes: NotificationReader) -> None:
        """Wake the suppliers that Redis notifies of new relays."""
        while True:
            try:
                shards = {*self._epochs, *self.keeper.standby_for()}
                for address in await wakes.read(shards):
                    if address in self._running:
                        self._running[address].wake()
                    elif address in self._standbys:
                        self._due.add(address)
                if not shards:  # nothing was waited for: without a pause this would hold the event loop
                    await asyncio.sleep(_KEYS_SECONDS)
            except RedisUnavailable:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def follow(self) -> None:
        """Copy the relays of suppliers whose shards this miner is the standby of."""
        loop = asyncio.get_running_loop()
        healed = cleaned = loop.time()
        while True:
            await sleep_to_tick(_FOLLOW_SECONDS if self._standbys else _NOTHING_FOLLOWED_SECONDS)
            shards = self.keeper.standby_for()
            wanted = {a for a in self._suppliers.addresses if self._shard(a) in shards and a not in self._running}
            for address in set(self._standbys) - wanted:
                del self._standbys[address]
            for address in wanted - set(self._standbys):
                self._standbys[address] = self._suppliers.standby(address)
                self._due.add(address)
            if loop.time() - healed > _HEAL_SECONDS:
                healed = loop.time()
                self._due |= wanted
            due, self._due = self._due & wanted, set()
            await map_bounded(self._follow_one, sorted(due), _FOLLOW_AT_ONCE)
            if loop.time() - cleaned > _LEFTOVERS_SECONDS:
                cleaned = loop.time()
                await self._clean({*self._running, *self._standbys})

    async def _follow_one(self, address: str) -> None:
        bind_contextvars(supplier=address)  # of this task
        standby = self._standbys.get(address)
        if standby is None:
            return
        try:
            if await standby.round():
                self._due.add(address)
        except STEP_ERRORS as error:
            self._report_corruption(error)
            miner_metrics.ERRORS.labels("standby").inc()
            _LOG.warning("copying a standby's relays failed, retrying", error=error)

    async def _clean(self, followed: set[str]) -> None:
        try:
            parts, height = self._suppliers, self._board.height
            await delete_leftovers(parts.relay_store, parts.audit, parts.redis, parts.keys, followed, height)
        except STEP_ERRORS as error:
            _LOG.warning("deleting leftover sessions failed, retrying", error=error)

    async def stop(self) -> None:
        """Stop all workers.

        No worker is started afterwards.
        """
        self._stopped = True
        await self._end(list(self._running))
