"""Loops beside the mining, which must not end it: figures, stakes, caches, retention."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pocket_miner import miner_metrics
from pocket_miner.storage.corruption import corruption_in

_LOG = logging.getLogger("pocket_miner.supervise")
_AGAIN_SECONDS = 2.0


async def supervise(
    name: str, loop: Callable[[], Awaitable[None]], pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Runs a loop, and begins it anew after an error that nobody foresaw: it costs what the loop does, no session.

    Raises damage of the volume, which is not the loop's alone.
    """
    while True:
        try:
            await loop()
            return
        except Exception as error:
            task = asyncio.current_task()
            if corruption_in(error) is not None or (task is not None and task.cancelling()):
                raise  # a group whose child failed in the same moment swallows a cancellation
            miner_metrics.ERRORS.labels("unforeseen").inc()
            _LOG.error("%s failed and is begun anew", name, exc_info=error)
        await pause(_AGAIN_SECONDS)
