"""Single keys that Redis lost or that were damaged: they cost no relay, and no session but their own."""

import asyncio
import contextlib

import pytest

from pocket.api.redis import Durability, RedisAccess
from pocket.redis_store.budgets import Budgets, Charge, ChargeResult
from pocket.redis_store.connection import connect
from pocket.redis_store.store_errors import CommandRejected, RedisTrouble, RedisUnavailable
from pocket.redis_store.stream_reader import StreamReader
from recording import KEYS, entries, full, origin, publishing, record
from servers import clients, running_redis

pytestmark = pytest.mark.redis


async def mark_as_read(redis, supplier="pokt1s", session="one"):
    """Publish that a volume holds all that is in a stream now."""
    tail = StreamReader(redis, KEYS, supplier)
    last = (await tail.read({session: "0-0"}))[session][-1].id
    await tail.publish_replicated({session: f"{await origin(redis, tail)}/{last}"})


async def beat(publisher, times=2):
    for _ in range(times):
        with contextlib.suppress(RedisUnavailable):
            await publisher.maintain_once()


async def test_a_stream_that_was_lost_alone_is_appended_again_and_its_log_stays(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await publisher.record(record(1))
        await redis.delete(KEYS.stream("pokt1s", "one"))
        await publisher.record(record(2))
        publisher._log.rotate()
        await mark_as_read(redis)
        await beat(publisher)
        assert set(await entries(redis)) == {b"relay 1", b"relay 2"}
        assert publisher._log.segments, "what was appended again is not on the volume yet"


@pytest.mark.parametrize("lost", ["stream", "sessions"])
async def test_a_key_that_was_lost_alone_is_noticed_without_another_relay(redis, tmp_path, lost):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await asyncio.gather(*(publisher.record(record(number, f"s{number}")) for number in range(3)))
        await redis.delete(KEYS.sessions("pokt1s") if lost == "sessions" else KEYS.stream("pokt1s", "s1"))
        await beat(publisher, 4)  # few sessions are looked for every two seconds
        assert set(await StreamReader(redis, KEYS, "pokt1s").sessions()) == {"s0", "s1", "s2"}
        assert set(await entries(redis, "s1")) == {b"relay 1"}
        before = publisher.counters.replayed
        await beat(publisher, 33)
        assert publisher.counters.replayed == before, "a loss is repaired once"


@pytest.mark.parametrize("how", ["XTRIM", "XDEL"])
async def test_entries_that_were_deleted_before_they_were_read_are_appended_again(redis, tmp_path, how):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await publisher.record(record(1))
        await publisher.record(record(2))
        name = KEYS.stream("pokt1s", "one")
        if how == "XTRIM":
            await redis.xtrim(name, maxlen=1, approximate=False)
        else:
            await redis.xdel(name, (await redis.xrange(name))[0][0])
        publisher._log.rotate()
        await mark_as_read(redis)
        await beat(publisher)
        assert set(await entries(redis)) == {b"relay 1", b"relay 2"}
        assert publisher._log.segments, "what was appended again is not on the volume yet"
        await mark_as_read(redis)
        before = publisher.counters.replayed
        await beat(publisher, 33)
        assert (publisher.counters.replayed, publisher._log.segments) == (before, []), "a loss is repaired once"


async def test_the_hash_of_sessions_is_whole_again_after_a_relay_of_another_one(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await publisher.record(record(1, "quiet"))
        await redis.delete(KEYS.sessions("pokt1s"))
        await publisher.record(record(2, "busy"))
        await publisher.record(record(3, "quiet2"))
        await beat(publisher, 33)
        assert set(await StreamReader(redis, KEYS, "pokt1s").sessions()) == {"quiet", "busy", "quiet2"}


async def test_a_session_that_takes_no_relay_any_more_is_no_loss(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await publisher.record(record(1))
        replays = []
        publisher._on_replay = replays.append
        await redis.hset(KEYS.closed("pokt1s"), "one", "sealing/10")
        await redis.delete(KEYS.stream("pokt1s", "one"), KEYS.sessions("pokt1s"))
        await beat(publisher, 33)
        assert replays == []


DAMAGE = {
    "stream": lambda redis: redis.set(KEYS.stream("pokt1a", "one"), "x"),
    "replicated": lambda redis: redis.set(KEYS.replicated("pokt1a"), "x"),
    "closed": lambda redis: redis.set(KEYS.closed("pokt1a"), "x"),
    "sessions": lambda redis: redis.set(KEYS.sessions("pokt1a"), "x"),
    "incarnation": lambda redis: redis.lpush(KEYS.incarnation("pokt1a"), "x"),
    "incarnation that is no text": lambda redis: redis.set(KEYS.incarnation("pokt1a"), b"\xff\xfe"),
    "offset that is none": lambda redis: redis.hset(KEYS.replicated("pokt1a"), "one", b"\xff/x"),
}


@pytest.mark.parametrize("damaged", DAMAGE)
async def test_a_damaged_row_of_one_supplier_hinders_no_heartbeat_for_others(redis, tmp_path, damaged):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await publisher.record(record(1, supplier="pokt1a"))
        publisher._log.rotate()
        await publisher.record(record(2, supplier="pokt1b"))
        publisher._log.rotate()
        await redis.flushall()
        await DAMAGE[damaged](redis)
        await beat(publisher, 33)
        assert await entries(redis, supplier="pokt1b") == [b"relay 2"]
        await mark_as_read(redis, "pokt1b")
        await beat(publisher, 33)
        assert [sorted(segment.suppliers) for segment in publisher._log.segments] == [["pokt1a"]]
        await redis.flushall()
        await beat(publisher, 33)
        assert await entries(redis, supplier="pokt1a") == [b"relay 1"], "once the row is gone"


async def test_a_stream_that_redis_refuses_costs_no_other_session_a_relay(redis, tmp_path):
    await redis.set(KEYS.stream("pokt1s", "bad"), "x")
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        queued = [publisher.submit(record(number, name)) for number, name in enumerate(["a", "bad", "b"])]
        found = await asyncio.gather(*queued, return_exceptions=True)
        assert [type(result) for result in found] == [type(None), CommandRejected, type(None)]
        assert (await entries(redis, "a"), await entries(redis, "b")) == ([b"relay 0"], [b"relay 2"])
        assert publisher.suppliers_with_unacknowledged == {"pokt1s"}
        await redis.delete(KEYS.stream("pokt1s", "bad"))
        await beat(publisher)
        assert set(await entries(redis, "bad")) == {b"relay 1"}
        assert publisher.suppliers_with_unacknowledged == set()


@pytest.mark.parametrize("key", ["meter", "meter of another type", "replays"])
async def test_a_damaged_budget_of_a_session_fails_no_charge_of_another(redis, key):
    if key == "meter":
        await redis.set(KEYS.consumed("pokt1s", "bad"), "x")
    else:
        name = KEYS.consumed("pokt1s", "bad") if key.startswith("meter") else KEYS.replays("pokt1s", "bad", 0)
        await redis.lpush(name, "x")
    budgets = Budgets(redis, KEYS)
    running = asyncio.create_task(budgets.run())
    charges = [Charge("pokt1s", session, 4, 10, 600, bytes(16)) for session in ("a", "bad", "b")]
    found = await asyncio.gather(*map(budgets.charge, charges), return_exceptions=True)
    assert found[0] is found[2] is ChargeResult.CHARGED
    assert (type(found[1]), found[1].trouble) == (RedisUnavailable, RedisTrouble.REJECTED)
    assert await redis.get(KEYS.consumed("pokt1s", "b")) == b"4"
    async with full(redis):
        with pytest.raises(RedisUnavailable) as refused:
            await budgets.charge(Charge("pokt1s", "a", 4, 10, 600))
    assert refused.value.trouble is RedisTrouble.OUT_OF_MEMORY
    running.cancel()


async def test_a_log_is_released_by_the_marks_of_a_process_that_lost_another_number_of_connections(tmp_path):
    with running_redis() as server:
        async with clients(server.url) as (administrator,):
            await administrator.execute_command("ACL SETUSER relays on >x ~* &* +@all -info")
            url, managed = server.url.replace("//", "//relays:x@"), RedisAccess(durability=Durability.MANAGED)
            relayer, miner = connect(url, access=managed), connect(url, access=managed)
            async with publishing(relayer, tmp_path) as publisher:
                await publisher.maintain_once()
                await publisher.record(record(1))
                await administrator.execute_command("CLIENT KILL TYPE normal SKIPME yes")
                await beat(publisher, 3)
                publisher._log.rotate()
                await mark_as_read(miner)
                await beat(publisher)
                assert not publisher._log.segments
            await relayer.aclose()
            await miner.aclose()
