"""Several requests to the API server at once, a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from pocket.kube.api_client import KubeError

T = TypeVar("T")


async def for_each(step: Callable[[T], Awaitable[None]], subjects: Iterable[T], at_once: int) -> None:
    """`step` for every subject; the first KubeError ends them all and is raised."""
    gate = asyncio.Semaphore(at_once)

    async def one(subject: T) -> None:
        async with gate:
            await step(subject)

    try:
        async with asyncio.TaskGroup() as group:
            for subject in subjects:
                group.create_task(one(subject))
    except ExceptionGroup as errors:
        refused, rest = errors.split(KubeError)
        if refused is None or rest is not None:
            raise
        raise refused.exceptions[0] from None
