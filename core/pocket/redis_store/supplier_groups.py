"""Call for several suppliers at once.

A slow one does not delay the next ones for long.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio import Redis

from pocket.redis_store.cluster import ClusterClient

T = TypeVar("T")
_PATIENCE_SECONDS: Final = 0.05

Work = tuple[Coroutine[Any, Any, None], Callable[[], None]]
"""A call, and what is to be done when it has ended, also if it never began."""


class SupplierGroups:
    """Runs the calls of a batch, one for each supplier.

    In a Cluster a primary may be down while the others serve. So there the next batch begins although calls to that
    primary are still waiting. The callers bound how many calls wait.
    """

    def __init__(self, redis: "Redis") -> None:
        self._patience = _PATIENCE_SECONDS if isinstance(redis, ClusterClient) else None
        self._late: set[asyncio.Task[None]] = set()

    async def run(self, works: Iterable[Work]) -> None:
        """Run the calls until all have ended, or in a Cluster until the patience is over."""
        rows = list(works)
        if len(rows) == 1 and self._patience is None:
            call, ended = rows[0]
            try:
                await call
            finally:
                ended()
            return
        tasks = []
        for call, ended in rows:
            task = asyncio.create_task(call)
            task.add_done_callback(functools.partial(_report, ended))
            tasks.append(task)
        if not tasks:
            return
        try:
            done, late = await asyncio.wait(tasks, timeout=self._patience)
        except asyncio.CancelledError:
            await _cancel(tasks)
            raise
        for task in late:
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        for task in done:
            task.result()

    async def run_one(self, call: Coroutine[Any, Any, T], turn: asyncio.Lock) -> T:
        """Run a call and return its result.

        It holds the turn until it has ended, or the patience is over.
        """
        task: asyncio.Task[T] | None = None
        try:
            async with turn:
                task = asyncio.create_task(call)
                await asyncio.wait([task], timeout=self._patience)
            return await task
        finally:
            if task is None:
                call.close()
            elif not task.done():
                await _cancel([task])

    async def stop(self) -> None:
        """Cancel the calls that still wait."""
        await _cancel(list(self._late))


def _report(ended: Callable[[], None], _: "asyncio.Task[None]") -> None:
    ended()


async def _cancel(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
