"""The guarded clean-up of a RelayMiner's keys, on a real Redis."""

import asyncio

import pytest

from pocket.redis_store.prefix_owner import claim_prefix
from pocket.redis_store.redis_keys import RedisKeys
from relayctl.k8s.dead_keys import ClusterFacts, delete_prefix, names_of, read_prefix, reasons_to_keep, watched

KEYS = RedisKeys("team-main")
OWNER = "team/main"
GONE = ClusterFacts(relay_miner=False)
pytestmark = pytest.mark.redis


async def filled(redis, keys=KEYS, owner=OWNER):
    await claim_prefix(redis, keys, owner)
    await redis.hset(keys.sessions("pokt1a"), mapping={"s1": b"header", "s2": b"header"})
    for number in range(3):
        await redis.xadd(keys.stream("pokt1a", "s1"), {"v": number})
    await redis.hset(keys.seals("pokt1a"), "s1", "{}")
    await redis.hset(keys.leases, "leader", "{}")
    await redis.set(keys.block, "7")


async def others(redis):
    await redis.set("unrelated", "x")
    await redis.set("team-main-2:owner", "team/main-2")
    await redis.set("team-main:deeper:owner", "a longer prefix")


async def test_what_lies_under_a_prefix_is_counted(redis):
    await filled(redis)
    await others(redis)
    facts = await read_prefix(redis, KEYS)
    assert (facts.owner, facts.open_sessions, facts.relays, facts.total) == (OWNER, 2, 3, 6)
    assert facts.keys == {"owner": 1, "sessions": 1, "relays": 1, "seals": 1, "leases": 1, "block": 1}
    reasons = reasons_to_keep(OWNER, facts, facts, GONE, discard_open=False)
    assert len(reasons) == 1
    assert "2 sessions with 3 relays" in reasons[0]


@pytest.mark.parametrize("change", ["relay", "lease", "block"])
async def test_anything_that_runs_is_noticed(redis, change):
    await filled(redis)

    async def running():
        if change == "relay":
            await redis.xadd(KEYS.stream("pokt1a", "s1"), {"v": "new"})
        elif change == "lease":
            await redis.hset(KEYS.leases, "leader", '{"renewed": 1}')
        else:
            await redis.set(KEYS.block, "8")

    first = await read_prefix(redis, KEYS)
    still, again = await watched(redis, KEYS, 0)
    assert first.activity == still.activity == again.activity
    await running()
    assert (await read_prefix(redis, KEYS)).activity != first.activity


async def test_only_the_keys_of_the_prefix_go(redis):
    await filled(redis)
    await others(redis)
    assert await delete_prefix(redis, KEYS, OWNER) == 6
    assert sorted(await redis.keys("*")) == [b"team-main-2:owner", b"team-main:deeper:owner", b"unrelated"]
    assert await delete_prefix(redis, KEYS, OWNER) == 0


async def test_nothing_is_deleted_once_another_owner_is_recorded(redis):
    await filled(redis)
    await redis.set(KEYS.owner, "team/other")
    assert await delete_prefix(redis, KEYS, OWNER) == 0
    assert (await read_prefix(redis, KEYS)).total == 6


async def test_many_keys_go_in_batches(redis):
    await claim_prefix(redis, KEYS, OWNER)
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(1234):
            pipe.set(KEYS.consumed("pokt1a", f"s{number}"), 1)
        await pipe.execute()
    async with asyncio.timeout(30):
        assert await delete_prefix(redis, KEYS, OWNER) == 1235
    assert [name async for name in names_of(redis, KEYS)] == []
