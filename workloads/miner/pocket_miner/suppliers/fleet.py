"""Which suppliers this process mines or follows, and the tasks that do it (docs/fragile/ownership.md).

Keys say who could be mined, held shards who is: both change while everything runs.
"""

import asyncio
import logging
import random
import sqlite3
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from pocket.coordination.stores.lease_store import LeaseUnavailable
from pocket.errors import PocketError
from pocket.redis_store.notifications import NotificationReader
from pocket.redis_store.rendezvous import shard_of
from pocket.redis_store.store_errors import RedisUnavailable, StaleEpoch
from pocket_miner import miner_metrics
from pocket_miner.storage.corruption import VolumeCorrupted, damage_of
from pocket_miner.suppliers.factory import SupplierFactory
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.proof_params import ProofParamsByHeight
from pocket_miner.suppliers.running import TROUBLE, SupplierWorker
from pocket_miner.suppliers.standby import Standby, drop_leftovers

if TYPE_CHECKING:
    from pocket.coordination.shard_leases import ShardLeaseManager

_LOG = logging.getLogger("pocket_miner.suppliers.fleet")
_AT_ONCE = 12
_TAILED_AT_ONCE = 12
_FOLLOW_AT_ONCE = 4
_KEYS_SECONDS = 1.0
_HEAL_SECONDS = 5.0
_LEFTOVERS_SECONDS = 60.0
_AGAIN_SECONDS = 2.0


