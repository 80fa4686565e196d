"""Queue keys to work on, each at most once and never twice at a time.

Failures are retried with growing pauses.
"""

import asyncio
import random
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from pocket.runtime.backoff import Backoff

K = TypeVar("K", bound=Hashable)
_BACKOFF = Backoff(1.0, 60.0)


class WorkQueue(Generic[K]):
    """A work queue bounded by the number of keys.

    `debounce` (seconds) merges a burst of events into one reconciliation.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        debounce: float = 0.1,
        backoff: Backoff = _BACKOFF,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._debounce, self._backoff = debounce, backoff
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._due: dict[K, float] = {}
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: K, after: float | None = None) -> None:
        """Queue a key after the debounce time or `after` seconds. An earlier time stays."""
        if key in self._running and after is None:
            self._again.add(key)
            return
        due = self._clock() + (self._debounce if after is None else after)
        self._due[key] = min(due, self._due.get(key, due))
        self._changed.set()

    async def take(self) -> K:
        """Wait for the next due key that no worker has.

        Give it back with `done` or `failed`.
        """
        while True:
            self._changed.clear()
            ready = [(due, key) for key, due in self._due.items() if key not in self._running]
            if ready:
                due, key = min(ready, key=lambda row: row[0])
                wait = due - self._clock()
                if wait <= 0:
                    del self._due[key]
                    self._running.add(key)
                    return key
            else:
                wait = None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: K, again_after: float | None = None) -> None:
        """Give a key back after a success."""
        self._failures.pop(key, None)
        self._finish(key)
        if again_after is not None:
            self.add(key, again_after)

    def failed(self, key: K, retry_after: float | None = None) -> float:
        """Give a key back after a failure. Returns the seconds until it is retried."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = max(self._backoff.pause(failures, self._rng), retry_after or 0.0)
        self._again.discard(key)
        self._finish(key)
        self.add(key, pause)
        return pause

    def _finish(self, key: K) -> None:
        self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        self._changed.set()
