"""From where a cached answer comes, who keeps it afterwards, and what old blocks say about the chain's height."""

import asyncio

import pytest
from structlog.testing import capture_logs

from pocket.chain.client import ChainClient
from pocket.chain.model import Block, Session
from pocket.chain_cache.cached_client import LIFETIMES, CachedChain, encode_key
from pocket.chain_cache.invalidation import InvalidationSubscriber
from pocket.chain_cache.shared_heights import LatestBlockWatcher, encode_block
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable

KEYS = RedisKeys("shared")
CHANGING, FIXED = "/pocket.proof.Query/Params", "/pocket.service.Query/ComputeUnitsPerRelayAtHeight"
REQUESTS = {
    CHANGING: proof_pb.QueryParamsRequest(),
    FIXED: service_pb.QueryComputeUnitsPerRelayAtHeightRequest(blockHeight=7),
}
ANSWERS = {
    CHANGING: proof_pb.QueryParamsResponse(params=proof_pb.Params()).SerializeToString(),
    FIXED: service_pb.QueryComputeUnitsPerRelayAtHeightResponse(computeUnitsPerRelay=5).SerializeToString(),
}


class Redis:
    """The commands of the cache on a dict, which may be away."""

    def __init__(self):
        self.values, self.lives, self.followed, self.away = {}, {}, {}, False

    def _reach(self):
        if self.away:
            raise RedisUnavailable("away")

    async def get(self, key):
        self._reach()
        return self.values.get(key)

    async def set(self, key, value, *, px, nx=False):
        self._reach()
        if nx and key in self.values:
            return None
        self.values[key], self.lives[key] = value.encode() if isinstance(value, str) else value, px
        return True

    async def zadd(self, key, rows):
        self._reach()
        assert key == KEYS.cache_known
        self.followed |= rows

    async def delete(self, key):
        self._reach()
        return int(self.values.pop(key, None) is not None)


class World:
    """Caches of several processes that share a Redis, and a node whose queries are counted."""

    def __init__(self, monkeypatch):
        self.redis, self.now, self.queries, self.on_query = Redis(), 100.0, 0, lambda: None
        self.heights = []
        self.answers = dict(ANSWERS)

        async def call(_, method, request, height=0):
            self.queries += 1
            self.heights.append(height)
            self.on_query()
            return self.answers[method]

        monkeypatch.setattr(ChainClient, "_call_raw", call)

    def cache(self, **limits):
        return CachedChain(
            [], self.redis, KEYS, clock=lambda: self.now, wall_clock=lambda: 5000 + self.now, **limits
        )  # fmt: skip


@pytest.fixture
def caches(monkeypatch):
    return World(monkeypatch)


@pytest.mark.parametrize("method", [CHANGING, FIXED])
async def test_an_answer_comes_from_memory_then_redis_then_the_chain(caches, method):
    one, two = caches.cache(), caches.cache()
    key, request = (method, REQUESTS[method].SerializeToString()), REQUESTS[method]

    async def sources(cache):
        assert await cache._call_raw(method, request) == ANSWERS[method]
        return {name: count for name, count in cache.counters.taken() if count}

    assert [await sources(one) for _ in range(2)] == [{"chain": 1}, {"memory": 1}]
    assert caches.redis.lives == {one.shared_key(key): int(1000 * LIFETIMES[method])}
    assert caches.redis.followed == ({encode_key(key): 5100.0} if method == CHANGING else {})
    assert [await sources(two) for _ in range(2)] == [{"redis": 1}, {"memory": 1}]
    caches.now += LIFETIMES[method]
    assert await sources(two) == {"redis": 1}, "memory keeps it for its lifetime"
    caches.redis.values[one.shared_key(key)] = b"\xff"
    caches.now += LIFETIMES[method]
    assert await sources(two) == {"chain": 1}, "an answer that cannot be read is none"
    caches.now += LIFETIMES[method]
    caches.redis.away = True
    caches.redis.followed.clear()
    assert [await sources(two) for _ in range(2)] == [{"chain": 1}, {"memory": 1}]
    assert await two._call_raw(method, request, 3) == ANSWERS[method]
    assert two.counters.taken() == [("memory", 0), ("redis", 0), ("chain", 0), ("divergent", 0)], (
        "of a height: no cache"
    )


async def test_what_is_not_needed_again_and_the_live_params_are_asked_of_a_node_each_time(caches, monkeypatch):
    cache = caches.cache()
    for _ in range(2):
        assert await cache.direct._call_raw(CHANGING, REQUESTS[CHANGING]) == ANSWERS[CHANGING]
    assert (caches.heights, dict(cache._memory), caches.redis.values) == ([0, 0], {}, {})
    asked = []

    async def shared_params(_, height):
        asked.append(height)
        return len(asked)

    monkeypatch.setattr(ChainClient, "shared_params", shared_params)
    assert [await cache.shared_params(height) for height in (0, 0, 1, 1, 0)] == [1, 2, 3, 3, 4]
    assert asked == [0, 0, 1, 0]


