"""Invalidate cached chain records in every process.

The miners' leader queries every recently used record again: applications, suppliers, accounts, params. A changed record
is written to Redis and published on one channel, with a version that grows by one. A subscriber that misses a version
or was not subscribed forgets all changing records. A lost message costs queries, and no wrong answer outlives the
lifetimes of `pocket.chain_cache.cached_client`.
"""

import asyncio
import base64
import binascii
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError, Message
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from pocket.chain_cache.cached_client import CHANGING, LIFETIMES, CachedChain, CacheKey, encode_key
from pocket.errors import NotFound, PocketError
from pocket.redis_store.lua_scripts import Script
from pocket.redis_store.redis_errors import translated
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable

_LOG: FilteringBoundLogger = structlog.get_logger()
_INTEREST_SECONDS: Final = 600.0
_MOST: Final = 10_000
_LOOK_SECONDS: Final = 5.0
_MISSES: Final = 3

# KEYS: version   ARGV: channel, JSON without its closing brace.   One number for each message, in their order.
_PUBLISH: Final = Script("""
local version = redis.call('INCR', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2] .. ',"version":' .. version .. '}')
return version
""")


def decode_key(text: str | bytes) -> CacheKey | None:
    """Decode a cache key. Returns None if it is not one of a changing record."""
    try:
        method, _, request_bytes = (text if isinstance(text, str) else text.decode()).partition(" ")
        return (method, base64.b64decode(request_bytes, validate=True)) if method in CHANGING else None
    except (binascii.Error, ValueError):
        return None


async def publish_invalidation(redis: "Redis", keys: RedisKeys, cache_key: CacheKey | None) -> int:
    """Publish that every process must forget an answer, or all of them for None.

    Returns the version of the message. Raises the Redis client's errors.
    """
    body = json.dumps({"forget": encode_key(cache_key) if cache_key else ""})
    return int(await _PUBLISH.run(redis, [keys.cache_version], [keys.cache_invalidations, body[:-1]]))


@dataclass(slots=True)
class InvalidationSubscriber:
    """Evicts changed records from one process's memory while `run` is running."""

    redis: "Redis"
    keys: RedisKeys
    chain: CachedChain
    on_invalidation: Callable[[int], None] = lambda _: None
    rng: Callable[[], float] = random.random
    version: int = -1

    async def run(self) -> None:
        """Follow invalidations without end, across Redis outages."""
        while True:
            try:
                with translated():
                    async with self.redis.pubsub() as subscription:
                        await subscription.subscribe(self.keys.cache_invalidations)
                        await self._follow(subscription)
            except (RedisUnavailable, ValueError) as error:  # a version that is no number, too
                _LOG.debug("cache invalidations not read, retrying", error=error)
            await asyncio.sleep(0.5 + self.rng())

    async def _follow(self, subscription: "object") -> None:
        while True:
            message = await subscription.get_message(timeout=_LOOK_SECONDS)  # type: ignore[attr-defined]  # redis' own
            if message is None or message["type"] == "subscribe":
                # Just subscribed, or silent for long: the version shows missed messages.
                await self._catch_up()
            elif message["type"] == "message":
                self._take(message["data"])

    async def _catch_up(self) -> None:
        now = int(await self.redis.get(self.keys.cache_version) or 0)
        if now != self.version:
            self._forget(None, now)

    def _take(self, data: str | bytes) -> None:
        try:
            message_body = json.loads(data)
            version, text = int(message_body["version"]), str(message_body["forget"])
        except (ValueError, KeyError, TypeError):
            _LOG.warning("cache invalidation skipped, it cannot be read")
            return
        cache_key = decode_key(text)
        self._forget(cache_key if version == self.version + 1 else None, version)

    def _forget(self, cache_key: CacheKey | None, version: int) -> None:
        self.chain.forget(cache_key)
        self.version = version
        self.on_invalidation(version)


def _meaning(response: type[Message], answer: bytes) -> bytes:
    """Nodes write the entries of maps in any order: such answers are the same."""
    try:
        return response.FromString(answer).SerializeToString(deterministic=True)
    except DecodeError:
        return answer


@dataclass(slots=True)
class CacheRefresher:
    """Refreshes followed records from the chain, once per block on the leader.

    `counted` is called with same, changed, evicted or failed.
    """

    redis: "Redis"
    keys: RedisKeys
    chain: CachedChain
    wall_clock: Callable[[], float]
    counted: Callable[[str], None] = lambda _: None
    at_once: int = 8
    _misses: dict[CacheKey, int] = field(default_factory=dict)

    async def refresh(self) -> None:
        """Refresh the records used in the last ten minutes once.

        Raises the Redis client's errors.
        """
        oldest = self.wall_clock() - _INTEREST_SECONDS
        await self.redis.zremrangebyscore(self.keys.cache_known, "-inf", oldest)
        members: Any = await self.redis.zrange(self.keys.cache_known, 0, _MOST - 1, desc=True)
        cache_keys = [cache_key for member in members if (cache_key := decode_key(member))]
        refresh_limit = asyncio.Semaphore(self.at_once)

        async def one(cache_key: CacheKey) -> None:
            async with refresh_limit:
                self.counted(await self._refresh_one(cache_key))

        async with asyncio.TaskGroup() as group:
            for cache_key in cache_keys:
                group.create_task(one(cache_key))
        known = set(cache_keys)
        self._misses = {cache_key: number for cache_key, number in self._misses.items() if cache_key in known}

    async def _refresh_one(self, cache_key: CacheKey) -> str:
        redis_key = self.chain.shared_key(cache_key)
        requested, responded = CHANGING[cache_key[0]]
        request: Message = requested.FromString(cache_key[1])
        try:
            answer = await self.chain.fetch_uncached(cache_key[0], request)
        except NotFound:
            return await self._missed(cache_key, redis_key)
        except PocketError:
            return "failed"
        self._misses.pop(cache_key, None)
        before: Any = await self.redis.get(redis_key)
        await self.redis.set(redis_key, answer, px=int(LIFETIMES[cache_key[0]] * 1000))
        if before is None or before == answer or _meaning(responded, before) == _meaning(responded, answer):
            return "same"
        await publish_invalidation(self.redis, self.keys, cache_key)
        return "changed"

    async def _missed(self, cache_key: CacheKey, redis_key: str) -> str:
        """Evict a record that the chain no longer has.

        It leaves every cache at once, and the followed records after several misses in a row.
        """
        self._misses[cache_key] = self._misses.get(cache_key, 0) + 1
        if await self.redis.delete(redis_key):
            await publish_invalidation(self.redis, self.keys, cache_key)
        if self._misses[cache_key] < _MISSES:
            return "failed"
        del self._misses[cache_key]
        await self.redis.zrem(self.keys.cache_known, encode_key(cache_key))
        return "evicted"
