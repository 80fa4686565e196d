"""Collect results of concurrent work without waiting for the slowest part."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def first_in_time(
    work: Sequence[Coroutine[Any, Any, T]], grace_seconds: float, counts: Callable[[T], object] = bool
) -> list[T | None]:
    """Return the results in order, with None for those that came too late.

    What has not ended `grace_seconds` after the first result that `counts` is cancelled. What failed at once shortens
    the time of nothing else. Raises what the work raises.
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


async def staggered(work: Iterable[Coroutine[Any, Any, T]], patience_seconds: float) -> AsyncGenerator[T, None]:
    """Yield results as they come.

    Start each part when one has ended or after `patience_seconds` of silence. What is still running goes on meanwhile,
    and is cancelled when the generator is closed. Raises what the work raises.
    """
    waiting = list(work)[::-1]
    running: list[asyncio.Task[T]] = []
    try:
        while waiting or running:
            if waiting:
                running.append(asyncio.ensure_future(waiting.pop()))
            done, _ = await asyncio.wait(
                running, timeout=patience_seconds if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            ended = [task for task in running if task in done]
            running = [task for task in running if task not in done]
            for task in ended:
                yield task.result()
    finally:
        for part in waiting:
            part.close()
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)
