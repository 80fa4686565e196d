"""The shared chain view: process memory, then Redis, then the chain (design.md, section 6).

What is cached are the node's raw answers, so every typed query is covered once. Refusals and unknown
entities are never cached. Redis being away only costs chain queries.
"""

import base64
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc.aio
from google.protobuf.message import Message
from redis.asyncio import Redis

from pocket.chain.client import ChainClient, channel_of
from pocket.chain.failover import NodeAddress
from pocket.chain.model import Application, Session, StakedSupplier
from pocket.chain.node_health import NodeHealthTable
from pocket.chain.response_checks import check_answer
from pocket.errors import DecodingError
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.redis_errors import REDIS_ERRORS
from pocket.redis_store.redis_keys import RedisKeys
from pocket.runtime.single_flight import SingleFlight

_LOG = logging.getLogger("pocket.chain_cache.cached_client")
_WITNESS_MILLISECONDS: Final = 6 * 3600 * 1000
_DECODED_SECONDS: Final = 1.0
_MOST_BYTES: Final = 32 * 1024 * 1024
T = TypeVar("T")

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
    "/pocket.tokenomics.Query/Params": 60.0,
    "/cosmos.auth.v1beta1.Query/Account": 60.0,
}

CHANGING: Final[Mapping[str, tuple[type[Message], type[Message]]]] = {
    "/pocket.session.Query/Params": (session_pb.QueryParamsRequest, session_pb.QueryParamsResponse),
    "/pocket.application.Query/Application": (
        application_pb.QueryGetApplicationRequest,
        application_pb.QueryGetApplicationResponse,
    ),
    "/pocket.supplier.Query/Supplier": (supplier_pb.QueryGetSupplierRequest, supplier_pb.QueryGetSupplierResponse),
    "/pocket.proof.Query/Params": (proof_pb.QueryParamsRequest, proof_pb.QueryParamsResponse),
    "/pocket.tokenomics.Query/Params": (tokenomics_pb.QueryParamsRequest, tokenomics_pb.QueryParamsResponse),
    "/cosmos.auth.v1beta1.Query/Account": (auth_pb.QueryAccountRequest, auth_pb.QueryAccountResponse),
}
"""Answers of the present, request and response; the miners' leader checks whether they changed."""

Question = tuple[str, bytes]
"""Method and encoded request."""


def encode_question(question: Question) -> str:
    """One member of the set of followed records, and what messages name."""
    method, asked = question
    return f"{method} {base64.b64encode(asked).decode()}"


@dataclass(slots=True)
class CacheCounters:
    """Where answers came from."""

    memory: int = 0
    redis: int = 0
    chain: int = 0
    divergent: int = 0  # sessions that another process was told differently
    _told: tuple[int, int, int, int] = (0, 0, 0, 0)

    def taken(self) -> list[tuple[str, int]]:
        """(source, answers since the last call), for counters."""
        now = (self.memory, self.redis, self.chain, self.divergent)
        before, self._told = self._told, now
        names = ("memory", "redis", "chain", "divergent")
        return [(name, new - old) for name, new, old in zip(names, now, before, strict=True)]


