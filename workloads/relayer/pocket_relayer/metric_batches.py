"""Metrics of every relay, written once per iteration of the event loop instead of once per relay."""

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter, Histogram

_due: Final[list[Callable[[], None]]] = []
"""Writes of the metrics that changed in this iteration."""


def _write_soon(write: Callable[[], None]) -> None:
    _due.append(write)
    if len(_due) > 1:
        return
    try:
        asyncio.get_running_loop().call_soon(write_due)
    except RuntimeError:  # outside of an event loop
        write_due()


def write_due() -> None:
    """Write what was counted since the last call."""
    writes, _due[:] = _due[:], []
    for write in writes:
        write()


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
            _write_soon(self._write)

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
            _write_soon(self._write)

    def _write(self) -> None:
        histogram = self._histogram
        pending, self._pending = self._pending, []
        found: dict[int, int] = {}
        for amount in pending:
            bucket = bisect_left(histogram._upper_bounds, amount)  # noqa: SLF001 - prometheus_client adds one at a time
            found[bucket] = found.get(bucket, 0) + 1
        histogram._sum.inc(sum(pending))  # noqa: SLF001
        for bucket, number in found.items():
            histogram._buckets[bucket].inc(number)  # noqa: SLF001
