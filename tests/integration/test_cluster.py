"""A real Cluster: routing, slots that move under load, a killed primary, and commands that span slots."""

import asyncio
import contextlib
import itertools

import pytest
from redis.crc import key_slot

from clusters import running_cluster
from pocket.errors import ConfigurationError
from pocket.redis_store.budgets import BudgetLimits, Budgets, Charge, ChargeResult
from pocket.redis_store.connection import (
    await_durable_redis,
    check_durability,
    connect,
    inspect,
    inspect_primaries,
    redact_url,
)
from pocket.redis_store.notifications import NotificationReader, RelayNotifier
from pocket.redis_store.prefix_owner import PrefixInUse, PrefixOwner
from pocket.redis_store.relay_recorder import RecorderLimits
from pocket.redis_store.seals import SessionSeal, SignedGroup
from pocket.redis_store.store_errors import RedisNotDurable, RedisUnavailable
from pocket.redis_store.stream_reader import StreamReader, origin_of
from pocket_miner.ingest.consume_rounds import Check, ConsumeRounds, ReadRequest
from pocket_miner.storage.relay_store import RelayStore
from recording import KEYS, entries, owned, publishing, record
from servers import until

pytestmark = pytest.mark.redis
PATIENT = RecorderLimits(linger_seconds=0, append_timeout_seconds=60.0)
SUPPLIERS = [f"pokt1supplier{number}" for number in range(12)]


@contextlib.asynccontextmanager
async def load(recorder):
    """Record relays of all suppliers meanwhile, and yield those that were acknowledged, by supplier."""
    acknowledged = {supplier: [] for supplier in SUPPLIERS}
    stop = asyncio.Event()

    async def serve(supplier):
        number = 0
        while not stop.is_set():
            await recorder.record(record(number, supplier=supplier))
            acknowledged[supplier].append(b"relay %d" % number)
            number += 1

    async with asyncio.TaskGroup() as group:
        for supplier in SUPPLIERS:
            group.create_task(serve(supplier))
        try:
            yield acknowledged
        finally:
            stop.set()


def more(acknowledged, least):
    """Return a condition: so many more relays of every supplier."""
    wanted = {supplier: len(rows) + least for supplier, rows in acknowledged.items()}

    async def enough():
        return all(len(acknowledged[supplier]) >= number for supplier, number in wanted.items())

    return enough


async def lost(redis, acknowledged):
    """Return the acknowledged relays that no stream has."""
    return {
        supplier: missing
        for supplier, rows in acknowledged.items()
        if (missing := set(rows) - set(await entries(redis, supplier=supplier)))
    }


async def test_commands_scripts_pipelines_and_scans_reach_the_primaries_of_their_keys():
    async with running_cluster(replicas=False) as cluster:
        redis = cluster.redis
        assert (await check_durability(redis, cluster.servers.url)).append_only
        await asyncio.gather(*(redis.set(f"key-{number}", number) for number in range(100)))
        spread = {cluster.primary_of(f"key-{number}") for number in range(100)}
        assert len(spread) == 3
        async with redis.pipeline(transaction=False) as pipe:
            for number in range(100):
                pipe.get(f"key-{number}")
            assert await pipe.execute() == [b"%d" % number for number in range(100)]
        assert {name async for name in redis.scan_iter("key-*")} == {b"key-%d" % number for number in range(100)}
        async with redis.pipeline(transaction=False) as pipe:
            pipe.incr("counted")
            pipe.hset("counted", "a", 1)
            with pytest.raises(Exception, match=r"WRONGTYPE|wrong kind"):
                await pipe.execute()
        assert await redis.get("counted") == b"1"


async def test_a_session_is_recorded_sealed_and_finished_with_the_keys_of_its_supplier_in_one_slot(tmp_path):
    async with running_cluster(replicas=False) as cluster, publishing(cluster.redis, tmp_path) as recorder:
        budgets = Budgets(cluster.redis, KEYS)
        charging = asyncio.create_task(budgets.run())
        for supplier in SUPPLIERS:
            charge = Charge(supplier, "one", 5, 7, 60, b"0123456789abcdef")
            assert await budgets.charge(charge) is ChargeResult.CHARGED
            assert await budgets.charge(charge) is ChargeResult.REPLAYED
            await recorder.record(record(1, supplier=supplier))
            store = await owned(cluster.redis, supplier)
            last = await store.close({"one": 10})
            seal = SessionSeal("one", b"r" * 48, b"d", 1, 1)
            await store.seal([seal], last, "10/claim/x", SignedGroup(b"tx", 1, 1))
            assert await store.load() == {"one": seal}
            await store.finish("one", 10)
            assert await entries(cluster.redis, supplier=supplier) == []
        charging.cancel()


