"""The relays of a worker that are not recorded yet, and their number and size."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable

from pocket.redis_store.log_positions import BATCH_BYTES
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.recorder_types import RecorderLimits, Waiting
from pocket.redis_store.store_errors import QueueFull, RedisUnavailable


class RecorderQueue:
    """A bounded queue of relays.

    Those that were taken out of it count until they are settled.
    """

    def __init__(self, limits: RecorderLimits) -> None:
        self._limits = limits
        self._queue: deque[Waiting] = deque()
        self._arrival: asyncio.Future[None] | None = None  # that `first` waits for while nothing is queued
        self._next: asyncio.Future[None] | None = None  # that `arrival` waits for
        self.settled = asyncio.Event()
        """Set while everything queued is recorded or rejected."""
        self.settled.set()
        self._bytes = 0
        self._suppliers: Counter[str] = Counter()
        """The number of relays that are not settled, of those suppliers that have any."""

    def __len__(self) -> int:
        """Return the number of relays that wait in the queue."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Return True if no more relays are taken."""
        return len(self._queue) >= self._limits.queue or self._bytes >= self._limits.queue_bytes

    @property
    def suppliers(self) -> set[str]:
        """Return the suppliers with relays that are not settled."""
        return set(self._suppliers)

    def add(self, record: WalRecord) -> "asyncio.Future[None]":
        """Queue one relay.

        The returned future ends when it is recorded, or with the error. Raises QueueFull.
        """
        if self.full:
            raise QueueFull(f"{len(self._queue)} relays are already waiting to be recorded: retry later")
        loop = asyncio.get_running_loop()
        waiting = Waiting(record, loop.create_future(), loop.time())
        self._queue.append(waiting)
        if not self._suppliers:
            self.settled.clear()
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self._bytes += len(record.relay)
        self._suppliers[record.supplier] += 1
        return waiting.done

    async def first(self) -> Waiting:
        """Take the oldest relay, as soon as there is one."""
        while not self._queue:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        return self._queue.popleft()

    async def arrival(self, seconds: float) -> None:
        """Wait until a relay is queued, at most so many seconds."""
        self._next = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait([self._next], timeout=seconds)
        finally:
            self._next = None

    def fill(self, batch: list[Waiting]) -> None:
        """Move relays to a batch up to its limits."""
        size = sum(len(waiting.record.relay) for waiting in batch)
        while self._queue and len(batch) < self._limits.batch and size < BATCH_BYTES:
            waiting = self._queue.popleft()
            batch.append(waiting)
            size += len(waiting.record.relay)

    def settle(self, group: Iterable[Waiting]) -> None:
        """Take relays out of the account, once. Those that are not decided fail."""
        for waiting in group:
            if waiting.settled:
                continue
            waiting.settled = True
            if not waiting.done.done():
                waiting.done.set_exception(RedisUnavailable("the recorder was stopped"))
                waiting.done.exception()
            self._bytes -= len(waiting.record.relay)
            supplier = waiting.record.supplier
            self._suppliers[supplier] -= 1
            if not self._suppliers[supplier]:
                del self._suppliers[supplier]
        if not self._suppliers:
            self.settled.set()
