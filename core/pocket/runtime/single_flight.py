"""Single-flight: coalesce concurrent calls with the same key into one."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    """Calls in progress by key. Cancelling one waiter does not cancel the others."""

    def __init__(self) -> None:
        self._running: dict[object, asyncio.Future[Any]] = {}

    def __len__(self) -> int:
        """Return the number of calls in progress."""
        return len(self._running)

    def __contains__(self, key: object) -> bool:
        return key in self._running

    async def do(self, key: object, load: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Join the call in progress for the key, or start `load`.

        Returns or raises its result.
        """
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.ensure_future(load())
            running.add_done_callback(lambda done: self._ended(key, done))
        result: T = await asyncio.shield(running)
        return result

    def _ended(self, key: object, done: "asyncio.Future[Any]") -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # mark it as retrieved, since all waiters may be cancelled
