"""Wait at start for Redis and for a node of the right chain."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from pocket.chain.chain_id import NamedChain, require_chain_id
from pocket.errors import ChainError
from pocket.redis_store.connection import await_durable_redis
from pocket.redis_store.store_errors import RedisUnavailable


class _Observed:
    """A chain id query whose failures are reported to `on_wait`."""

    def __init__(self, chain: NamedChain, on_wait: Callable[[str], None]) -> None:
        self._chain = chain
        self._on_wait = on_wait

    async def chain_id(self) -> str:
        try:
            name = await self._chain.chain_id()
        except ChainError as error:
            self._on_wait(str(error))
            raise
        self._on_wait("")
        return name


async def await_dependencies(
    redis: "Redis",
    redis_url: str,
    chain: NamedChain,
    chain_id: str,
    stop: asyncio.Event,
    redis_waits: Callable[[RedisUnavailable | None], None],
    chain_waits: Callable[[str], None],
    rng: random.Random | None = None,
    claim: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Wait for both at the same time, until they can be used or `stop` is set.

    `redis_waits` and `chain_waits` are called with the reason while waiting, and with None or an empty text
    afterwards. Raises a group with RedisNotDurable or ConfigurationError if only another configuration helps.
    """

    async def await_redis() -> None:
        await await_durable_redis(redis, redis_url, stop, redis_waits, rng, claim)
        redis_waits(None)

    async with asyncio.TaskGroup() as group:
        group.create_task(await_redis())
        group.create_task(require_chain_id(_Observed(chain, chain_waits), chain_id, stop, rng=rng))
