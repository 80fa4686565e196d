"""Run the tasks of one mined supplier.

They consume its relays and decide at every block.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars
from structlog.typing import FilteringBoundLogger

from pocket.redis_store.notifications import NOTIFY_SECONDS
from pocket.redis_store.store_errors import StaleEpoch
from pocket.runtime.ticks import next_tick, sleep_to_tick
from pocket_miner import miner_metrics
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.suppliers.error_scope import STEP_ERRORS
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.proof_params import ProofParamsByHeight
from pocket_miner.suppliers.supplier_miner import SupplierMiner

_LOG: FilteringBoundLogger = structlog.get_logger()
_TICKS = (0.2, 0.4, 0.8)  # seconds
_BATCH = 100
"""Relays of a supplier that are worth a round: its fixed cost is that of about a hundred relays."""
_HEAL_SECONDS = 5.0
_HEALED_PER_SECOND = 50.0
"""Suppliers of a process that are read without a notification, however many it has."""
_HEAL_TICK = 1.0  # seconds
_QUIET_BLOCKS = 10
"""Blocks after which a supplier is looked at that none of the blocks concerned."""
KEY_REMOVAL_GRACE_SECONDS = 5.0
"""How long a relayer may keep using a key after this miner saw it removed."""


@dataclass(slots=True)
class SupplierWorker:
    """Runs one supplier until it is retired or another miner owns it.

    `decide_limit` and `consume_limit` bound how many suppliers of a process decide and consume at the same time.
    Without them a thousand suppliers would wait for the same few connections until each one's deadline. `fenced` is
    called with a supplier's address when Redis holds a higher epoch.
    """

    supplier: SupplierMiner
    params: ProofParamsByHeight
    board: LatestBlock
    decide_limit: asyncio.Semaphore
    consume_limit: asyncio.Semaphore
    block_seconds: float
    fenced: Callable[[str, StaleEpoch], None]
    chance: random.Random
    fleet_size: Callable[[], int] = lambda: 1
    """Returns how many suppliers the process mines."""
    retiring_since: float | None = None
    """When the supplier's key was removed (loop's clock). Open sessions are still finished."""
    stages: dict[str, int] = field(default_factory=dict)
    seen: int = 0  # height of the last decided block
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _read_at: float = 0.0  # when relays were last found (loop's clock)
    _tick: float = _TICKS[0]

    async def run(self) -> None:
        """Run until the supplier is retired with nothing open, or has another owner.

        Raises VolumeCorrupted.
        """
        try:
            with bound_contextvars(supplier=self.supplier.supplier):
                await self._run_tasks()
        finally:
            self.stages = {}

    async def _run_tasks(self) -> None:
        async with asyncio.TaskGroup() as group:
            decide = self._repeat("decide", self._decide, lambda _: min(1.0, self.block_seconds / 4))
            tail = self._repeat("tail", self._tail, lambda failures: min(2.0, 0.1 * 2 ** min(failures, 5)))
            tasks = [group.create_task(decide), group.create_task(tail)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()

    def wake(self) -> None:
        """Consume now, because relays have arrived."""
        self._woken.set()

    def retire(self, now: float | None) -> None:
        """Set when the key was removed (loop's clock), None while it is present."""
        self.retiring_since = None if now is None else self.retiring_since or now

    @property
    def _over(self) -> bool:
        """Return True if the supplier is retired and nothing of it can still be open.

        A relayer may lose the key a little later than this miner, so one scan after the grace period must find nothing.
        """
        since, scanned = self.retiring_since, self.supplier.last_scan_at
        return (
            since is not None
            and not self.supplier.sessions
            and scanned is not None
            and scanned > since + KEY_REMOVAL_GRACE_SECONDS
        )

    async def _repeat(
        self, step: str, work: Callable[[], Awaitable[None]], pause_seconds: Callable[[int], float]
    ) -> None:
        """Repeat a step until the supplier is retired or another miner owns it.

        After a failure it pauses, for as long as `pause_seconds` returns for the number of failures in a row. Raises
        VolumeCorrupted.
        """
        failures, logged = 0, ""
        while not self._over:
            try:
                await work()
                failures, logged = 0, ""
            except StaleEpoch as error:
                self.fenced(self.supplier.supplier, error)
                return
            except STEP_ERRORS as error:
                if corruption_in(error) is not None:
                    raise
                miner_metrics.ERRORS.labels(step).inc()
                failures += 1
                if str(error) != logged:
                    logged = str(error)
                    _LOG.warning("step of a supplier failed, retrying", step=step, error=error)
                await asyncio.sleep(pause_seconds(failures))

    async def _tail(self) -> None:
        """Consume new relays once, and wait until more may have come.

        A full volume stops consuming, never claims: what is not consumed is still in the streams.
        """
        read = await self.supplier.tail(self.consume_limit)
        now = asyncio.get_running_loop().time()
        since, self._read_at = now - self._read_at, now if read else self._read_at
        if not read or not self.supplier.behind:
            await self._rest(read, since)

    async def _rest(self, read: int, since: float) -> None:
        """Wait after a read of that many relays.

        `since` are the seconds after the previous one that found any. A supplier that just had relays is read again
        when about a hundred may have come, but before relayers may notify of the next one. Then it waits for a
        notification, and is read now and then in case one was lost. All reads are at ticks of the clock, so that
        suppliers share rounds: the fewer relays, the rarer the ticks.
        """
        now = asyncio.get_running_loop().time()
        if read:
            wanted = _BATCH * since / read
            self._tick = next((tick for tick in _TICKS if wanted < 1.5 * tick), _TICKS[-1])
            await sleep_to_tick(self._tick, now)
        elif since < NOTIFY_SECONDS:
            await sleep_to_tick(self._tick, now + NOTIFY_SECONDS - since)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._heals_at(now)):
                    await self._woken.wait()
                await sleep_to_tick(self._tick)
        self._woken.clear()

    def _heals_at(self, now: float) -> float:
        """Return when to read without a notification.

        A small fleet is read in one round, a large one is spread.
        """
        seconds = self.fleet_size() / _HEALED_PER_SECOND
        if seconds <= _HEAL_SECONDS:
            return next_tick(now, _HEAL_SECONDS)
        return next_tick(now + seconds * self.chance.uniform(0.8, 1.2), _HEAL_TICK)

    def _skips(self, height: int) -> bool:
        """Return True if a decision at this height would change nothing."""
        return self.retiring_since is None and self.supplier.quiet_at(height)

    async def _decide(self) -> None:
        """Decide at the next new block that may change anything.

        Without one, decide again after a while. Of several blocks that arrive at once only the newest is decided.
        """
        blocks = _QUIET_BLOCKS if self._skips(self.seen) else 1
        await self.board.wait_newer(self.seen, max(1.0, self.block_seconds) * blocks, self._skips)
        if self._skips(self.board.height):
            return
        async with self.decide_limit:
            block = self.board.latest  # blocks that arrived while others decided are skipped
            if block is None:
                return
            bind_contextvars(height=block.height)  # of this task
            self.stages = await self.supplier.on_block(block, await self.params.at(block.height))
        self.seen = block.height
