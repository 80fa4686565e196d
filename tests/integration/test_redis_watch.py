"""The miner detects restarts, clock and memory of Redis, and the age of relays when mirrored."""

import contextlib

import pytest
from prometheus_client import REGISTRY
from redis.exceptions import RedisError

from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.server_info import PrimaryStates, RedisInfo
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.redis_store.stream_reader import StreamReader
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.ownership.redis_watch import RedisWatch
from servers import clients, running_redis, until

pytestmark = pytest.mark.redis


async def test_its_clock_is_known_after_the_first_look_and_its_memory_is_shown(redis):
    watch = RedisWatch(redis)
    assert watch.server_milliseconds() is None
    assert await watch.poll()
    seconds, microseconds = await redis.time()
    assert abs(watch.server_milliseconds() - (seconds * 1000 + microseconds / 1000)) < 2000
    used = REGISTRY.get_sample_value("pocket_miner_redis_memory_bytes", {"type": "used"})
    assert used > 100_000
    assert not await watch.poll(), "it is the same process"


async def test_a_redis_that_is_changed_to_evict_keys_is_reported(redis, captured_logs):
    watch = RedisWatch(redis)
    await watch.poll()
    assert watch.problem == ""
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        for _ in range(2):
            await watch.poll()
            assert "noeviction" in watch.problem
        assert [row["event"] for row in captured_logs].count("Redis may lose relays") == 1
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
    await watch.poll()
    assert watch.problem == ""


def test_what_was_up_before_the_miner_is_settled_and_what_it_met_anew_gives_relayers_their_time():
    now = [10_000.0]

    def watch():
        return RedisWatch(None, lambda: now[0])

    def info(history):
        info = RedisInfo(history, append_only=True, eviction_policy="noeviction", used_memory=1, max_memory=0,
                         uptime_seconds=3600)  # fmt: skip
        return PrimaryStates({None: info})

    running = watch()
    assert not running.settled(5.0)
    assert running.observe(info("a"))
    assert running.settled(5.0)
    assert not running.observe(info("a"))
    assert running.observe(info("b")), "a fail-over to a server that is up for an hour"
    assert not running.settled(5.0)
    now[0] += 5.1
    assert running.settled(5.0)
    waited = watch()
    waited.missed()
    assert waited.observe(info("a"))
    assert not waited.settled(5.0), "it was loading its file: relayers meet it only now"


async def test_a_redis_that_was_restarted_since_the_latest_poll_is_not_settled_and_the_next_poll_returns_it():
    with running_redis() as server:
        async with clients(server.url, server.url) as (client, other):

            async def is_loaded():
                with contextlib.suppress(RedisError):
                    return not (await other.info("persistence"))["loading"]

            now = [10_000.0]
            watch = RedisWatch(client, lambda: now[0])
            await watch.poll()
            now[0] += 6
            assert await watch.still_settled(5.0)
            server.kill()
            with pytest.raises(RedisUnavailable):
                await watch.still_settled(5.0)
            server.start()
            await until(is_loaded)
            assert not await watch.still_settled(5.0)
            assert await watch.poll() == {None}
            assert await watch.poll() == frozenset()
            now[0] += 6
            assert await watch.still_settled(5.0)


async def test_a_replica_is_no_restart_and_its_promotion_is_one_though_it_is_the_same_process():
    with running_redis() as server:
        client = connect(server.url)
        watch = RedisWatch(client)
        assert await watch.poll()
        await client.replicaof("127.0.0.1", 1)
        with pytest.raises(RedisUnavailable, match="replica"):
            await watch.poll()
        await client.replicaof("NO", "ONE")
        assert await watch.poll()
        await client.aclose()


async def test_positions_on_a_volume_hold_for_the_history_in_which_they_were_read(alice, redis):
    header = alice.header()
    await alice.record(alice.relays(header, 3))

    async def position(history_id):
        """Return where a miner reads on that starts with this volume."""
        sessions = {}
        tail = StreamReader(redis, RedisKeys("test"), alice.supplier)
        consumer = RelayConsumer(tail, alice.relay_store, alice.client, sessions, history_id=lambda: history_id)
        await consumer.restore()
        await consumer.discover({})
        found = sessions[header.session_id].position
        await consumer.consume_once()
        return found

    assert await position("first") == "0-0"
    assert await position("first") != "0-0"
    assert await position("") != "0-0", "before the first poll the history is unknown"
    assert await position("second") == "0-0", "the new primary's clock may be slower"
    assert await position("second") != "0-0"


@pytest.mark.parametrize("discovers", [False, True])
async def test_relays_that_come_back_to_an_emptied_redis_are_read_before_it_is_discovered(alice, redis, discovers):
    header = alice.header()
    relays = alice.relays(header, 3)
    await alice.record(relays)
    tail, sessions = StreamReader(redis, RedisKeys("test"), alice.supplier), {}
    consumer = RelayConsumer(tail, alice.relay_store, alice.client, sessions, history_id=lambda: "first")
    await consumer.discover({})
    assert await consumer.consume_once() == 3
    await redis.flushall()
    assert not discovers or await consumer.discover({}), "no relay has come back, so Redis has no incarnation yet"
    await alice.record(relays[:2])
    assert await consumer.consume_once() == 2
    (last, _), *_ = await redis.xrevrange(RedisKeys("test").stream(alice.supplier, header.session_id), count=1)
    assert sessions[header.session_id].position == last.decode()
    assert await consumer.discover({}) is not discovers, "a loss is found once"


def observed():
    return (
        REGISTRY.get_sample_value("pocket_miner_tail_seconds_sum") or 0.0,
        REGISTRY.get_sample_value("pocket_miner_tail_seconds_count") or 0.0,
    )


async def test_the_age_of_relays_is_measured_by_the_clock_that_named_them(alice, redis):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    stream = RedisKeys("test").stream(alice.supplier, header.session_id)
    (first, _), *_ = await redis.xrange(stream, count=1)
    now = [None]
    consumer = RelayConsumer(
        StreamReader(redis, RedisKeys("test"), alice.supplier), alice.relay_store, alice.client, {},
        server_milliseconds=lambda: now[0],
    )  # fmt: skip
    await consumer.discover({})
    before = observed()
    now[0] = int(first.partition(b"-")[0]) + 2500
    assert await consumer.consume_once(2) == 2
    assert observed()[0] - before[0] == pytest.approx(2.5)
    (session,) = consumer._sessions.values()
    assert session.behind, "there is one more"
    assert await consumer.consume_once(2) == 1
    assert not session.behind
    assert observed()[1] - before[1] == 2
