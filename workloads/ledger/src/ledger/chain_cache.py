"""The shared chain view: process memory, then Redis, then the chain (design.md, section 6).

What is cached are the node's raw answers, so every typed query is covered once. Refusals and unknown
entities are never cached. Redis being away only costs chain queries.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ledger.keys import Keys
from shannon.chain.client import ChainClient
from shannon.chain.nodes import NodeAddress

# Seconds an answer may serve. Answers at a height never change; an application's record decides the ring
# and may be a minute old (sessions.md, section 6); a supplier's state soon matters.
LIFETIMES: Final[Mapping[str, float]] = {
    "/pocket.shared.Query/ParamsAtHeight": 1800.0,
    "/pocket.session.Query/GetSession": 1800.0,
    "/pocket.session.Query/Params": 60.0,
    "/pocket.service.Query/ComputeUnitsPerRelayAtHeight": 1800.0,
    "/pocket.service.Query/RelayMiningDifficultyAtHeight": 1800.0,
    "/pocket.application.Query/Application": 30.0,
    "/pocket.supplier.Query/Supplier": 15.0,
    "/pocket.proof.Query/Params": 60.0,
    "/cosmos.auth.v1beta1.Query/Account": 60.0,
}


@dataclass(slots=True)
class CacheCounters:
    """Where answers came from."""

    memory: int = 0
    redis: int = 0
    chain: int = 0
    _told: tuple[int, int, int] = (0, 0, 0)

    def taken(self) -> list[tuple[str, int]]:
        """(source, answers since the last call), for counters."""
        now = (self.memory, self.redis, self.chain)
        before, self._told = self._told, now
        return [(name, new - old) for name, new, old in zip(("memory", "redis", "chain"), now, before, strict=True)]


class CachedChain(ChainClient):
    """A chain client whose cacheable answers are shared."""

    def __init__(
        self,
        addresses: Sequence[NodeAddress],
        redis: "Redis",
        keys: Keys,
        *,
        timeout_seconds: float = 5.0,
        entries: int = 20_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(addresses, timeout_seconds)
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._entries = entries
        self._memory: OrderedDict[tuple[str, bytes], tuple[float, bytes]] = OrderedDict()
        self._asking: dict[tuple[str, bytes], asyncio.Future[bytes]] = {}
        self.counters = CacheCounters()

    async def _call_raw(self, method: str, request: Message, height: int = 0) -> bytes:
        lifetime = LIFETIMES.get(method)
        if lifetime is None or height:
            return await super()._call_raw(method, request, height)
        question = request.SerializeToString(deterministic=True)
        found = self._memory.get((method, question))
        if found is not None and found[0] > self._clock():
            self.counters.memory += 1
            return found[1]
        # Whoever asks the same while it is being asked waits for that answer: a new session is one query, not hundreds.
        asking = self._asking.get((method, question))
        if asking is None:
            asking = asyncio.ensure_future(self._ask(method, request, question, lifetime))
            self._asking[method, question] = asking
            asking.add_done_callback(lambda done: self._asked((method, question), done))
        return await asyncio.shield(asking)

    def _asked(self, key: tuple[str, bytes], done: "asyncio.Future[bytes]") -> None:
        self._asking.pop(key, None)
        if not done.cancelled():
            done.exception()  # read, though nobody may wait any more

    async def _ask(self, method: str, request: Message, question: bytes, lifetime: float) -> bytes:
        name = hashlib.sha256(method.encode() + b"\0" + question).hexdigest()
        key = self._keys.cache(method.rsplit("/", 1)[-1], name)
        answer = await self._from_redis(key)
        if answer is None:
            self.counters.chain += 1
            answer = await super()._call_raw(method, request)
            await self._to_redis(key, answer, lifetime)
        self._memory[method, question] = (self._clock() + lifetime, answer)
        while len(self._memory) > self._entries:
            self._memory.popitem(last=False)
        return answer

    async def _from_redis(self, key: str) -> bytes | None:
        try:
            answer = await self._redis.get(key)
        except (RedisError, OSError, TimeoutError):
            return None
        if not isinstance(answer, bytes):
            return None
        self.counters.redis += 1
        return answer

    async def _to_redis(self, key: str, answer: bytes, lifetime: float) -> None:
        try:
            await self._redis.set(key, answer, px=int(lifetime * 1000))
        except (RedisError, OSError, TimeoutError):
            return

    def forget(self) -> None:
        """Empties the process's memory, for a changed record."""
        self._memory.clear()
