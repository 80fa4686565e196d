"""Share chain responses through process memory, then Redis, then the chain.

The node's raw answers are cached, so one cache covers all typed queries. Rejections and unknown entities are never
cached. A Redis outage only costs chain queries.
"""

import base64
import contextlib
import hashlib
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from cachetools import FIFOCache
from google.protobuf.message import Message
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from pocket.chain.channels import NodeChannel, channel_of
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress, QueryObserver
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
from pocket.redis_store.redis_errors import redis_deadline
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.runtime.bounded_dict import BoundedDict
from pocket.runtime.single_flight import SingleFlight

_LOG: FilteringBoundLogger = structlog.get_logger()
_WITNESS_MILLISECONDS: Final = 6 * 3600 * 1000
_DECODED_SECONDS: Final = 1.0
_REDIS_SECONDS: Final = 0.25
"""How long a relay may wait for Redis before a node is queried."""
_MOST_BYTES: Final = 32 * 1024 * 1024
T = TypeVar("T")

# Seconds an answer may serve. Answers at a height never change; an application's record decides the ring
# and may be a minute old (docs/protocol/sessions.md, section 6). A supplier's state must be fresher.
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
"""Request and response types of changing records, which the miners' leader refreshes."""

CacheKey = tuple[str, bytes]
"""Method and encoded request."""


def encode_key(cache_key: CacheKey) -> str:
    """Encode a cache key as text for the set of followed records and for messages."""
    method, request_bytes = cache_key
    return f"{method} {base64.b64encode(request_bytes).decode()}"


@dataclass(slots=True)
class CacheCounters:
    """Counts answers by source."""

    memory: int = 0
    redis: int = 0
    chain: int = 0
    divergent: int = 0  # sessions that another process received differently
    _reported: tuple[int, int, int, int] = (0, 0, 0, 0)

    def taken(self) -> list[tuple[str, int]]:
        """Return (source, answers since the last call) pairs."""
        now = (self.memory, self.redis, self.chain, self.divergent)
        before, self._reported = self._reported, now
        names = ("memory", "redis", "chain", "divergent")
        return [(name, new - old) for name, new, old in zip(names, now, before, strict=True)]


