"""One prefix of Redis keys belongs to one RelayMiner."""

import asyncio

import pytest

from pocket.redis_store.connection import await_durable_redis, connect
from pocket.redis_store.prefix_owner import PrefixInUse, claim_prefix
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable

KEYS = RedisKeys("team-eu-main")


@pytest.mark.redis
async def test_the_first_owner_keeps_a_prefix_and_another_one_does_not_start(redis, redis_process):
    stop = asyncio.Event()
    for owner in ("team/eu-main", "team/eu-main"):
        await await_durable_redis(redis, redis_process.url, stop, claim=lambda o=owner: claim_prefix(redis, KEYS, o))
    assert await redis.ttl(KEYS.owner) == -1, "silence does not end ownership"
    with pytest.raises(PrefixInUse, match=r"belongs to RelayMiner team/eu-main.*redis-cli DEL team-eu-main:owner"):
        await await_durable_redis(
            redis, redis_process.url, stop, claim=lambda: claim_prefix(redis, KEYS, "team-eu/main")
        )  # fmt: skip
    await claim_prefix(redis, RedisKeys("another"), "team-eu/main")
    await redis.delete(KEYS.owner)
    await claim_prefix(redis, KEYS, "team-eu/main")


@pytest.mark.redis
async def test_of_two_that_start_at_once_the_first_owns_the_prefix(redis):
    class Behind:
        """Reads that nobody owns the prefix just before another one does."""

        seen = False

        async def get(self, key):
            if self.seen:
                return await redis.get(key)
            self.seen = True
            await claim_prefix(redis, KEYS, "team/first")
            return None

        async def set(self, *arguments, **options):
            return await redis.set(*arguments, **options)

    with pytest.raises(PrefixInUse, match="belongs to RelayMiner team/first"):
        await claim_prefix(Behind(), KEYS, "team/second")
    await claim_prefix(redis, KEYS, "team/first")


async def test_a_redis_that_is_away_is_no_owner():
    lost = connect("redis://127.0.0.1:1/0")
    with pytest.raises(RedisUnavailable):
        await claim_prefix(lost, KEYS, "team/eu-main")
    await lost.aclose()
