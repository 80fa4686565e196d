"""While the API server is away, an owner goes on as long as Redis shows that nothing was lost."""

import contextlib

import pytest

from mine import ended
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import RedisUnavailable, StaleEpoch

pytestmark = pytest.mark.redis
KEYS = RedisKeys("test")


async def away():
    raise RedisUnavailable("the Lease of shard 0 cannot be read: the API server does not answer")


async def fine():
    return


async def test_sessions_are_read_sealed_and_paid_after_a_failover_of_redis_without_the_api_server(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(8)
    alice.miner.confirm = away
    alice.miner.on_redis_restarted()
    await alice.record(alice.relays(header, 2))
    await alice.to(26)
    assert ended(alice, header) == "settled"
    assert alice.outcomes()[header.session_id]["details"]["relays"] == 5


@pytest.mark.parametrize("lost", ["fence", "life", "older owner", "newer owner", "never fenced"])
async def test_without_the_lease_nothing_but_the_own_fence_in_the_same_life_of_redis_counts(redis, lost):
    store = SealStore(redis, KEYS, "supplier", 5)
    if lost != "never fenced":
        await store.fence(fine)
        await store.fence(away)
    match lost:
        case "fence":
            await redis.delete(KEYS.fence("supplier"))
        case "life":
            await redis.delete(KEYS.incarnation("supplier"))
        case "older owner":
            await redis.set(KEYS.fence("supplier"), 4)
        case "newer owner":
            await redis.set(KEYS.fence("supplier"), 6)
    with pytest.raises(RedisUnavailable):
        await store.fence(away)
    with contextlib.suppress(StaleEpoch):
        await store.fence(fine)
        await store.fence(away)