class _DirectClient(ChainClient):
    """The typed queries of another client, by its uncached calls."""

    def __init__(self, call: Callable[[str, Message, int], Awaitable[bytes]]) -> None:
        super().__init__(())
        self._call_node = call

    async def _call_raw(self, method: str, request: Message, height: int = 0) -> bytes:
        return await self._call_node(method, request, height)


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
        channel: Callable[[NodeAddress], NodeChannel] = channel_of,
        rng: random.Random | None = None,
        on_query: QueryObserver | None = None,
    ) -> None:
        super().__init__(
            addresses, timeout_seconds, node_health, channel=channel, clock=clock, rng=rng, on_query=on_query
        )
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._wall_clock = wall_clock
        self._entries = entries
        self._most_bytes = most_bytes
        self._memory_bytes = 0
        self._memory: OrderedDict[CacheKey, tuple[float, bytes]] = OrderedDict()
        self._session_fingerprints: FIFOCache[tuple[str, str, int], None] = FIFOCache(entries)
        self._single_flight = SingleFlight()
        self._decoded: BoundedDict[tuple[str | int, ...], tuple[float, int, Any]] = BoundedDict(entries)
        self.counters = CacheCounters()
        self._direct = _DirectClient(super()._call_raw)
        self.generation = 0
        """Grows on each invalidation. Values derived from answers are then recomputed."""

    @property
    def direct(self) -> ChainClient:
        """Return a client without caches.

        It is for records that are not needed again soon. Cached records are refreshed at every block for as long as
        they are used.
        """
        return self._direct

    async def _call_raw(self, method: str, request: Message, height: int = 0) -> bytes:
        lifetime = LIFETIMES.get(method)
        if lifetime is None or height:
            return await super()._call_raw(method, request, height)
        request_bytes = request.SerializeToString(deterministic=True)
        cached = self._memory.get((method, request_bytes))
        if cached is not None and cached[0] > self._clock():
            self.counters.memory += 1
            return cached[1]
        # Concurrent calls share one query: a new session is one query, not hundreds.
        return await self._single_flight.do(
            (method, request_bytes), lambda: self._load(method, request, request_bytes, lifetime, self.generation)
        )

    async def _load(
        self, method: str, request: Message, request_bytes: bytes, lifetime: float, generation: int
    ) -> bytes:
        redis_key = self.shared_key((method, request_bytes))
        answer, is_shared = None, True
        try:
            answer = await self._from_redis(method, request, redis_key)
        except RedisUnavailable:
            is_shared = False  # nor is it waited for again
        if answer is None:
            self.counters.chain += 1
            answer = await super()._call_raw(method, request)
            if is_shared:
                await self._to_redis(redis_key, answer, lifetime)
        if is_shared and method in CHANGING:
            await self._follow((method, request_bytes))
        # An answer that was invalidated during the query is returned but not cached.
        if generation == self.generation or method not in CHANGING:
            self._store((method, request_bytes), self._clock() + lifetime, answer)
        return answer

    def _store(self, cache_key: CacheKey, until: float, answer: bytes) -> None:
        """Store an answer and evict the oldest ones above the limits.

        A session with its suppliers takes kilobytes, and there are hundreds every hour.
        """
        self._drop(cache_key)
        self._memory[cache_key] = (until, answer)
        self._memory_bytes += len(answer)
        while len(self._memory) > self._entries or self._memory_bytes > self._most_bytes:
            self._drop(next(iter(self._memory)))

    def _drop(self, cache_key: CacheKey) -> None:
        _, answer = self._memory.pop(cache_key, (0.0, b""))
        self._memory_bytes -= len(answer)

    def shared_key(self, cache_key: CacheKey) -> str:
        """Return the Redis key of an answer."""
        method, request_bytes = cache_key
        name = hashlib.sha256(method.encode() + b"\0" + request_bytes).hexdigest()
        return self._keys.cache(method.rsplit("/", 1)[-1], name)

    async def fetch_uncached(self, method: str, request: Message) -> bytes:
        """Query the chain without caches."""
        return await super()._call_raw(method, request)

    async def adopt(self, method: str, request: Message, raw: bytes | None) -> None:
        """Replace the cached answer to a query in memory and Redis, or drop it for None."""
        cache_key = (method, request.SerializeToString(deterministic=True))
        known = self._memory.get(cache_key)
        if known is not None and known[1] != raw:
            self.generation += 1
        if raw is not None:
            self._store(cache_key, self._clock() + LIFETIMES[method], raw)
            await self._to_redis(self.shared_key(cache_key), raw, LIFETIMES[method])
            return
        self._drop(cache_key)
        with contextlib.suppress(RedisUnavailable):
            await self._redis.delete(self.shared_key(cache_key))

    async def _follow(self, cache_key: CacheKey) -> None:
        """Mark a record as in use, so that the leader keeps refreshing it."""
        try:
            async with redis_deadline(_REDIS_SECONDS):
                await self._redis.zadd(self._keys.cache_known, {encode_key(cache_key): self._wall_clock()})
        except RedisUnavailable:
            return

    async def _from_redis(self, method: str, request: Message, key: str) -> bytes | None:
        """Return the shared answer, None without a valid one. Raises RedisUnavailable."""
        async with redis_deadline(_REDIS_SECONDS):
            answer = await self._redis.get(key)
        if not isinstance(answer, bytes):
            return None
        try:
            check_answer(method, request, answer)
        except DecodingError:
            return None
        self.counters.redis += 1
        return answer

    async def _to_redis(self, key: str, answer: bytes, lifetime: float) -> None:
        try:
            async with redis_deadline(_REDIS_SECONDS):
                await self._redis.set(key, answer, px=int(lifetime * 1000))
        except RedisUnavailable:
            return

    def _known_value(self, key: tuple[str | int, ...]) -> Any:
        """Return a decoded answer at most one second older than the cached bytes, or None.

        Relays ask for the same answer thousands of times.
        """
        entry = self._decoded.get(key)
        if entry is None or entry[0] <= self._clock() or entry[1] != self.generation:
            return None
        self.counters.memory += 1
        return entry[2]

    async def _decode(self, key: tuple[str | int, ...], load: Callable[[], Awaitable[T]]) -> T:
        generation = self.generation
        value = await load()
        self._decoded[key] = (self._clock() + _DECODED_SECONDS, generation, value)
        return value

    async def shared_params(self, height: int = 0) -> SharedParams:
        """Return the params effective at `height`. Live params (0) are never cached."""
        if height <= 0:
            return await ChainClient.shared_params(self, height)
        known: SharedParams | None = self._known_value(("shared", height))
        if known is not None:
            return known
        return await self._decode(("shared", height), lambda: ChainClient.shared_params(self, height))

    async def num_suppliers_per_session(self) -> int:
        """Return the cached number of suppliers in a session."""
        known: int | None = self._known_value(("session",))
        if known is not None:
            return known
        return await self._decode(("session",), lambda: ChainClient.num_suppliers_per_session(self))

    async def application(self, address: str) -> Application:
        """Return the application's cached record. Raises NotFound."""
        known: Application | None = self._known_value(("application", address))
        if known is not None:
            return known
        return await self._decode(("application", address), lambda: ChainClient.application(self, address))

    async def supplier(self, operator_address: str) -> StakedSupplier:
        """Return the supplier's cached record. Raises NotFound."""
        known: StakedSupplier | None = self._known_value(("supplier", operator_address))
        if known is not None:
            return known
        return await self._decode(("supplier", operator_address), lambda: ChainClient.supplier(self, operator_address))

    async def compute_units_per_relay(self, service_id: str, height: int) -> int:
        """Return the cached compute units per relay effective at `height`."""
        known: int | None = self._known_value(("units", service_id, height))
        if known is not None:
            return known
        return await self._decode(
            ("units", service_id, height), lambda: ChainClient.compute_units_per_relay(self, service_id, height)
        )

    async def session(self, application_address: str, service_id: str, height: int) -> Session:
        """Return the session that holds `height`.

        An error is logged if other processes got another one. Divergent sessions are also counted.
        """
        session = await super().session(application_address, service_id, height)
        header = session.header
        key = (application_address, service_id, header.session_start_block_height)
        if key not in self._session_fingerprints:
            self._session_fingerprints[key] = None
            await self._compare(key, f"{header.session_id} {' '.join(sorted(session.supplier_addresses))}")
        return session

    async def _compare(self, key: tuple[str, str, int], fingerprint: str) -> None:
        """Compare a session with the one that other processes received.

        Application, service and start height identify exactly one session on every node.
        """
        name = self._keys.cache("witness", "/".join(map(str, key)))
        digest = hashlib.sha256(fingerprint.encode()).hexdigest()
        try:
            async with redis_deadline(_REDIS_SECONDS):
                if await self._redis.set(name, digest, nx=True, px=_WITNESS_MILLISECONDS):
                    return
                before = await self._redis.get(name)
        except RedisUnavailable:
            return
        if isinstance(before, bytes) and before != digest.encode():
            self.counters.divergent += 1
            _LOG.error(
                "chain nodes disagree on a session: check that all of spec.chain.nodes follow the same chain",
                application=key[0],
                service=key[1],
                session_start=key[2],
            )

    def forget(self, cache_key: CacheKey | None = None) -> None:
        """Forget one answer in the process's memory, or all changing ones for None."""
        self.generation += 1
        if cache_key is not None:
            self._drop(cache_key)
            return
        for known in [known for known in self._memory if known[0] in CHANGING]:
            self._drop(known)
