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
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pocket.chain_cache.cached_client import CHANGING, LIFETIMES, CachedChain, CacheKey, encode_key
from pocket.errors import NotFound, PocketError
from pocket.redis_store.lua_scripts import Script
from pocket.redis_store.redis_keys import RedisKeys

_LOG = logging.getLogger("pocket.chain_cache.invalidation")
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
        method, _, asked = (text if isinstance(text, str) else text.decode()).partition(" ")
        return (method, base64.b64decode(asked, validate=True)) if method in CHANGING else None
    except (binascii.Error, ValueError):
        return None


async def publish_invalidation(redis: "Redis", keys: RedisKeys, question: CacheKey | None) -> int:
    """Publish that every process must forget an answer, or all of them for None.

    Returns the version of the message. Raises the Redis client's errors.
    """
    body = json.dumps({"forget": encode_key(question) if question else ""})
    return int(await _PUBLISH.run(redis, [keys.cache_version], [keys.cache_news, body[:-1]]))


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
                async with self.redis.pubsub() as subscription:
                    await subscription.subscribe(self.keys.cache_news)
                    await self._follow(subscription)
            except (RedisError, OSError, TimeoutError, ValueError) as error:  # a version that is no number, too
                _LOG.debug("cache invalidation: %s", error)
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
            _LOG.warning("cache news: a message that cannot be read is left out")
            return
        question = decode_key(text)
        self._forget(question if version == self.version + 1 else None, version)

    def _forget(self, question: CacheKey | None, version: int) -> None:
        self.chain.forget(question)
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
        questions = [question for member in members if (question := decode_key(member))]
        room = asyncio.Semaphore(self.at_once)

        async def one(question: CacheKey) -> None:
            async with room:
                self.counted(await self._refresh_one(question))

        async with asyncio.TaskGroup() as group:
            for question in questions:
                group.create_task(one(question))
        known = set(questions)
        self._misses = {question: number for question, number in self._misses.items() if question in known}

    async def _refresh_one(self, question: CacheKey) -> str:
        key = self.chain.shared_key(question)
        requested, responded = CHANGING[question[0]]
        request: Message = requested.FromString(question[1])
        try:
            answer = await self.chain.fetch_uncached(question[0], request)
        except NotFound:
            return await self._missed(question, key)
        except PocketError:
            return "failed"
        self._misses.pop(question, None)
        before: Any = await self.redis.get(key)
        await self.redis.set(key, answer, px=int(LIFETIMES[question[0]] * 1000))
        if before is None or before == answer or _meaning(responded, before) == _meaning(responded, answer):
            return "same"
        await publish_invalidation(self.redis, self.keys, question)
        return "changed"

    async def _missed(self, question: CacheKey, key: str) -> str:
        """Evict a record that the chain no longer has.

        It leaves every cache at once, and the followed records after several misses in a row.
        """
        self._misses[question] = self._misses.get(question, 0) + 1
        if await self.redis.delete(key):
            await publish_invalidation(self.redis, self.keys, question)
        if self._misses[question] < _MISSES:
            return "failed"
        del self._misses[question]
        await self.redis.zrem(self.keys.cache_known, encode_key(question))
        return "evicted"