async def test_notifications_of_several_shards_are_read_at_once():
    async with running_cluster(replicas=False) as cluster:
        reader = NotificationReader(cluster.redis, KEYS)
        assert await reader.read(range(8), 1) == set()
        reading = asyncio.create_task(reader.read(range(8), 1000))
        notifier = RelayNotifier(cluster.redis, KEYS, lambda supplier: len(supplier) % 8)
        await notifier.notify(["a", "bb", "ccc"])
        assert await reading | await reader.read(range(8), 1) == {"a", "bb", "ccc"}


async def test_what_is_published_reaches_a_subscriber_on_any_node():
    async with running_cluster(replicas=False) as cluster:
        for _ in range(3):  # each on another node
            async with cluster.redis.pubsub() as subscription:
                await subscription.subscribe("news")
                assert (await subscription.get_message(timeout=5))["type"] == "subscribe"
                await cluster.redis.publish("news", "x")
                message = await subscription.get_message(timeout=5)
                assert message["data"] == b"x"


async def test_no_acknowledged_relay_is_lost_when_primaries_die_under_load(tmp_path):
    async with running_cluster() as cluster, publishing(cluster.redis, tmp_path, PATIENT) as recorder:
        await recorder.maintain_once()
        former = (await inspect(cluster.redis)).history_id
        async with load(recorder) as acknowledged:
            await until(more(acknowledged, 20))
            victim = cluster.primary_of(KEYS.closed(SUPPLIERS[0]))
            cluster.servers.processes[victim].kill()
            await until(more(acknowledged, 20))

        async def noticed():
            with contextlib.suppress(RedisUnavailable):
                return (await inspect(cluster.redis)).history_id != former

        await until(noticed)
        await recorder.maintain_once()
        assert recorder.counters.failed == 0
        assert await lost(cluster.redis, acknowledged) == {}


async def test_no_acknowledged_relay_is_lost_while_slots_move_under_load(tmp_path):
    async with running_cluster() as cluster, publishing(cluster.redis, tmp_path, PATIENT) as recorder:
        async with load(recorder) as acknowledged:
            await until(more(acknowledged, 10))
            for supplier in SUPPLIERS[:4]:
                key = KEYS.closed(supplier)
                target = next(name for name in cluster.primaries() if name != cluster.primary_of(key))
                await cluster.move(key_slot(key.encode()), target)
                await until(more(acknowledged, 10))
                assert cluster.primary_of(key) == target
        assert recorder.counters.failed == 0
        assert await lost(cluster.redis, acknowledged) == {}
        assert recorder.counters.replayed == 0, "a slot that moves is no other history"


async def test_no_acknowledged_relay_is_lost_while_slots_move_at_once_under_load(tmp_path):
    async with running_cluster() as cluster, publishing(cluster.redis, tmp_path, PATIENT) as recorder:
        async with load(recorder) as acknowledged:
            await until(more(acknowledged, 10))
            for supplier in SUPPLIERS[:4]:
                key = KEYS.closed(supplier)
                source = cluster.primary_of(key)
                target = next(name for name in cluster.primaries() if name != source)
                if not await cluster.move_at_once(key_slot(key.encode()), source, target):
                    pytest.skip("this server moves slots key by key only")
                await until(more(acknowledged, 10))
        assert recorder.counters.failed == 0
        assert await lost(cluster.redis, acknowledged) == {}


async def test_a_key_of_a_slot_that_is_being_moved_is_found_on_either_side():
    async with running_cluster(replicas=False) as cluster:
        slot, redis = key_slot(b"moved"), cluster.redis
        source = cluster.primary_of("moved")
        target = next(name for name in cluster.primaries() if name != source)
        await redis.set("{moved}here", 1)
        await cluster.begin(slot, source, target)
        assert await redis.get("{moved}here") == b"1"
        await redis.set("{moved}there", 2)  # a new key is made on the target
        with pytest.raises(Exception, match=f"^{slot} "):
            cluster.run(source, "GET", "{moved}there")
        assert await redis.get("{moved}there") == b"2"
        script = "return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}"
        asked = asyncio.create_task(redis.eval(script, 2, "{moved}here", "{moved}there"))  # TRYAGAIN until both meet

        async def refused():
            stats = cluster.run(source, "INFO", "errorstats")
            return stats.get("errorstat_TRYAGAIN", {}).get("count", 0) >= 1

        await until(refused)
        await cluster.end(slot, source, target)
        assert await asked == [b"1", b"2"]


async def test_a_pipeline_follows_slots_that_have_moved():
    async with running_cluster(replicas=False) as cluster:
        names = [f"key-{number}" for number in range(30)]
        await asyncio.gather(*(cluster.redis.set(name, name) for name in names))
        target = next(name for name in cluster.primaries() if name != cluster.primary_of(names[0]))
        await cluster.move(key_slot(names[0].encode()), target)
        async with cluster.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(name)
            assert await pipe.execute() == [name.encode() for name in names]


