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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from google.protobuf.message import DecodeError, Message
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from structlog.typing import FilteringBoundLogger

from pocket.chain_cache.cached_client import CHANGING, LIFETIMES, CachedChain, CacheKey, encode_key
from pocket.errors import NotFound, PocketError
from pocket.redis_store.lua_scripts import Script
from pocket.redis_store.redis_errors import translated
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.reply_text import text_of
from pocket.redis_store.store_errors import RedisUnavailable

_LOG: FilteringBoundLogger = structlog.get_logger()
_INTEREST_SECONDS: Final = 600.0
_MOST: Final = 10_000
_LOOK_SECONDS: Final = 5.0
_MISSES: Final = 3
_PART: Final = 64
_REWRITTEN_AFTER: Final = 0.3  # of its lifetime, an unchanged shared answer is written again

# KEYS: version   ARGV: channel, JSON without its closing brace.   One number for each message, in their order.
_PUBLISH: Final = Script(
    """
local version = redis.call('INCR', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2] .. ',"version":' .. version .. '}')
return version
""",
    int,
)

# KEYS: known records by their last use   ARGV: oldest use, most.   Drops older ones. Returns how many, and the newest.
_KNOWN: Final = Script("""
local dropped = redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
return {dropped, redis.call('ZREVRANGE', KEYS[1], 0, ARGV[2] - 1)}
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
    version: int = await _PUBLISH.run(redis, [keys.cache_version], [keys.cache_invalidations, body[:-1]])
    return version


@dataclass(slots=True)
class InvalidationSubscriber:
    """Evicts changed records from one process's memory while `run` is running.

    It also receives the blocks that are published, and the one before it subscribed.
    """

    redis: "Redis"
    keys: RedisKeys
    chain: CachedChain
    on_invalidation: Callable[[int], None] = lambda _: None
    on_block: Callable[[bytes | str], None] | None = None
    rng: Callable[[], float] = random.random
    version: int = -1

    async def run(self) -> None:
        """Follow invalidations without end, across Redis outages."""
        while True:
            try:
                with translated():
                    async with self.redis.pubsub() as subscription:
                        blocks = [] if self.on_block is None else [self.keys.blocks]
                        await subscription.subscribe(self.keys.cache_invalidations, *blocks)
                        await self._follow(subscription.connection)
            except (RedisUnavailable, ValueError) as error:  # a version that is no number, too
                _LOG.debug("cache invalidations not read, retrying", error=error)
            await asyncio.sleep(0.5 + self.rng())

    async def _follow(self, connection: "Connection") -> None:
        """Follow the messages of a connection that has subscribed.

        redis-py's PubSub takes as much CPU again for each message, and there is one with every block.
        """
        while True:
            reply = await connection.read_response(timeout=_LOOK_SECONDS, disconnect_on_error=False, push_request=True)
            kind = "subscribe" if reply is None else text_of(reply[0])
            if kind == "subscribe":
                # Just subscribed, or silent for long: the version shows missed messages.
                await self._catch_up()
            elif kind == "message" and text_of(reply[1]) != self.keys.blocks:
                self._take(reply[2])
            elif kind == "message" and self.on_block is not None:
                self.on_block(reply[2])

    async def _catch_up(self) -> None:
        now = int(await self.redis.get(self.keys.cache_version) or 0)
        if now != self.version:
            self._forget(None, now)
        if self.on_block is not None and (block := await self.redis.get(self.keys.block)):
            self.on_block(block)

    def _take(self, data: str | bytes) -> None:
        try:
            message_body = json.loads(data)
            version, text = int(message_body["version"]), str(message_body["forget"])
        except (ValueError, KeyError, TypeError) as error:
            _LOG.warning("cache invalidation skipped, it cannot be read", error=error)
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


@dataclass(frozen=True, slots=True)
class Misses:
    """Statements in a row that the chain has no such record."""

    number: int = 0
    nodes: frozenset[str] = frozenset()
    heights: frozenset[int] = frozenset()

    def add(self, error: NotFound) -> "Misses":
        """Return the misses with one more."""
        return Misses(self.number + 1, self.nodes | set(error.nodes), self.heights | {error.height})

    @property
    def confirmed(self) -> bool:
        """Return whether another node or a later height agrees with the first statement.

        Rounds are a block apart, so that the last of several counts without a height.
        """
        return len(self.nodes) > 1 or len(self.heights) > 1 or self.number >= _MISSES


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
    _misses: dict[CacheKey, Misses] = field(default_factory=dict)
    _written_at: dict[CacheKey, float] = field(default_factory=dict)

    async def refresh(self) -> None:
        """Refresh the records used in the last ten minutes once.

        Raises the Redis client's errors.
        """
        oldest = self.wall_clock() - _INTEREST_SECONDS
        _, members = await _KNOWN.run(self.redis, [self.keys.cache_known], [oldest, _MOST], 2)
        cache_keys = [cache_key for member in members if (cache_key := decode_key(member))]
        for start in range(0, len(cache_keys), _PART):
            for result in await self._refresh_part(cache_keys[start : start + _PART]):
                self.counted(result)
        known = set(cache_keys)
        self._misses = {cache_key: misses for cache_key, misses in self._misses.items() if cache_key in known}
        self._written_at = {cache_key: at for cache_key, at in self._written_at.items() if cache_key in known}

    async def _refresh_part(self, cache_keys: Sequence[CacheKey]) -> list[str]:
        """Query records again, and compare them with the shared ones.

        One pipeline compares all answers.
        """
        refresh_limit = asyncio.Semaphore(self.at_once)

        async def query(cache_key: CacheKey) -> bytes | str:
            async with refresh_limit:
                return await self._query(cache_key)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(query(cache_key)) for cache_key in cache_keys]
        answers = {
            key: result
            for key, task in zip(cache_keys, tasks, strict=True)
            if isinstance(result := task.result(), bytes)
        }
        results = [result for task in tasks if isinstance(result := task.result(), str)]
        async with self.redis.pipeline(transaction=False) as pipe:
            for cache_key in answers:
                pipe.get(self.chain.shared_key(cache_key))
            shared = await pipe.execute() if answers else []
        changed = await self._write(answers, dict(zip(answers, shared, strict=True)))
        for cache_key in changed:
            await publish_invalidation(self.redis, self.keys, cache_key)
        return results + ["changed" if cache_key in changed else "same" for cache_key in answers]

    async def _query(self, cache_key: CacheKey) -> bytes | str:
        """Return the chain's answer, or the result without one."""
        request: Message = CHANGING[cache_key[0]][0].FromString(cache_key[1])
        try:
            answer = await self.chain.fetch_uncached(cache_key[0], request)
        except NotFound as error:
            return await self._missed(cache_key, error)
        except PocketError:
            return "failed"
        self._misses.pop(cache_key, None)
        return answer

    async def _write(self, answers: Mapping[CacheKey, bytes], shared: Mapping[CacheKey, bytes | None]) -> set[CacheKey]:
        """Write the answers that differ from the shared ones or expire soon.

        Returns the records that changed.
        """
        now, changed = self.wall_clock(), set()
        async with self.redis.pipeline(transaction=False) as pipe:
            for cache_key, answer in answers.items():
                before, lifetime = shared[cache_key], LIFETIMES[cache_key[0]]
                age = now - self._written_at.get(cache_key, float("-inf"))
                if before == answer and 0 <= age < lifetime * _REWRITTEN_AFTER:
                    continue
                pipe.set(self.chain.shared_key(cache_key), answer, px=int(lifetime * 1000))
                self._written_at[cache_key] = now
                response = CHANGING[cache_key[0]][1]
                if before is not None and before != answer and _meaning(response, before) != _meaning(response, answer):
                    changed.add(cache_key)
            await pipe.execute()
        return changed

    async def _missed(self, cache_key: CacheKey, error: NotFound) -> str:
        """Evict a record that the chain no longer has.

        One node's statement may be wrong. A second one, of another node or a later height, removes the record from
        every cache, and several in a row remove it from the followed records.
        """
        misses = self._misses[cache_key] = self._misses.get(cache_key, Misses()).add(error)
        if not misses.confirmed:
            return "failed"
        if await self.redis.delete(self.chain.shared_key(cache_key)):
            await publish_invalidation(self.redis, self.keys, cache_key)
        if misses.number < _MISSES:
            return "failed"
        del self._misses[cache_key]
        await self.redis.zrem(self.keys.cache_known, encode_key(cache_key))
        return "evicted"
