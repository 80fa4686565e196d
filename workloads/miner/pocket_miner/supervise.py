"""Supervise background loops, whose failure must never stop mining."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pocket_miner import miner_metrics
from pocket_miner.storage.corruption import corruption_in

_LOG: FilteringBoundLogger = structlog.get_logger()
_AGAIN_SECONDS = 2.0


@contextlib.asynccontextmanager
async def running_loops(loops: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run loops while the context is open."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def supervise(
    name: str, loop: Callable[[], Awaitable[None]], pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Run a loop and restart it after an unexpected error.

    Raises errors that show a corrupt volume, because they concern the whole miner.
    """
    while True:
        try:
            await loop()
            return
        except Exception as error:
            task = asyncio.current_task()
            if corruption_in(error) is not None or (task is not None and task.cancelling()):
                raise  # a task group whose child failed at the same moment swallows a cancellation
            miner_metrics.ERRORS.labels("unforeseen").inc()
            _LOG.error("background task failed, restarting", task=name, exc_info=error)
        await pause(_AGAIN_SECONDS)