class CachedChain(ChainClient):
    """A chain client whose cacheable answers are shared."""

    def __init__(
        self,
        addresses: Sequence[NodeAddress],
        redis: "Redis",
        keys: RedisKeys,
        *,
        timeout_seconds: float = 5.0,
        node_health: NodeHealthTable | None = None,
        entries: int = 20_000,
        most_bytes: int = _MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        channel: Callable[[NodeAddress], grpc.aio.Channel] = channel_of,
    ) -> None:
        super().__init__(addresses, timeout_seconds, node_health, channel=channel, clock=clock)
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._wall_clock = wall_clock
        self._entries = entries
        self._most_bytes = most_bytes
        self._memory_bytes = 0
        self._memory: OrderedDict[Question, tuple[float, bytes]] = OrderedDict()
        self._witnessed: OrderedDict[tuple[str, str, int], None] = OrderedDict()
        self._asking = SingleFlight()
        self._decoded: OrderedDict[tuple[str | int, ...], tuple[float, int, Any]] = OrderedDict()
        self.counters = CacheCounters()
        self.generation = 0
        """Grows whenever something is forgotten: what was derived from answers is to be made anew."""

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
        return await self._asking.do(
            (method, question), lambda: self._ask(method, request, question, lifetime, self.generation)
        )

    async def _ask(self, method: str, request: Message, question: bytes, lifetime: float, generation: int) -> bytes:
        key = self.shared_key((method, question))
        answer = await self._from_redis(method, key)
        if answer is None:
            self.counters.chain += 1
            answer = await super()._call_raw(method, request)
            await self._to_redis(key, answer, lifetime)
        if method in CHANGING:
            await self._follow((method, question))
        # What was to be forgotten while it was asked is answered, and not kept.
        if generation == self.generation or method not in CHANGING:
            self._keep((method, question), self._clock() + lifetime, answer)
        return answer

    def _keep(self, question: Question, until: float, answer: bytes) -> None:
        """The oldest answers leave: a session with its suppliers is kilobytes, and there are hundreds every hour."""
        self._drop(question)
        self._memory[question] = (until, answer)
        self._memory_bytes += len(answer)
        while len(self._memory) > self._entries or self._memory_bytes > self._most_bytes:
            self._drop(next(iter(self._memory)))

    def _drop(self, question: Question) -> None:
        _, answer = self._memory.pop(question, (0.0, b""))
        self._memory_bytes -= len(answer)

    def shared_key(self, question: Question) -> str:
        """Where Redis holds an answer."""
        method, asked = question
        name = hashlib.sha256(method.encode() + b"\0" + asked).hexdigest()
        return self._keys.cache(method.rsplit("/", 1)[-1], name)

    async def ask_nodes(self, method: str, request: Message) -> bytes:
        """An answer past all caches."""
        return await super()._call_raw(method, request)

    async def _follow(self, question: Question) -> None:
        """Says that this record matters: it is looked at again while somebody asks for it."""
        try:
            await self._redis.zadd(self._keys.cache_known, {encode_question(question): self._wall_clock()})
        except REDIS_ERRORS:
            return

    async def _from_redis(self, method: str, key: str) -> bytes | None:
        try:
            answer = await self._redis.get(key)
        except REDIS_ERRORS:
            return None
        if not isinstance(answer, bytes):
            return None
        try:
            check_answer(method, answer)
        except DecodingError:
            return None
        self.counters.redis += 1
        return answer

    async def _to_redis(self, key: str, answer: bytes, lifetime: float) -> None:
        try:
            await self._redis.set(key, answer, px=int(lifetime * 1000))
        except REDIS_ERRORS:
            return

    async def _lately(self, key: tuple[str | int, ...], load: Callable[[], Awaitable[T]]) -> T:
        """A decoded answer that is at most a second older than the cached one: relays ask for the same thousands."""
        found = self._decoded.get(key)
        if found is not None and found[0] > self._clock() and found[1] == self.generation:
            self.counters.memory += 1
            value: T = found[2]
            return value
        generation = self.generation
        value = await load()
        self._decoded[key] = (self._clock() + _DECODED_SECONDS, generation, value)
        while len(self._decoded) > self._entries:
            self._decoded.popitem(last=False)
        return value

    async def shared_params(self, height: int = 0) -> SharedParams:
        """As ChainClient does it; of the present they are never cached."""
        if height <= 0:
            return await ChainClient.shared_params(self, height)
        return await self._lately(("shared", height), lambda: ChainClient.shared_params(self, height))

    async def num_suppliers_per_session(self) -> int:
        """As ChainClient does it."""
        return await self._lately(("session",), lambda: ChainClient.num_suppliers_per_session(self))

    async def application(self, address: str) -> Application:
        """As ChainClient does it."""
        return await self._lately(("application", address), lambda: ChainClient.application(self, address))

    async def supplier(self, operator_address: str) -> StakedSupplier:
        """As ChainClient does it."""
        return await self._lately(("supplier", operator_address), lambda: ChainClient.supplier(self, operator_address))

    async def compute_units_per_relay(self, service_id: str, height: int) -> int:
        """As ChainClient does it."""
        return await self._lately(
            ("units", service_id, height), lambda: ChainClient.compute_units_per_relay(self, service_id, height)
        )

    async def session(self, application_address: str, service_id: str, height: int) -> Session:
        """As `ChainClient.session`; sessions that other processes know differently are counted and said."""
        found = await super().session(application_address, service_id, height)
        header = found.header
        key = (application_address, service_id, header.session_start_block_height)
        if key not in self._witnessed:
            self._witnessed[key] = None
            while len(self._witnessed) > self._entries:
                self._witnessed.popitem(last=False)
            await self._compare(key, f"{header.session_id} {' '.join(sorted(found.supplier_addresses))}")
        return found

    async def _compare(self, key: tuple[str, str, int], told: str) -> None:
        """The same application, service and start are one session, whoever asks whichever node."""
        name = self._keys.cache("witness", "/".join(map(str, key)))
        digest = hashlib.sha256(told.encode()).hexdigest()
        try:
            if await self._redis.set(name, digest, nx=True, px=_WITNESS_MILLISECONDS):
                return
            before = await self._redis.get(name)
        except REDIS_ERRORS:
            return
        if isinstance(before, bytes) and before.decode() != digest:
            self.counters.divergent += 1
            _LOG.error(
                "a chain node tells another session than the one other processes were told: do all nodes follow the "
                "same chain?",
                extra={"fields": {"application": key[0], "service": key[1], "session_start": key[2]}},
            )

    def forget(self, question: Question | None = None) -> None:
        """Forgets one answer of the process's memory, None: all that can change."""
        self.generation += 1
        if question is not None:
            self._drop(question)
            return
        for known in [known for known in self._memory if known[0] in CHANGING]:
            self._drop(known)
