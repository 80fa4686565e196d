"""Run requests to the API server with bounded concurrency."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from pocket.kube.api_client import KubeError

T = TypeVar("T")


async def gather_limited(step: Callable[[T], Awaitable[None]], subjects: Iterable[T], limit: int) -> None:
    """Run `step` for every subject, at most `limit` at a time.

    Raises the first KubeError, which cancels the others.
    """
    semaphore = asyncio.Semaphore(limit)

    async def one(subject: T) -> None:
        async with semaphore:
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
