"""Collect results of concurrent work without waiting for the slowest part."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def first_in_time(work: Sequence[Coroutine[Any, Any, T]], grace_seconds: float) -> list[T]:
    """Return the results of what ends within `grace_seconds` after the first result, and cancel the rest.

    An empty result does not count: what failed at once shortens the time of nothing else. Raises what the work raises.
    """
    tasks = [asyncio.ensure_future(part) for part in work]
    if not tasks:
        return []
    try:
        done, pending = set[asyncio.Task[T]](), set(tasks)
        while pending and not any(task.result() for task in done):
            ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done |= ended
        if pending:
            done |= (await asyncio.wait(pending, timeout=grace_seconds))[0]
        return [task.result() for task in tasks if task in done]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
