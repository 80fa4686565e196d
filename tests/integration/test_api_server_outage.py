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


async def test_a_former_owner_seals_nothing_after_a_failover_that_lost_the_fence_of_the_present_one(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(8)
    former, present = alice.miner, alice.owner(2)
    former.confirm = away
    await present.start()
    await alice.redis.set(KEYS.fence(alice.supplier), 1)  # as an asynchronous failover leaves it
    former.on_redis_restarted()
    await alice.to(13)  # the former one is faster than the present one
    assert former.sessions[header.session_id].seal is None
    present.on_redis_restarted()
    await present.tail()
    await alice.to(15)  # the last block in which a claim can be sent
    assert former.sessions[header.session_id].seal is None


async def test_a_doubted_fence_counts_only_once_it_is_urgent_or_the_lease_was_read(redis):
    store = SealStore(redis, KEYS, "supplier", 5)
    await store.fence(fine)
    store.doubt_fence()
    with pytest.raises(RedisUnavailable):
        await store.fence(away)
    await store.fence(away, urgent=True)
    await store.fence(fine)
    await store.fence(away)


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
