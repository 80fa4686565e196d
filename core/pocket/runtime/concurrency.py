"""Run work for many rows at the same time, within a bound."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def map_bounded(
    work: Callable[[T], Awaitable[R]],
    rows: Iterable[T],
    concurrency: int,
    *,
    stop_on: type[Exception] | tuple[type[Exception], ...] = (),
) -> list[R]:
    """Run `work` for every row, at most `at_once` at the same time and in their order.

    Returns the results in the order of the rows. Raises the first error after all have been tried. An error of
    `stop_on` cancels the others at once: what it depends on fails for all.
    """
    limit = asyncio.Semaphore(concurrency)
    tasks: list[asyncio.Task[R]] = []

    async def one(row: T) -> R:
        async with limit:
            try:
                return await work(row)
            except stop_on:
                for task in tasks:
                    if task is not asyncio.current_task():
                        task.cancel()
                raise

    tasks += [asyncio.create_task(one(row)) for row in rows]
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            task.result()
    return [task.result() for task in tasks]  # an error that `work` returned is a result
