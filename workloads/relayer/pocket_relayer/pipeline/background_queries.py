"""Chain queries that no relay waits for."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import ChainError, DecodingError

_MOST_AT_ONCE: Final = 64
_LOG: FilteringBoundLogger = structlog.get_logger()


class BackgroundQueries:
    """Queries of one worker that run as children of `run`, at most one for each key."""

    def __init__(self, concurrency: int = _MOST_AT_ONCE) -> None:
        self._concurrency = concurrency
        self._group: asyncio.TaskGroup | None = None
        self._keys: set[Hashable] = set()

    async def run(self) -> None:
        """Run the queries that are started, until cancelled.

        An unexpected error of one ends all.
        """
        try:
            async with asyncio.TaskGroup() as self._group:
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self._keys.clear()

    def start(self, key: Hashable, query: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Start a query.

        Returns False if one with this key, or too many, are running, or if `run` is not.
        """
        if self._group is None or key in self._keys or len(self._keys) >= self._concurrency:
            return False
        self._keys.add(key)
        self._group.create_task(self._answer(key, query))
        return True

    async def _answer(self, key: Hashable, query: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await query()
        except (ChainError, DecodingError, TimeoutError) as error:
            _LOG.debug("chain query without an answer", query=key, error=error)
        finally:
            self._keys.discard(key)
