"""Metrics of every relay, written a few times a second instead of once per relay.

A worker's metrics lie in a file that is mapped into memory. A write to it costs as much as parsing a request.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter, Histogram

WRITE_SECONDS: Final = 0.1
"""For how long a count may wait. A worker that is killed loses the counts of this time."""


class _DueWrites:
    """Writes of the metrics that changed since the last one.

    A timer of the event loop runs them.
    """

    def __init__(self) -> None:
        self._writes: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, write: Callable[[], None]) -> None:
        """Run a write soon, at once outside of an event loop."""
        self._writes.append(write)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.run()
            return
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(WRITE_SECONDS, self.run)

    def run(self) -> None:
        """Run all writes now."""
        writes, self._writes, self._loop = self._writes, [], None
        for write in writes:
            write()


_DUE: Final = _DueWrites()


def write_due() -> None:
    """Write what was counted since the last write."""
    _DUE.run()


class BatchedCounter:
    """A counter of one series."""

    __slots__ = ("_counter", "_pending")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._pending = 0

    def inc(self) -> None:
        """Count one."""
        self._pending += 1
        if self._pending == 1:
            _DUE.add(self._write)

    def _write(self) -> None:
        pending, self._pending = self._pending, 0
        self._counter.inc(pending)


class BatchedHistogram:
    """A histogram of one series."""

    __slots__ = ("_histogram", "_pending")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._pending: list[float] = []

    def observe(self, amount: float) -> None:
        """Add one observation."""
        self._pending.append(amount)
        if len(self._pending) == 1:
            _DUE.add(self._write)

    def _write(self) -> None:
        histogram = self._histogram
        pending, self._pending = self._pending, []
        counts: dict[int, int] = {}
        for amount in pending:
            bucket = bisect_left(histogram._upper_bounds, amount)  # noqa: SLF001 - prometheus_client adds one at a time
            counts[bucket] = counts.get(bucket, 0) + 1
        histogram._sum.inc(sum(pending))  # noqa: SLF001
        for bucket, number in counts.items():
            histogram._buckets[bucket].inc(number)  # noqa: SLF001
