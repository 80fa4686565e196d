"""Many who ask for the same at once are one question."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    """Questions that are under way, by key. Whoever leaves takes nobody with him."""

    def __init__(self) -> None:
        self._running: dict[object, asyncio.Future[Any]] = {}

    def __len__(self) -> int:
        """Questions under way."""
        return len(self._running)

    def __contains__(self, key: object) -> bool:
        return key in self._running

    async def ask(self, key: object, load: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer of the question that is under way, or of this one; raises what it raises."""
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.ensure_future(load())
            running.add_done_callback(lambda done: self._ended(key, done))
        found: T = await asyncio.shield(running)
        return found

    def _ended(self, key: object, done: "asyncio.Future[Any]") -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # read, though nobody may wait any more