async def test_a_slot_without_primary_is_an_outage_of_its_keys_only():
    async with running_cluster(replicas=False) as cluster:
        redis = cluster.redis
        await asyncio.gather(*(redis.set(f"key-{number}", number) for number in range(30)))
        victim = cluster.primary_of("key-0")
        of_others = [name for number in range(30) if cluster.primary_of(name := f"key-{number}") != victim]
        cluster.servers.processes[victim].kill()
        with pytest.raises(RedisUnavailable):
            await redis.get("key-0")
        for name in of_others:
            assert await redis.get(name) is not None
        with pytest.raises(RedisUnavailable):
            await inspect(redis)


async def test_suppliers_of_other_primaries_are_served_while_one_does_not_answer(tmp_path):
    """A primary that is stopped accepts connections and answers nothing, as behind a broken network."""
    async with running_cluster(replicas=False) as cluster:
        redis = connect(cluster.servers.url, timeout_seconds=60.0)  # no deadline decides what is served first
        notifier = RelayNotifier(redis, KEYS, lambda _: 0, clock=itertools.count(0, 10).__next__)
        budgets = Budgets(redis, KEYS, BudgetLimits(timeout_seconds=60.0))
        charging = asyncio.create_task(budgets.run())
        async with publishing(redis, tmp_path, PATIENT) as recorder:
            recorder._notifier = notifier
            victim = cluster.primary_of(KEYS.notifications(0))
            hung = next(s for s in SUPPLIERS if cluster.primary_of(KEYS.closed(s)) == victim)
            others = [s for s in SUPPLIERS if cluster.primary_of(KEYS.closed(s)) != victim]
            await asyncio.gather(*(recorder.record(record(0, supplier=supplier)) for supplier in SUPPLIERS))
            cluster.servers.processes[victim].freeze(frozen=True)
            recording = asyncio.ensure_future(recorder.record(record(1, supplier=hung)))
            charged = asyncio.ensure_future(budgets.charge(Charge(hung, "one", 1, 5, 60)))
            for number in range(1, 4):
                await asyncio.gather(*(budgets.charge(Charge(s, "one", 1, 5, 60)) for s in others))
                await asyncio.gather(*(recorder.record(record(number, supplier=s)) for s in others))
            assert not recording.done()
            assert not charged.done()
            async with cluster.redis.pipeline(transaction=False) as pipe:
                for supplier in SUPPLIERS:
                    pipe.xlen(KEYS.stream(supplier, "one"))
                lengths = dict(zip(SUPPLIERS, await pipe.execute(raise_on_error=False), strict=True))
            assert all(lengths[supplier] == 4 for supplier in others)
            assert isinstance(lengths[hung], RedisUnavailable)
            cluster.servers.processes[victim].freeze(frozen=False)
            await recording
            assert await charged is ChargeResult.CHARGED
            assert set(await entries(redis, supplier=hung)) == {b"relay 0", b"relay 1"}
        charging.cancel()
        await redis.aclose()


class Consumer:
    """The consumer of one supplier's streams, which has no sessions."""

    def __init__(self, redis, supplier):
        self.tail = StreamReader(redis, KEYS, supplier)

    def accept(self, request, poll, count):
        return []


async def test_a_primary_that_is_away_stops_start_replay_and_release_of_its_own_suppliers_only(tmp_path):
    async with running_cluster(replicas=False) as cluster, publishing(cluster.redis, tmp_path) as recorder:
        redis, servers = cluster.redis, cluster.servers
        await recorder.maintain_once()
        for supplier in SUPPLIERS:
            await recorder.record(record(1, supplier=supplier))
            recorder._log.rotate()
        primaries = {supplier: cluster.primary_of(KEYS.sessions(supplier)) for supplier in SUPPLIERS}
        away, emptied, _ = servers.servers
        others = {supplier for supplier in SUPPLIERS if primaries[supplier] != away}
        servers.processes[away].stop()
        await asyncio.to_thread(cluster.run, emptied, "FLUSHALL")
        await recorder.record(record(2, supplier=next(s for s in others if primaries[s] == emptied)))  # shows it
        for _ in range(2):
            with pytest.raises(RedisUnavailable):
                await recorder.maintain_once()
        for supplier in others:
            assert b"relay 1" in await entries(redis, supplier=supplier)
            tail = StreamReader(redis, KEYS, supplier)
            last = (await tail.read({"one": "0-0"}))["one"][-1].id
            history = (await inspect_primaries(redis)).histories[tail.primary]
            await tail.publish_replicated({"one": f"{origin_of(await tail.incarnation(), history)}/{last}"})
        recorder._log.rotate()
        with pytest.raises(RedisUnavailable):
            await recorder.maintain_once()
        kept = set().union(*(segment.suppliers for segment in recorder._log.segments))
        assert kept == set(SUPPLIERS) - others
        starting = connect(servers.url)
        await asyncio.wait_for(await_durable_redis(starting, servers.url, asyncio.Event()), 30)
        await starting.aclose()


