"""Collect results of concurrent work without waiting for the slowest part."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def first_in_time(
    work: Sequence[Coroutine[Any, Any, T]], grace_seconds: float, counts: Callable[[T], object] = bool
) -> list[T | None]:
    """Return the results in order, with None for what is cancelled `grace_seconds` after the first that `counts`.

    What failed at once shortens the time of nothing else. Raises what the work raises.
    """
    tasks = [asyncio.ensure_future(part) for part in work]
    if not tasks:
        return []
    try:
        done, pending = set[asyncio.Task[T]](), set(tasks)
        while pending and not any(counts(task.result()) for task in done):
            ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done |= ended
        if pending:
            done |= (await asyncio.wait(pending, timeout=grace_seconds))[0]
        return [task.result() if task in done else None for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