@pytest.mark.parametrize(("method", "kept"), [(CHANGING, False), (FIXED, True)])
async def test_an_answer_that_was_invalidated_during_its_query_is_not_kept_if_it_can_change(caches, method, kept):
    cache = caches.cache()
    caches.on_query = cache.forget
    assert await cache._call_raw(method, REQUESTS[method]) == ANSWERS[method]
    assert bool(cache._memory) is kept


async def test_an_adopted_answer_replaces_the_cached_one_everywhere_or_drops_it(caches):
    cache, request = caches.cache(), REQUESTS[CHANGING]
    key = (CHANGING, request.SerializeToString())
    await cache.adopt(CHANGING, request, ANSWERS[CHANGING])
    await cache.adopt(CHANGING, request, ANSWERS[CHANGING])
    assert cache.generation == 0, "nothing was derived from another one"
    other = proof_pb.QueryParamsResponse(params=proof_pb.Params(proof_request_probability=0.5)).SerializeToString()
    await cache.adopt(CHANGING, request, other)
    assert (cache.generation, await cache._call_raw(CHANGING, request), caches.queries) == (1, other, 0)
    assert caches.redis.values == {cache.shared_key(key): other}
    await cache.adopt(CHANGING, request, None)
    assert (cache.generation, dict(cache._memory), caches.redis.values) == (2, {}, {})


@pytest.mark.parametrize(("most_bytes", "entries", "kept"), [(30, 9, 3), (29, 9, 2), (99, 2, 2), (9, 9, 0)])
def test_the_oldest_answers_go_once_there_are_too_many_or_too_large_ones(caches, most_bytes, entries, kept):
    cache = caches.cache(most_bytes=most_bytes, entries=entries)
    for number in range(6):
        cache._store((FIXED, bytes([number])), 200.0, bytes(10))
        cache._store((FIXED, bytes([number])), 200.0, bytes(10))
    assert list(cache._memory) == [(FIXED, bytes([number])) for number in range(6 - kept, 6)]
    cache.forget()
    assert len(cache._memory) == kept, "what is of a height never changes"


async def test_a_session_that_another_process_received_differently_is_counted_once_and_logged(caches, monkeypatch):
    one, two, three = caches.cache(), caches.cache(), caches.cache()
    suppliers = {one: ("a", "b"), two: ("b", "a"), three: ("a", "c")}

    async def session(cache, application, service, height):
        return Session(SessionHeader(application, service, "id", 1, 10), 1, 10, 5, frozenset(suppliers[cache]))

    monkeypatch.setattr(ChainClient, "session", session)
    with capture_logs() as logs:
        for cache in (one, two, three, three):
            await cache.session("app", "eth", 4)
    assert [cache.counters.divergent for cache in (one, two, three)] == [0, 0, 1]
    assert [(row["application"], row["service"], row["session_start"]) for row in logs] == [("app", "eth", 1)]
    assert list(caches.redis.lives.values()) == [6 * 3600 * 1000]


@pytest.mark.parametrize("follows", [True, False])
async def test_a_subscriber_follows_invalidations_and_blocks_if_it_wants_them(follows):
    subscribed = []

    class Subscription:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            return

        async def subscribe(self, *channels):
            subscribed.extend(channels)
            raise asyncio.CancelledError

    class Listening:
        def pubsub(self):
            return Subscription()

    on_block = (lambda _: None) if follows else None
    with pytest.raises(asyncio.CancelledError):
        await InvalidationSubscriber(Listening(), KEYS, None, on_block=on_block).run()
    assert subscribed == [KEYS.cache_invalidations, *([KEYS.blocks] if follows else [])]


async def test_only_a_node_shows_how_old_the_first_block_is():
    """It may have lain in Redis for any time, so it says nothing about the heights after it."""
    now, asked = [1000.0], []

    async def node():
        asked.append(now[0])
        return Block(10, bytes(32), Timestamp.of_nanoseconds(10**18))

    watcher = LatestBlockWatcher(None, KEYS, node, 2.0, lambda: now[0])
    watcher.receive(encode_block(Block(10, bytes(32), Timestamp.of_nanoseconds(10**18))))
    assert not watcher.is_certainly_below(12)
    assert await watcher.is_below(12)
    assert asked == [1000.0]
    assert [watcher.is_certainly_below(height) for height in (10, 11, 12)] == [False, False, True], "one may just come"
    now[0] += 1.0
    assert [watcher.is_certainly_below(height) for height in (12, 13)] == [False, True], "twice as fast as usual"
