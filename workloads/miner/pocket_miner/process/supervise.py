"""Supervise background loops, whose failure must never stop mining."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

from pocket.runtime.supervise import supervise as supervise_loop
from pocket_miner import miner_metrics
from pocket_miner.storage.corruption import corruption_in


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
    failures = miner_metrics.ERRORS.labels("unforeseen")
    await supervise_loop(name, loop, failures.inc, pause=pause, is_fatal=lambda error: corruption_in(error) is not None)
