"""Recording relays on a real Redis: strictness, closed sessions, restarts, release of the local log."""

import asyncio
import contextlib
import traceback
from dataclasses import replace

import pytest

from pocket.chain.model import Block
from pocket.chain_cache.shared_heights import LatestBlockPublisher, LatestBlockWatcher, decode_block
from pocket.errors import ChainUnavailable, ConfigurationError, DecodingError
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.budgets import BudgetLimits, Budgets, Charge, ChargeResult
from pocket.redis_store.connection import check_durability, connect, inspect, redact_url
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.seals import SealStore, SessionSeal, SignedGroup
from pocket.redis_store.store_errors import (
    FenceMissing,
    QueueFull,
    RedisNotDurable,
    RedisUnavailable,
    SessionClosed,
    StaleEpoch,
)
from pocket.redis_store.stream_reader import StreamReader
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket.runtime.supervise import supervise
from recording import FAST, KEYS, confirmed, entries, origin, owned, publishing, record
from servers import running_redis

pytestmark = pytest.mark.redis


async def test_concurrent_relays_are_all_in_their_streams_when_record_returns(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        rows = [record(i, session=f"s{i % 3}", supplier=f"pokt1{i % 2}") for i in range(300)]
        await asyncio.gather(*(publisher.record(row) for row in rows))
        assert publisher.counters.appended == 300
    found = [r for s in range(3) for p in range(2) for r in await entries(redis, f"s{s}", f"pokt1{p}")]
    assert sorted(found) == sorted(row.relay for row in rows)
    assert await StreamReader(redis, KEYS, "pokt10").sessions() == {f"s{i}": b"header" for i in range(3)}


async def test_a_closed_session_takes_no_relay_and_says_so(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.record(record(1))
        await (await owned(redis, "pokt1s")).close({"one": 10})
        with pytest.raises(SessionClosed):
            await publisher.record(record(2))
        await publisher.record(record(3, session="two"))
    assert await entries(redis) == [b"relay 1"]
    assert publisher.counters.refused_closed == 1


async def test_a_full_queue_refuses_at_once(redis, tmp_path):
    log = WriteAheadLog(tmp_path, "w")
    publisher = RelayRecorder(redis, KEYS, log, RecorderLimits(queue=2))
    waiting = [publisher.submit(record(1)), publisher.submit(record(2))]
    assert publisher.overloaded
    assert publisher.waiting == 2
    with pytest.raises(QueueFull):
        publisher.submit(record(3))
    for future in waiting:
        future.cancel()
    log.close()


async def test_a_queue_is_full_of_bytes_as_well_and_has_room_again_when_they_are_recorded(redis, tmp_path):
    large = replace(record(1), relay=bytes(1000))
    async with publishing(redis, tmp_path, replace(FAST, queue_bytes=1000)) as publisher:
        done = publisher.submit(large)
        assert publisher.overloaded
        with pytest.raises(QueueFull):
            publisher.submit(record(2))
        await done
        await publisher.drain()
        assert not publisher.overloaded
        await publisher.record(record(3))


async def test_an_unreachable_redis_is_an_error_not_a_lost_acknowledgement(tmp_path):
    client = connect("redis://127.0.0.1:1/0")
    async with publishing(client, tmp_path) as publisher:
        with pytest.raises(RedisUnavailable):
            await publisher.record(record(1))
        assert publisher.counters.failed == 1
    await client.aclose()


async def test_an_unexpected_error_fails_the_waiting_relays_and_a_restarted_loop_records_them(redis, tmp_path):
    log, failures, pauses = WriteAheadLog(tmp_path, "w"), [], []
    defects = iter([ZeroDivisionError("a defect")])

    def unique():
        if defect := next(defects, None):
            raise defect
        return "life"

    async def pause(seconds):
        pauses.append(seconds)

    recorder = RelayRecorder(redis, KEYS, log, FAST, unique=unique)
    await recorder.maintain_once()
    running = asyncio.create_task(supervise("recorder", recorder.run, lambda: failures.append(1), pause=pause))
    lost, queued = recorder.submit(record(1)), recorder.submit(record(2, supplier="pokt1t"))
    found = await asyncio.wait_for(asyncio.gather(lost, queued, return_exceptions=True), 10)
    assert RedisUnavailable in {type(one) for one in found}
    await recorder.record(record(3))
    assert (len(failures), len(pauses)) == (1, 1)
    assert recorder.suppliers_with_unacknowledged >= {"pokt1s"}
    await recorder.maintain_once()  # from the log
    assert set(await entries(redis)) == {b"relay 1", b"relay 3"}
    assert await entries(redis, supplier="pokt1t")
    await asyncio.wait_for(recorder.drain(5), 10)
    running.cancel()
    log.close()


async def test_budgets_charge_what_waited_while_their_loop_was_restarted(redis):
    budgets, pauses = Budgets(redis, KEYS, BudgetLimits(batch=1)), []

    async def pause(seconds):
        pauses.append(seconds)

    running = asyncio.create_task(supervise("budgets", budgets.run, lambda: None, pause=pause))
    broken = budgets.charge(Charge("pokt1s", "one", 1, 10, 600, 1))  # no bytes
    calls = asyncio.gather(broken, budgets.charge(Charge("pokt1s", "one", 1, 10, 600)), return_exceptions=True)
    failed, charged = await asyncio.wait_for(calls, 10)
    assert (type(failed), charged, len(pauses)) == (RedisUnavailable, ChargeResult.CHARGED, 1)
    running.cancel()


async def test_relays_survive_a_redis_that_comes_back_empty(tmp_path):
    with running_redis() as server:
        client = connect(server.url)
        async with publishing(client, tmp_path) as publisher:
            await publisher.maintain_once()
            await asyncio.gather(*(publisher.record(record(i)) for i in range(20)))
            server.kill()
            server.wipe()
            server.start()
            with contextlib.suppress(RedisUnavailable):
                await publisher.maintain_once()  # over the old connection, if its end is not known yet
            await publisher.maintain_once()
            assert sorted(await entries(client)) == sorted(b"relay %d" % i for i in range(20))
            assert publisher.counters.replayed == 20
            await publisher.record(record(99))
        await client.aclose()


async def test_a_restart_in_mid_flight_loses_nothing_acknowledged(tmp_path):
    with running_redis() as server:
        client = connect(server.url)
        limits = RecorderLimits(linger_seconds=0, append_timeout_seconds=5, retry_seconds=0.02)
        async with publishing(client, tmp_path, limits) as publisher:
            await publisher.maintain_once()
            await publisher.record(record(0))
            server.kill()
            waiting = asyncio.ensure_future(asyncio.gather(*(publisher.record(record(i)) for i in range(1, 10))))
            await asyncio.to_thread(server.start)
            await waiting
            assert set(await entries(client)) == {b"relay %d" % i for i in range(10)}
        await client.aclose()


async def test_a_new_worker_appends_the_log_of_a_killed_one(redis, tmp_path):
    dead = WriteAheadLog(tmp_path, "dead")
    dead.append([record(i) for i in range(4)])
    dead.close()
    async with publishing(redis, tmp_path, name="heir") as publisher:
        await publisher.maintain_once()
    assert sorted(await entries(redis)) == sorted(b"relay %d" % i for i in range(4))


async def test_the_log_is_released_once_mirrored_and_not_before(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.record(record(1))
        publisher._log.rotate()
        await publisher.maintain_once()
        assert publisher._log.segments
        tail = StreamReader(redis, KEYS, "pokt1s")
        last = (await tail.read({"one": "0-0"}))["one"][-1].id
        await tail.publish_replicated({"one": f"other/{last}"})
        await publisher.maintain_once()
        assert publisher._log.segments
        await tail.publish_replicated({"one": f"{await origin(redis, tail)}/{last}"})
        await publisher.maintain_once()
        assert not publisher._log.segments


async def traces(redis, session):
    """Return the keys that are named after a session or have a field of it."""
    found = set()
    async for key in redis.scan_iter():
        name = key.decode()
        fields = await redis.hkeys(key) if await redis.type(key) == b"hash" else []
        if session in name.split(":") or session.encode() in fields:
            found.add(name)
    return found


@contextlib.asynccontextmanager
async def charging(redis):
    budgets = Budgets(redis, KEYS)
    task = asyncio.create_task(budgets.run())
    yield budgets
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_log_is_released_when_the_session_is_finished(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.record(record(1))
        publisher._log.rotate()
        store = await owned(redis, "pokt1s")
        await publisher.record(record(2, "other"))
        seal = SessionSeal("one", b"r" * 48, b"d" * 32, 12, 1)
        async with charging(redis) as budgets:
            charge = Charge("pokt1s", "one", 1, 100, 60, b"\x07" * 16)
            assert await budgets.charge(charge) is ChargeResult.CHARGED
        await store.seal([seal], await store.close({"one": 10}), "10/claim/one", SignedGroup(b"tx", 1, 12))
        await store.share_costs("hash", "claim", {"one": 1})
        await StreamReader(redis, KEYS, "pokt1s").publish_replicated({"one": "origin/1-1"})
        assert len(await traces(redis, "one")) == 8
        await store.finish("one", 10)
        assert await traces(redis, "one") == {KEYS.closed("pokt1s")}, "only the tombstone stays"
        await publisher.maintain_once()
        assert [segment.sessions for segment in publisher._log.segments] == [{("pokt1s", "other")}]
        with pytest.raises(SessionClosed):
            await publisher.record(record(3))
        await store.forget_before(11)
        assert await redis.hlen(KEYS.closed("pokt1s")) == 0


async def test_a_first_relay_is_refused_when_its_session_ended_before_the_horizon(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        store = await owned(redis, "pokt1s")
        await publisher.record(record(1, "known", end=10))
        assert await store.advance_cutoff(10, 13) == (0, 10)
        with pytest.raises(SessionClosed):
            await publisher.record(record(2, "unknown", end=10))
        await publisher.record(record(3, "known", end=10))
        await publisher.record(record(4, "next", end=20))
        assert publisher.counters.refused_closed == 1
    assert set(await StreamReader(redis, KEYS, "pokt1s").sessions()) == {"known", "next"}
    assert await entries(redis, "unknown") == []


async def test_the_horizon_never_falls_and_only_an_owner_raises_it(redis):
    store = await owned(redis, "pokt1s")
    assert [await store.advance_cutoff(end, 33) for end in (20, 10, 30)] == [(0, 20), (20, 20), (20, 30)]
    with pytest.raises(FenceMissing):
        await SealStore(redis, KEYS, "pokt1s", 2).advance_cutoff(40, 43)
    await SealStore(redis, KEYS, "pokt1s", 2).fence(confirmed)
    with pytest.raises(StaleEpoch):
        await store.advance_cutoff(40, 43)
    assert await redis.get(KEYS.cutoff("pokt1s")) == b"30"


async def test_a_horizon_far_above_the_chain_is_another_chains(redis):
    store = await owned(redis, "pokt1s")
    await store.advance_cutoff(500, 503)
    assert await store.advance_cutoff(390, 400) == (500, 500)
    assert await store.advance_cutoff(380, 399) == (500, 380)


async def test_a_log_is_appended_again_whatever_the_horizon_is(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await publisher.record(record(1, end=10))
        await redis.flushdb()
        await (await owned(redis, "pokt1s")).advance_cutoff(10, 13)
        await publisher.replay("Redis was lost")
        assert await entries(redis) == [b"relay 1"]


async def test_the_log_is_released_of_relays_that_came_too_late_to_be_registered(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await (await owned(redis, "pokt1s")).advance_cutoff(10, 13)
        with pytest.raises(SessionClosed):
            await publisher.record(record(1, end=10))
        publisher._log.rotate()
        await publisher.replay("Redis was lost")
        assert await entries(redis) == []
        await publisher.maintain_once()
        assert not publisher._log.segments


async def test_draining_records_everything_that_waits(redis, tmp_path):
    async with publishing(redis, tmp_path, RecorderLimits(linger_seconds=0.05)) as publisher:
        futures = [publisher.submit(record(i)) for i in range(50)]
        await publisher.drain()
        assert all(future.done() for future in futures)
    assert len(await entries(redis)) == 50


@pytest.mark.parametrize("error", [None, ConnectionResetError(104, "reset")])
async def test_a_cancellation_that_meets_the_end_of_sending_is_not_lost(redis, error):
    await redis.ping()
    (connection,) = redis.connection_pool._available_connections
    send = connection._send_packed_command

    async def sends_and_is_cancelled(command):
        await send(command)
        asked.cancel()
        if error is not None:
            raise error

    connection._send_packed_command = sends_and_is_cancelled
    asked = asyncio.create_task(redis.getrange("x", 0, -1))
    with pytest.raises(asyncio.CancelledError):
        await asked
    connection._send_packed_command = send
    await redis.set("y", "right")
    assert await redis.getrange("y", 0, -1) == b"right"


async def test_a_cut_connection_never_mixes_up_replies(redis, tmp_path):
    await redis.set("x", "wrong")
    for _ in range(20):
        asked = asyncio.create_task(redis.getrange("x", 0, -1))
        await asyncio.wait({asked}, timeout=0)  # lets the command go out
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked
        await redis.set("y", "right")
        assert await redis.getrange("y", 0, -1) == b"right"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--appendonly", "no", "--save", ""), "Set appendonly yes"),
        (
            ("--appendonly", "yes", "--save", "", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"),
            "noeviction",
        ),
    ],
)
async def test_an_unsafe_redis_is_refused_with_the_remedy(arguments, text):
    with running_redis(*arguments) as server:
        client = connect(server.url)
        with pytest.raises(RedisNotDurable, match=text):
            await check_durability(client, server.url)
        await client.aclose()


async def test_a_safe_redis_is_described_and_a_missing_one_named_without_credentials(redis, redis_process):
    info = await check_durability(redis, redis_process.url)
    assert info.history_id == (await inspect(redis)).history_id
    assert info.memory_ratio() == 0
    lost = connect("redis://user:secret@127.0.0.1:1/0")
    with pytest.raises(RedisUnavailable) as caught:
        await check_durability(lost, "redis://user:secret@127.0.0.1:1/0")
    assert "secret" not in str(caught.value)
    assert redact_url("redis://u:p@h/1") == "redis://h:6379/1"
    await lost.aclose()


@pytest.mark.parametrize(
    "url",
    ["redis://:s3cr/s3cr@h:1/0", "redis://:s3cr#s3cr@h:1", "redis://:p@s3cr/s3cr@h", "redis://h:1/s3cr", "redis://h:s3cr",
     "redis://[s3cr", "http://s3cr", "s3cr", "", "redis://h:1/0?socket_timeout=s3cr"],
)  # fmt: skip
def test_a_url_that_is_none_of_a_redis_is_refused_without_a_word_of_it(url):
    with pytest.raises(ConfigurationError, match="percent-encode") as caught:
        connect(url)
    assert "s3cr" not in "".join(traceback.format_exception(caught.value)).partition("ConfigurationError")[2]
    assert caught.value.__suppress_context__, "what redis-py says quotes parts of it"


async def test_heights_come_from_redis_and_from_a_node_when_redis_is_silent(redis):
    clock = [0.0]
    node = [7]

    async def ask():
        if node[0] < 0:
            raise ChainUnavailable("down")
        return Block(node[0], bytes(32), Timestamp(0))

    follower = LatestBlockWatcher(redis, KEYS, ask, 1.0, lambda: clock[0])
    await follower.poll()
    assert follower.height == 7
    publisher = LatestBlockPublisher(redis, KEYS)
    await publisher.publish(Block(9, bytes(32), Timestamp(1)))
    await follower.poll()
    assert follower.height == 9
    await redis.set(KEYS.block, "garbage")
    node[0] = 8
    clock[0] = 4.0
    await follower.poll()
    assert follower.height == 9
    node[0] = -1
    clock[0] = 20.0
    await follower.poll()
    assert follower.stale
    assert decode_block(b'{"height": "x"}') is None


def test_keys_carry_the_hash_tag_and_refuse_odd_prefixes():
    assert KEYS.stream("pokt1s", "abc") == "unit:relays:{pokt1s}:abc"
    assert KEYS.cache("a", "b") == "unit:cache:a:b"
    for name in (KEYS.leases, KEYS.block, KEYS.cutoff("pokt1s")):
        assert name.startswith("unit:")
    for bad in ("", "a b", "{x}", "a*"):
        with pytest.raises(ConfigurationError):
            RedisKeys(bad)


def test_seals_and_groups_survive_json_and_refuse_garbage():
    seal = SessionSeal("s", b"r" * 48, b"d" * 32, 5, 2)
    assert SessionSeal.decode(seal.encode()) == seal
    group = SignedGroup(b"\x00\xff", 12, 3)
    assert SignedGroup.decode(group.encode()) == group
    for text in ("", "{}", "[]", '{"session_id": 1, "root": "zz"}'):
        with pytest.raises(DecodingError):
            SessionSeal.decode(text)
        with pytest.raises(DecodingError):
            SignedGroup.decode(text)


async def test_a_command_takes_four_megabytes_of_relays_and_what_is_appended_again_as_well(
    redis, tmp_path, monkeypatch
):
    sizes = []
    append = RelayRecorder._append

    async def listen(self, supplier, records, segment):
        sizes.append(sum(len(record.relay) for record in records))
        return await append(self, supplier, records, segment)

    monkeypatch.setattr(RelayRecorder, "_append", listen)
    rows = [replace(record(number), relay=bytes(500_000) + b"%d" % number) for number in range(30)]
    async with publishing(redis, tmp_path) as publisher:
        await asyncio.gather(*(publisher.record(row) for row in rows))
        assert len(sizes) > 3
        assert max(sizes) < 4.6 * 2**20
        sizes.clear()
        await publisher.replay("test")
        assert sum(sizes) == sum(len(row.relay) for row in rows)
        assert max(sizes) < 4.6 * 2**20