class SupplierManager:
    """Owner of shards. `keeper` is set before anything runs."""

    keeper: "ShardLeaseManager"

    def __init__(
        self, suppliers: SupplierFactory, board: LatestBlock, block_seconds: float, chance: random.Random | None = None
    ) -> None:
        self._suppliers = suppliers
        self._board = board
        self._block_seconds = block_seconds
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._tail_gate = asyncio.Semaphore(_TAILED_AT_ONCE)
        self._chance = chance or random.Random()  # noqa: S311 - jitter
        self.params = ProofParamsByHeight(suppliers.chain)
        self._epochs: dict[int, int] = {}
        self._running: dict[str, SupplierWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.damage: asyncio.Future[VolumeCorrupted] = asyncio.get_running_loop().create_future()
        self._standbys: dict[str, Standby] = {}
        self._due: set[str] = set()
        self._shards: dict[str, int] = {}
        self._stopped = False

    # What others ask.

    @property
    def running(self) -> Mapping[str, SupplierWorker]:
        """Suppliers that are mined, by address."""
        return self._running

    @property
    def epochs(self) -> Mapping[int, int]:
        """Shards that are acted on, with their epochs."""
        return self._epochs

    def looked(self) -> dict[str, float]:
        """Seconds since each mined supplier's latest look at Redis began; absent: it has not looked yet."""
        now = asyncio.get_running_loop().time()
        rows = ((address, running.supplier.looked_at) for address, running in self._running.items())
        return {address: round(now - looked, 1) for address, looked in rows if looked is not None}

    def reread(self) -> None:
        """Redis may hold other content under known ids."""
        for running in self._running.values():
            running.supplier.meet_redis_anew()
        for standby in self._standbys.values():
            standby.tailer.reread()

    def stages(self) -> dict[str, int]:
        """Sessions by stage, over all suppliers that are mined."""
        found: dict[str, int] = {}
        for running in self._running.values():
            for stage, number in running.stages.items():
                found[stage] = found.get(stage, 0) + number
        return found

    # Ownership.

    def _shard(self, address: str) -> int:
        if address not in self._shards:
            self._shards[address] = shard_of(address, self._suppliers.config.shards)
        return self._shards[address]

    def _of(self, shard: int) -> list[str]:
        """Suppliers of a shard: those whose keys are loaded, and those that retire."""
        known = {*self._suppliers.addresses, *self._running}
        return sorted(address for address in known if self._shard(address) == shard)

    async def known_epoch(self, shard: int) -> int:
        """Of the suppliers' fences and of this volume. Raises LeaseUnavailable where neither can be read."""
        volume = fences = None
        try:
            volume = await asyncio.to_thread(self._suppliers.audit.epoch, shard)
        except sqlite3.Error as error:
            self._hurt(error)
            _LOG.warning("the volume tells no epoch: %s", error)
        try:
            fences = await self._suppliers.highest_fence(self._of(shard))
        except (RedisError, OSError, TimeoutError) as error:
            _LOG.info("Redis tells no fences: %s", error)
        if volume is None and fences is None:
            raise LeaseUnavailable(f"neither the volume nor Redis tells the epoch of shard {shard}")
        return max(volume or 0, fences or 0)

    async def gained(self, shard: int, epoch: int) -> None:
        """Mines the shard's suppliers."""
        try:
            await asyncio.to_thread(self._suppliers.audit.keep_epoch, shard, epoch)
        except sqlite3.Error as error:
            self._hurt(error)
            # The Lease and Redis know it too.
            _LOG.warning("the volume took no epoch: %s. Free space on it.", error)
        self._epochs[shard] = epoch
        await self._align()

    async def lost(self, shard: int) -> None:
        """Stops mining the shard's suppliers; nothing of them runs when this returns."""
        self._epochs.pop(shard, None)
        await self._end([address for address in self._running if self._shard(address) == shard])

    def _fenced(self, address: str, error: StaleEpoch) -> None:
        _LOG.error("%s: this miner stops mining the supplier", error, extra={"fields": {"supplier": address}})
        self.keeper.fenced(self._shard(address), error.epoch)

    async def _confirm(self, address: str, epoch: int) -> None:
        """A fresh look at the Lease; raises Fenced where it is not ours under this epoch, or LedgerUnavailable."""
        shard = self._shard(address)
        try:
            current = await self.keeper.look(shard)
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
            miner_metrics.forget_funds(address)  # whoever mines it next tells

    async def _align(self) -> None:
        """Starts and retires suppliers so that they follow keys and shards."""
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
                _LOG.info("retired", extra={"fields": {"supplier": address}})
            elif self._tasks[address].done():
                # It met another owner, yet the Lease is ours: it looks again.
                await self._end([address])
                epoch = self._epochs.get(self._shard(address))
                if epoch is not None:
                    self._start(address, epoch)
        miner_metrics.SUPPLIERS.labels("owner").set(len(self._running))
        miner_metrics.SUPPLIERS.labels("standby").set(len(self._standbys))

    def _start(self, address: str, epoch: int) -> None:
        supplier = self._suppliers.miner(address, epoch, lambda: self._confirm(address, epoch))
        running = SupplierWorker(
            supplier, self.params, self._board, self._gate, self._tail_gate, self._block_seconds,
            self._fenced, self._chance,
        )  # fmt: skip
        self._running[address] = running
        self._tasks[address] = asyncio.create_task(self._keep(running), name=f"mine {address}")

    async def _keep(self, running: SupplierWorker) -> None:
        """Runs a supplier; what nobody foresaw ends neither it nor the others."""
        while True:
            try:
                await running.run()
                return
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - a defect met by one supplier must not cost the others their windows
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    return  # a group whose child failed in the same moment swallows the cancellation
                if self._hurt(error):
                    return
                miner_metrics.ERRORS.labels("unforeseen").inc()
                _LOG.error("mining a supplier failed and is started again", exc_info=error,
                           extra={"fields": {"supplier": running.supplier.supplier}})  # fmt: skip
                await asyncio.sleep(_AGAIN_SECONDS)

    def _hurt(self, error: BaseException) -> bool:
        """Whether an error tells that the volume is damaged; who waits for `damage` is told."""
        found = damage_of(error)
        if found is not None and not self.damage.done():
            self.damage.set_result(found)
        return found is not None

    # Loops.

    async def watch_keys(self) -> None:
        """Suppliers come and go with their keys, without restart."""
        while True:
            try:
                if await asyncio.to_thread(self._suppliers.reload):
                    _LOG.info("keys changed", extra={"fields": {"keys": self._suppliers.digest[:16]}})
                await self._align()
            except (PocketError, RedisError, OSError, TimeoutError, sqlite3.Error) as error:
                self._hurt(error)
                miner_metrics.ERRORS.labels("keys").inc()
                _LOG.warning("keys: %s", error)
            miner_metrics.SHARDS.set(len(self._epochs))
            miner_metrics.LEADER.set(self.keeper.leads)
            await asyncio.sleep(_KEYS_SECONDS)

    async def listen(self, wakes: NotificationReader) -> None:
        """Wakes those whose relays came."""
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
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(_AGAIN_SECONDS)

    async def follow(self) -> None:
        """Mirrors the suppliers of shards that this miner stands by for."""
        loop = asyncio.get_running_loop()
        healed = cleaned = loop.time()
        while True:
            await asyncio.sleep(0.5)
            shards = self.keeper.standby_for() - set(self._epochs)
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
            gate = asyncio.Semaphore(_FOLLOW_AT_ONCE)
            await asyncio.gather(*(self._follow_one(address, gate) for address in sorted(due)))
            if loop.time() - cleaned > _LEFTOVERS_SECONDS:
                cleaned = loop.time()
                await self._clean({*self._running, *self._standbys})

    async def _follow_one(self, address: str, gate: asyncio.Semaphore) -> None:
        async with gate:
            standby = self._standbys.get(address)
            if standby is None:
                return
            try:
                if await standby.round():
                    self._due.add(address)
            except TROUBLE as error:
                self._hurt(error)
                miner_metrics.ERRORS.labels("standby").inc()
                _LOG.warning("following: %s", error, extra={"fields": {"supplier": address}})

    async def _clean(self, followed: set[str]) -> None:
        try:
            await drop_leftovers(self._suppliers.mirror, self._suppliers.redis, self._suppliers.keys, followed)
        except TROUBLE as error:
            _LOG.warning("cleaning the mirror: %s", error)

    async def stop(self) -> None:
        """Ends everything; nothing is started afterwards."""
        self._stopped = True
        await self._end(list(self._running))
