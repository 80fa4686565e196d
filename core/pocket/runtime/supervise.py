"""Supervise background loops, whose failure must never stop a process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

_LOG: FilteringBoundLogger = structlog.get_logger()
_AGAIN_SECONDS: Final = 2.0


def _never(_: Exception) -> bool:
    return False


async def supervise(
    name: str,
    loop: Callable[[], Awaitable[None]],
    on_failure: Callable[[], None],
    *,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    is_fatal: Callable[[Exception], bool] = _never,
) -> None:
    """Run a loop and restart it after an unexpected error, which `on_failure` counts.

    Raises fatal errors.
    """
    while True:
        try:
            await loop()
            return
        except Exception as error:
            task = asyncio.current_task()
            if is_fatal(error) or (task is not None and task.cancelling()):
                raise  # a task group whose child failed at the same moment swallows a cancellation
            on_failure()
            _LOG.error("background task failed, restarting", task=name, exc_info=error)
        await pause(_AGAIN_SECONDS)
