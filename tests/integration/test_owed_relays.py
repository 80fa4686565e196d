"""Relays that are in the local log and not in Redis: appended as soon as Redis takes them, and told until then."""

import asyncio
import contextlib
import signal
from dataclasses import replace

import pytest

from pocket.redis_store.connection import connect
from pocket.redis_store.store_errors import CommandRejected, RedisUnavailable
from pocket.redis_store.stream_reader import StreamReader
from pocket.redis_store.write_ahead_log import WriteAheadLog
from recording import FAST, KEYS, entries, full, origin, publishing, record
from servers import running_redis

pytestmark = pytest.mark.redis


async def refused(publisher, redis, row):
    async with full(redis):
        with pytest.raises(RedisUnavailable):
            await publisher.record(row)


async def test_what_redis_did_not_take_is_appended_once_it_does_without_a_restart(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await publisher.record(record(0))
        await refused(publisher, redis, record(1, "two"))
        assert publisher.suppliers_with_unacknowledged == {"pokt1s"}
        await publisher.maintain_once()
        assert await entries(redis, "two") == [b"relay 1"]
        assert await entries(redis) == [b"relay 0"]  # only what is owed is appended again
        assert publisher.suppliers_with_unacknowledged == set()


async def test_what_is_owed_stays_owed_while_redis_still_refuses_it(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        async with full(redis):
            with pytest.raises(RedisUnavailable):
                await publisher.record(record(1))
            for _ in range(2):
                with contextlib.suppress(Exception):
                    await publisher.maintain_once()
                assert publisher.suppliers_with_unacknowledged == {"pokt1s"}
        await publisher.maintain_once()
        assert await entries(redis) == [b"relay 1"]


async def test_a_log_is_not_released_while_it_owes_relays_of_a_session_that_is_mirrored_further(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await refused(publisher, redis, record(1))
        await publisher.record(record(2))
        publisher._log.rotate()
        tail = StreamReader(redis, KEYS, "pokt1s")
        last = (await tail.read({"one": "0-0"}))["one"][-1].id
        await tail.publish_replicated({"one": f"{await origin(redis, tail)}/{last}"})
        await publisher.maintain_once()
        assert set(await entries(redis)) == {b"relay 1", b"relay 2"}
        assert publisher._log.segments  # what was owed is in the stream now, and not mirrored yet
        last = (await tail.read({"one": "0-0"}))["one"][-1].id
        await tail.publish_replicated({"one": f"{await origin(redis, tail)}/{last}"})
        await publisher.maintain_once()
        assert not publisher._log.segments


async def test_a_log_is_not_released_before_redis_has_decided_about_all_of_it(redis, tmp_path, monkeypatch):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await publisher.record(record(1))
        tail = StreamReader(redis, KEYS, "pokt1s")
        last = (await tail.read({"one": "0-0"}))["one"][-1].id
        await tail.publish_replicated({"one": f"{await origin(redis, tail)}/{last}"})
        asked, decided, append = asyncio.Event(), asyncio.Event(), publisher._append

        async def delayed(*arguments):
            asked.set()
            await decided.wait()
            return await append(*arguments)

        monkeypatch.setattr(publisher, "_append", delayed)
        recording = publisher.submit(record(2))
        await asked.wait()
        publisher._log.rotate()
        await publisher.maintain_once()
        assert publisher._log.segments
        decided.set()
        await recording


async def test_relays_whose_append_was_cancelled_may_be_in_redis_and_are_owed(redis, tmp_path, monkeypatch):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        asked = asyncio.Event()

        async def hanging(*_):
            asked.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(publisher, "_append", hanging)
        recording = publisher.submit(record(1))
        await asked.wait()
    with pytest.raises(RedisUnavailable):
        await recording
    assert publisher.suppliers_with_unacknowledged == {"pokt1s"}


async def test_a_worker_owes_what_it_adopted_until_it_looked_at_redis(redis, tmp_path):
    dead = WriteAheadLog(tmp_path, "dead")
    dead.append([record(1, supplier="pokt1a"), record(2, supplier="pokt1b")])
    dead.close()
    async with publishing(redis, tmp_path, name="heir") as publisher:
        assert publisher.suppliers_with_unacknowledged == {"pokt1a", "pokt1b"}
        await publisher.maintain_once()
        assert publisher.suppliers_with_unacknowledged == set()
        publisher.submit(record(3, supplier="pokt1c"))
        assert publisher.suppliers_with_unacknowledged == {"pokt1c"}
        await publisher.drain()
        assert publisher.suppliers_with_unacknowledged == set()


async def test_a_worker_that_ends_waits_a_while_for_redis_to_take_what_it_is_owed(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await refused(publisher, redis, record(1))
        await publisher.drain(0.01)  # and no longer than it may
        assert publisher.suppliers_with_unacknowledged == {"pokt1s"}
        ending = asyncio.create_task(publisher.drain(30.0))
        await publisher.maintain_once()
        await ending
        assert await entries(redis) == [b"relay 1"]


async def test_what_is_being_appended_again_is_owed_until_it_is(redis, tmp_path, monkeypatch):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await refused(publisher, redis, record(1))
        append, seen = publisher._append, []

        async def watched(*arguments):
            seen.append(publisher.suppliers_with_unacknowledged)
            return await append(*arguments)

        monkeypatch.setattr(publisher, "_append", watched)
        await publisher.maintain_once()
        assert (seen, publisher.suppliers_with_unacknowledged) == ([{"pokt1s"}], set())


async def test_relays_that_queue_while_redis_hangs_do_not_wait_in_turn(tmp_path):
    with running_redis() as server:
        redis = connect(server.url, timeout_seconds=0.5)
        limits = replace(FAST, batch=5, append_timeout_seconds=1.0)
        async with publishing(redis, tmp_path, limits) as publisher:
            await publisher.maintain_once()
            server.child.send_signal(signal.SIGSTOP)
            began = asyncio.get_running_loop().time()
            queued = [publisher.submit(record(number)) for number in range(50)]
            found = await asyncio.gather(*queued, return_exceptions=True)
            seconds = asyncio.get_running_loop().time() - began
            server.child.send_signal(signal.SIGCONT)
            assert {type(error) for error in found} == {RedisUnavailable}
            assert seconds < 6.0, "each of the ten batches took a second and more"
        await redis.aclose()


def segments_of(log, numbers, sessions=1):
    """Write one segment for each relay."""
    for number in numbers:
        log.append([record(number, session=f"s{number % sessions}")])
        log.rotate()


async def test_a_segment_that_cannot_be_read_hinders_no_other_and_is_not_appended_without_end(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        segments_of(publisher._log, range(4), sessions=4)
        missing = publisher._log.segments[1]
        missing.path.unlink()
        for _ in range(3):
            await publisher.maintain_once()
        assert [await entries(redis, f"s{n}") for n in range(4)] == [[b"relay 0"], [], [b"relay 2"], [b"relay 3"]]
        assert publisher._log.damaged == 1
        assert publisher.suppliers_with_unacknowledged == set()
        await redis.hset(KEYS.closed("pokt1s"), mapping={f"s{n}": "done" for n in (0, 2, 3)})
        await publisher.maintain_once()
        assert publisher._log.segments == [missing], "the others are released"
        await redis.hset(KEYS.closed("pokt1s"), "s1", "done")
        await publisher.maintain_once()
        assert publisher._log.segments == []


async def test_a_replay_continues_with_the_segment_at_which_redis_failed(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        segments_of(publisher._log, range(5))
        append, calls = publisher._append, []

        async def failing(supplier, records, segment):
            calls.append(records[0].relay)
            if len(calls) == 3:
                raise RedisUnavailable("gone for a moment")
            return await append(supplier, records, segment)

        publisher._append = failing
        with pytest.raises(RedisUnavailable):
            await publisher.maintain_once()
        assert publisher.suppliers_with_unacknowledged == {"pokt1s"}
        await publisher.maintain_once()
        assert calls == [b"relay %d" % n for n in (0, 1, 2, 2, 3, 4)]
        assert await entries(redis, "s0") == [b"relay %d" % n for n in range(5)]
        assert publisher.suppliers_with_unacknowledged == set()


async def test_a_loss_during_a_replay_has_the_whole_log_appended_once_more(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        segments_of(publisher._log, range(3))
        append = publisher._append

        async def flushed(supplier, records, segment):
            if records[0].relay == b"relay 2":
                publisher._append = append
                await redis.flushall()
            return await append(supplier, records, segment)

        publisher._append = flushed
        await publisher.maintain_once()
        assert await entries(redis, "s0") == [b"relay 2"]
        await publisher.maintain_once()
        assert set(await entries(redis, "s0")) == {b"relay %d" % n for n in range(3)}
        before = publisher.counters.replayed
        await publisher.maintain_once()
        assert publisher.counters.replayed == before, "a loss is repaired once"


async def test_relays_that_were_recorded_during_the_replay_of_a_loss_are_appended_again_as_well(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await publisher.record(record(1, supplier="pokt1a"))
        await publisher.record(record(2, supplier="pokt1b"))
        await redis.flushall()
        await publisher.record(record(3, supplier="pokt1a"))
        publisher._log.rotate()
        await publisher.maintain_once()
        await publisher.maintain_once()
        assert set(await entries(redis, supplier="pokt1a")) == {b"relay 1", b"relay 3"}
        assert await entries(redis, supplier="pokt1b") == [b"relay 2"]


async def test_a_loss_within_the_replay_of_a_segment_has_that_segment_appended_once_more(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        publisher._log.append([record(number) for number in range(300)])  # more than one command
        append = publisher._append

        async def flushed(supplier, records, segment):
            if records[0].relay != b"relay 0":
                publisher._append = append
                await redis.flushall()
            return await append(supplier, records, segment)

        publisher._append = flushed
        await publisher.maintain_once()
        assert 0 < len(await entries(redis)) < 300
        await publisher.maintain_once()
        assert set(await entries(redis)) == {b"relay %d" % n for n in range(300)}


async def test_what_redis_evicted_is_appended_again_without_another_relay(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        for number in range(3):
            await publisher.record(record(number))
        await redis.delete(KEYS.stream("pokt1s", "one"), KEYS.sessions("pokt1s"), KEYS.incarnation("pokt1s"))
        for _ in range(31):  # they are looked for every half minute
            await publisher.maintain_once()
        assert set(await entries(redis)) == {b"relay 0", b"relay 1", b"relay 2"}
        before = publisher.counters.replayed
        for _ in range(31):
            await publisher.maintain_once()
        assert publisher.counters.replayed == before == 3


async def test_relays_of_a_supplier_that_redis_rejects_stay_owed_until_it_takes_them(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await redis.set(KEYS.closed("pokt1s"), "no hash")
        with pytest.raises(RedisUnavailable):
            await publisher.record(record(1))
        for _ in range(2):
            with pytest.raises(CommandRejected):
                await publisher.maintain_once()
            assert publisher.suppliers_with_unacknowledged == {"pokt1s"}
        await redis.delete(KEYS.closed("pokt1s"))
        await publisher.maintain_once()
        assert (await entries(redis), publisher.suppliers_with_unacknowledged) == ([b"relay 1"], set())
