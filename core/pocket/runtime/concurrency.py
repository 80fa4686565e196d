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

    results = await asyncio.gather(*map(one, rows), return_exceptions=True)
    found = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found
