"""A Redis at its `maxmemory`: owners go on, start again and free its memory, while it takes no relay."""

from datetime import UTC, datetime

import pytest

from pocket.coordination.elector import LeaseRecord
from pocket.redis_store.prefix_owner import claim_prefix
from pocket.redis_store.redis_leases import RedisLeaseStore
from pocket.redis_store.seals import SealStore, SessionSeal, SignedGroup
from pocket.redis_store.store_errors import RedisTrouble, RedisUnavailable
from pocket.redis_store.stream_reader import StreamReader
from recording import KEYS, confirmed, full, owned, publishing, record

pytestmark = pytest.mark.redis


async def test_an_owner_ends_its_sessions_in_a_full_redis_which_frees_its_memory(redis, tmp_path):
    store = await owned(redis, "pokt1s")
    async with publishing(redis, tmp_path) as recorder:
        await recorder.record(record(1))
        (entry,) = (await StreamReader(redis, KEYS, "pokt1s").read({"one": "0-0"}))["one"]
        async with full(redis):
            assert await store.advance_cutoff(10, 13) == (0, 10)
            assert await store.close({"one": 10}) == {"one": entry.id}
            seal = SessionSeal("one", b"r" * 48, b"d" * 32, 5, 1)
            await store.seal([seal], {"one": entry.id}, "10/claim/one", SignedGroup(b"x", 1, 1))
            assert await store.load() == {"one": seal}
            with pytest.raises(RedisUnavailable) as refused:
                await recorder.record(record(2, session="two"))
            assert refused.value.trouble is RedisTrouble.OUT_OF_MEMORY
            await store.finish("one", 10)
            assert not await redis.exists(KEYS.stream("pokt1s", "one"))


async def test_an_owner_starts_while_redis_is_full(redis):
    await claim_prefix(redis, KEYS, "shop/main")
    leases, then = RedisLeaseStore(redis, KEYS.leases, call_seconds=2.0), datetime(2026, 1, 1, tzinfo=UTC)
    async with full(redis):
        await claim_prefix(redis, KEYS, "shop/main")
        taken = await leases.write("miners-shard-0", LeaseRecord("m", 15, then, then, 1), None)
        assert (await leases.read())["miners-shard-0"] == taken
        store = SealStore(redis, KEYS, "pokt1s", 2)
        await store.fence(confirmed)
        await store.close({"one": 10})


@pytest.mark.parametrize("name", ["fence", "cutoff"])
async def test_a_fence_or_cutoff_that_is_no_number_counts_as_lost(redis, tmp_path, name):
    store = await owned(redis, "pokt1s")
    await redis.set(getattr(KEYS, name)("pokt1s"), "garbage")
    async with publishing(redis, tmp_path) as recorder:
        await recorder.record(record(1, end=10))
    await store.check_fence()
    await store.fence(confirmed)
    assert await store.advance_cutoff(10, 13) == (0, 10)
