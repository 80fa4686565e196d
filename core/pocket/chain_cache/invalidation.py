"""What changes on chain is told to every process (design.md, section 6).

The miners' leader asks the chain again for every record that processes asked for lately: applications, suppliers,
accounts, params. What changed is written to Redis and told on one channel, with a version that grows by one.
A follower that sees a version missing, or was not subscribed, forgets everything that can change: a lost message
costs queries, never a wrong answer for longer than the lifetimes of `chain_cache`.
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

from pocket.chain_cache.cached_client import CHANGING, LIFETIMES, CachedChain, Question, encode_question
from pocket.errors import NotFound, PocketError
from pocket.redis_store.lua_scripts import Script
from pocket.redis_store.redis_errors import REDIS_ERRORS
from pocket.redis_store.redis_keys import RedisKeys

_LOG = logging.getLogger("pocket.chain_cache.invalidation")
_INTEREST_SECONDS: Final = 600.0
_MOST: Final = 10_000
_LOOK_SECONDS: Final = 5.0
_MISSES: Final = 3

# KEYS: version   ARGV: channel, JSON without its closing brace.   One number for each message, in their order.
_TELL: Final = Script("""
local version = redis.call('INCR', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2] .. ',"version":' .. version .. '}')
return version
""")


def decode_question(text: str | bytes) -> Question | None:
    """None where it is none of those that can change."""
    try:
        method, _, asked = (text if isinstance(text, str) else text.decode()).partition(" ")
        return (method, base64.b64decode(asked, validate=True)) if method in CHANGING else None
    except (binascii.Error, ValueError):
        return None


async def tell(redis: "Redis", keys: RedisKeys, question: Question | None) -> int:
    """Tells every process to forget an answer, None: all of them; the version. Raises what Redis raises."""
    body = json.dumps({"forget": encode_question(question) if question else ""})
    return int(await _TELL.run(redis, [keys.cache_version], [keys.cache_invalidations, body[:-1]]))


@dataclass(slots=True)
class InvalidationSubscriber:
    """Keeps one process's memory true; `run` must be running."""

    redis: "Redis"
    keys: RedisKeys
    chain: CachedChain
    on_news: Callable[[int], None] = lambda _: None
    chance: Callable[[], float] = random.random
    version: int = -1

    async def run(self) -> None:
        """Follows for ever; Redis being away only means that less is known."""
        while True:
            try:
                async with self.redis.pubsub() as subscription:
                    await subscription.subscribe(self.keys.cache_invalidations)
                    await self._follow(subscription)
            except (*REDIS_ERRORS, ValueError) as error:  # a version that is no number, too
                _LOG.debug("cache news: %s", error)
            await asyncio.sleep(0.5 + self.chance())

    async def _follow(self, subscription: "object") -> None:
        while True:
            message = await subscription.get_message(timeout=_LOOK_SECONDS)  # type: ignore[attr-defined]  # redis' own
            if message is None or message["type"] == "subscribe":
                # Subscribed anew, or silent for long: what was told meanwhile is known by its number.
                await self._look()
            elif message["type"] == "message":
                self._take(message["data"])

    async def _look(self) -> None:
        now = int(await self.redis.get(self.keys.cache_version) or 0)
        if now != self.version:
            self._forget(None, now)

    def _take(self, data: str | bytes) -> None:
        try:
            told = json.loads(data)
            version, text = int(told["version"]), str(told["forget"])
        except (ValueError, KeyError, TypeError):
            _LOG.warning("cache news: a message that cannot be read is left out")
            return
        question = decode_question(text)
        self._forget(question if version == self.version + 1 else None, version)

    def _forget(self, question: Question | None, version: int) -> None:
        self.chain.forget(question)
        self.version = version
        self.on_news(version)


def _meaning(response: type[Message], answer: bytes) -> bytes:
    """Nodes write the entries of maps in any order: such answers are the same."""
    try:
        return response.FromString(answer).SerializeToString(deterministic=True)
    except DecodeError:
        return answer


@dataclass(slots=True)
class CacheRefresher:
    """Asks the chain again; run by the leader, once a block. `counted` hears same, changed, evicted or failed."""

    redis: "Redis"
    keys: RedisKeys
    chain: CachedChain
    wall_clock: Callable[[], float]
    counted: Callable[[str], None] = lambda _: None
    at_once: int = 8
    _misses: dict[Question, int] = field(default_factory=dict)

    async def refresh(self) -> None:
        """One round over the records of the last ten minutes; raises what Redis raises."""
        oldest = self.wall_clock() - _INTEREST_SECONDS
        await self.redis.zremrangebyscore(self.keys.cache_known, "-inf", oldest)
        members: Any = await self.redis.zrange(self.keys.cache_known, 0, _MOST - 1, desc=True)
        questions = [question for member in members if (question := decode_question(member))]
        room = asyncio.Semaphore(self.at_once)

        async def one(question: Question) -> None:
            async with room:
                self.counted(await self._look_at(question))

        async with asyncio.TaskGroup() as group:
            for question in questions:
                group.create_task(one(question))
        known = set(questions)
        self._misses = {question: number for question, number in self._misses.items() if question in known}

    async def _look_at(self, question: Question) -> str:
        key = self.chain.shared_key(question)
        requested, responded = CHANGING[question[0]]
        request: Message = requested.FromString(question[1])
        try:
            answer = await self.chain.ask_nodes(question[0], request)
        except NotFound:
            return await self._missed(question, key)
        except PocketError:
            return "failed"
        self._misses.pop(question, None)
        before: Any = await self.redis.get(key)
        await self.redis.set(key, answer, px=int(LIFETIMES[question[0]] * 1000))
        if before is None or before == answer or _meaning(responded, before) == _meaning(responded, answer):
            return "same"
        await tell(self.redis, self.keys, question)
        return "changed"

    async def _missed(self, question: Question, key: str) -> str:
        """What is gone leaves every cache at once, and the records that are followed after some misses in a row."""
        self._misses[question] = self._misses.get(question, 0) + 1
        if await self.redis.delete(key):
            await tell(self.redis, self.keys, question)
        if self._misses[question] < _MISSES:
            return "failed"
        del self._misses[question]
        await self.redis.zrem(self.keys.cache_known, encode_question(question))
        return "evicted"
