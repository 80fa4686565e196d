"""Run work for many rows at the same time, within a bound."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def map_bounded(work: Callable[[T], Awaitable[R]], rows: Iterable[T], at_once: int) -> list[R]:
    """Run `work` for every row, at most `at_once` at the same time and in their order.

    Returns the results in the order of the rows. Raises the first error after all have been tried.
    """
    limit = asyncio.Semaphore(at_once)

    async def one(row: T) -> R:
        async with limit:
            return await work(row)

    tasks = [asyncio.ensure_future(one(row)) for row in rows]
    await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result() for task in tasks]  # an error that `work` returned is a result