async def test_a_start_waits_for_no_primary_that_holds_the_record_of_the_prefixs_owner():
    async with running_cluster(replicas=False) as cluster:
        servers = cluster.servers
        victim = cluster.primary_of(KEYS.owner)
        servers.processes[victim].stop()
        redis = connect(servers.url)
        owners = [PrefixOwner(redis, KEYS, name) for name in ("shop/main", "shop/other")]
        for owner in owners:
            waiting = await_durable_redis(redis, servers.url, asyncio.Event(), claim=owner.claim)
            await asyncio.wait_for(waiting, 30)
            assert not owner.claimed
        servers.processes[victim].start()
        await asyncio.wait_for(owners[0].run(0.05), 30)
        with pytest.raises(PrefixInUse, match="belongs to RelayMiner shop/main"):
            await asyncio.wait_for(owners[1].run(0.05), 30)
        await redis.aclose()


async def test_a_miner_reads_suppliers_of_other_primaries_while_one_does_not_answer(tmp_path):
    async with running_cluster(replicas=False) as cluster:
        redis = connect(cluster.servers.url, timeout_seconds=60.0)  # no deadline decides what is read first
        with RelayStore(tmp_path) as relay_store:
            rounds = ConsumeRounds(redis, relay_store, 0.005)
            await redis.exists(KEYS.closed(SUPPLIERS[0]))  # which primaries there are is known

            def read(supplier):
                return rounds.join(ReadRequest(Consumer(redis, supplier), {}, 0, "", Check.NUMBER))

            victim = cluster.primary_of(KEYS.closed(SUPPLIERS[0]))
            hung = [s for s in SUPPLIERS if cluster.primary_of(KEYS.closed(s)) == victim]
            others = [s for s in SUPPLIERS if s not in hung]
            cluster.servers.processes[victim].freeze(frozen=True)
            waiting = [asyncio.ensure_future(read(supplier)) for supplier in hung]
            for _ in range(3):
                assert await asyncio.gather(*map(read, others)) == [0] * len(others)
            assert not any(task.done() for task in waiting)
            cluster.servers.processes[victim].freeze(frozen=False)
            assert await asyncio.gather(*waiting) == [0] * len(hung)
        await redis.aclose()


async def test_a_primary_that_did_not_answer_is_not_waited_for_by_every_command():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    async with running_cluster(replicas=False) as cluster:
        clock = Clock()
        redis = connect(cluster.servers.url, timeout_seconds=1.0, clock=clock)
        hung = SUPPLIERS[0]
        victim = cluster.primary_of(KEYS.closed(hung))
        other = next(s for s in SUPPLIERS if cluster.primary_of(KEYS.closed(s)) != victim)
        await redis.exists(KEYS.closed(hung))
        cluster.servers.processes[victim].freeze(frozen=True)
        with pytest.raises(RedisUnavailable):
            await redis.exists(KEYS.closed(hung))
        for _ in range(3):
            with pytest.raises(RedisUnavailable, match="is not asked yet"):
                await redis.exists(KEYS.closed(hung))
            async with redis.pipeline(transaction=False) as pipe:
                pipe.exists(KEYS.closed(other))
                pipe.exists(KEYS.closed(hung))
                answer, failure = await pipe.execute(raise_on_error=False)
            assert answer == 0
            assert isinstance(failure, RedisUnavailable)
            assert "is not asked yet" in str(failure)
        cluster.servers.processes[victim].freeze(frozen=False)
        clock.now += 1.0
        assert await redis.exists(KEYS.closed(hung)) == 0
        await redis.aclose()


async def test_one_unsafe_primary_makes_the_cluster_unsafe():
    async with running_cluster(replicas=False) as cluster:
        cluster.run(cluster.servers.servers[1], "CONFIG SET", "appendonly", "no")
        with pytest.raises(RedisNotDurable, match="append-only"):
            await check_durability(cluster.redis, cluster.servers.url)


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://,",
        "redis+cluster://a:1,",
        "redis+cluster://a:70000",
        "redis+cluster://a/1",
        "redis+cluster://a?x=1",
    ],
)
def test_an_invalid_url_is_refused_and_not_quoted(url):
    with pytest.raises(ConfigurationError, match="cluster") as error:
        connect(url)
    assert url not in str(error.value)
    assert "secret" not in redact_url("redis+cluster://user:secret@a:1,b:2")
