"""What a recorder does at a heartbeat, and which relays of its log it appends again after a loss."""

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from pocket.redis_store import log_positions, relay_recorder
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.recorder_types import RecorderLimits
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.server_info import PrimaryStates, RedisInfo
from pocket.redis_store.store_errors import (
    CommandRejected,
    LogUnavailable,
    RedisTrouble,
    RedisUnavailable,
    SessionClosed,
)
from pocket.redis_store.write_ahead_log import WriteAheadLog
from supplier_workers import until

KEYS = RedisKeys("heartbeat")
INFO = RedisInfo("first", True, "noeviction", 10, 100)


@dataclass
class Redis:
    """Takes relays, in a life of each supplier that the test changes, and has the state that the test sets."""

    life: str = "one"
    replies: list = field(default_factory=list)
    """What the script returns for the streams, before it returns entry ids."""
    gate: asyncio.Event | None = None
    errors: list = field(default_factory=list)
    appended: list = field(default_factory=list)
    info: RedisInfo = INFO
    failure: RedisUnavailable | None = None
    inspected: int = 0
    numbers: itertools.count = field(default_factory=itertools.count)

    async def evalsha(self, digest, number, *given):
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        if self.replies:
            return [self.life.encode(), *self.replies.pop(0)]
        names, arguments = given[:number], given[number:]
        self.appended.append(names[1].partition("{")[2].partition("}")[0])
        streams = len(names) - 4
        assert arguments
        return [self.life.encode(), *[b"%d-0" % (1000 + next(self.numbers))] * streams]

    async def inspect(self, _):
        self.inspected += 1
        return PrimaryStates({None: self.info}, failure=self.failure)


@pytest.fixture
async def recording(tmp_path, monkeypatch):
    """Return a function that makes a running recorder of one Redis and one log."""
    tasks, logs = [], []

    async def marks(redis, keys, pairs):
        return {}

    def made(redis, **limits):
        monkeypatch.setattr(relay_recorder, "inspect_primaries", redis.inspect)
        monkeypatch.setattr(relay_recorder, "read_marks", marks)
        logs.append(WriteAheadLog(tmp_path / f"log-{len(logs)}", "w"))
        replays = []
        recorder = RelayRecorder(redis, KEYS, logs[-1], RecorderLimits(**limits), replays.append)
        recorder.replays, recorder.found = replays, []

        async def find(known, pairs):
            recorder.found.append((dict(known), set(pairs)))
            return recorder.lost_in_redis & set(known)

        recorder.lost_in_redis = set()
        recorder._stream_losses = SimpleNamespace(find=find)
        recorder.task = asyncio.create_task(recorder.run())
        tasks.append(recorder.task)
        return recorder

    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for log in logs:
        log.close()


def record(supplier="alice", session="s", relay=b"relay"):
    return WalRecord(supplier, session, b"header", relay, 10)


async def test_a_log_is_appended_once_to_each_history_of_redis(recording):
    redis = Redis()
    recorder = recording(redis)
    await recorder.record(record())
    assert recorder.suppliers_with_unacknowledged == {"alice"}, "to which history it was appended is not known"
    for _ in range(2):
        await recorder.maintain_once()
    assert (recorder.replays, len(redis.appended)) == (["first contact with Redis"], 2)
    await recorder.record(record(relay=b"later"))
    await recorder.maintain_once()
    assert (recorder.suppliers_with_unacknowledged, len(redis.appended)) == (set(), 3)
    redis.info = replace(INFO, history_id="second")
    await recorder.maintain_once()
    assert recorder.replays[1:] == ["Redis was restarted"]
    await recorder.maintain_once()
    assert len(recorder.replays) == 2
    assert recorder.counters.replayed == 1 + 2


@pytest.mark.parametrize("supplier", ["alice", "bob"])
async def test_a_supplier_whose_redis_lost_its_data_has_its_log_appended_again(recording, supplier):
    redis = Redis()
    recorder = recording(redis)
    for name in ("alice", "bob"):
        await recorder.record(record(name))
    await recorder.maintain_once()
    assert recorder.suppliers_with_unacknowledged == set()
    redis.life = "two"
    await recorder.record(record(supplier, relay=b"later"))
    assert recorder.suppliers_with_unacknowledged == {supplier}
    before = len(redis.appended)
    await recorder.maintain_once()
    assert redis.appended[before:] == [redis.appended[("alice", "bob").index(supplier)]]
    assert recorder.suppliers_with_unacknowledged == set()


@pytest.mark.parametrize("losses", [1, 2])
async def test_a_loss_before_a_suppliers_part_of_a_replay_is_repaired_by_it_and_a_later_one_is_due_again(
    recording, losses
):
    redis = Redis()
    recorder = recording(redis)
    await recorder.record(record())
    await recorder.maintain_once()
    (segment,) = recorder._log.segments
    assert segment.pending == 0
    recorder._replayed = set()
    lives = ["two", "three"][:losses]
    for life in lives:
        redis.life = life
        await recorder._append("alice", [record()], segment)
    assert recorder._losses["alice"] == losses - 1
    assert segment.histories["alice"] == ""
    recorder._replayed = None
    redis.life = "four"
    await recorder._append("alice", [record()], segment)
    assert recorder._losses["alice"] == losses


@pytest.mark.parametrize(
    ("trouble", "tries"), [(RedisTrouble.OUT_OF_MEMORY, 1), (RedisTrouble.DISK, 1), (RedisTrouble.REJECTED, 1),
                           (RedisTrouble.LOADING, 3)],
)  # fmt: skip
async def test_an_append_is_tried_again_only_where_time_helps(recording, trouble, tries):
    redis = Redis(errors=[RedisUnavailable("no", trouble)] * 2)
    recorder = recording(redis, retry_seconds=0.0, append_timeout_seconds=60.0)
    if tries == 1:
        with pytest.raises(RedisUnavailable) as caught:
            await recorder.record(record())
        assert caught.value.trouble is trouble
        assert (len(redis.errors), redis.appended) == (1, [])
        assert recorder._log.segments[0].unacknowledged == {("alice", "s")}
        redis.errors.clear()
        await recorder.maintain_once()
        assert recorder._log.segments[0].unacknowledged == set()
        assert recorder.replays == ["first contact with Redis"]
    else:
        await recorder.record(record())
        assert (redis.errors, len(redis.appended)) == ([], 1)


async def test_what_redis_did_not_acknowledge_is_appended_again_and_nothing_else(recording):
    redis = Redis()
    recorder = recording(redis)
    for name in ("alice", "bob"):
        await recorder.record(record(name))
    await recorder.maintain_once()
    redis.errors = [RedisUnavailable("full", RedisTrouble.OUT_OF_MEMORY)]
    with pytest.raises(RedisUnavailable):
        await recorder.record(record(relay=b"later"))
    assert recorder.suppliers_with_unacknowledged == {"alice"}
    before = len(redis.appended)
    await recorder.maintain_once()
    assert (len(redis.appended) - before, recorder.suppliers_with_unacknowledged) == (1, set())
    assert recorder.replays[1:] == ["Redis did not acknowledge all relays"]


async def test_a_heartbeat_tells_how_full_redis_is_and_which_primary_failed(recording):
    redis = Redis(info=replace(INFO, used_memory=96))
    recorder = recording(redis, memory_high_water_mark=0.9)
    await recorder.maintain_once()
    assert (recorder.redis_full, recorder.overloaded) == (True, True)
    redis.info, redis.failure = INFO, RedisUnavailable("one primary is away")
    with pytest.raises(RedisUnavailable, match="one primary"):
        await recorder.maintain_once()
    assert (recorder.redis_full, recorder.overloaded) == (False, False)


async def test_a_log_that_takes_no_relays_is_probed_until_it_does(recording):
    problems = ["the disk is full", "the disk is full", ""]
    recorder = recording(Redis())

    async def problem():
        return problems.pop(0)

    recorder._log_probe = SimpleNamespace(problem=problem)
    shown = []
    for _ in range(3):
        await recorder.maintain_once()
        shown.append((recorder.log_problem, recorder.overloaded))
    assert shown == [("the disk is full", True)] * 2 + [("", False)]


@pytest.mark.parametrize(("limit", "looks"), [(2, range(0, 62, 2)), (7, range(0, 62, 7)), (30, [0, 30, 60])])
async def test_lost_streams_are_looked_for_by_their_number_and_damaged_segments_every_thirtieth_time(
    recording, limit, looks
):
    recorder, readable, limits = recording(Redis()), [], set()
    await recorder.record(record())
    take_back = recorder._log.readable_again
    recorder._log.readable_again = lambda: readable.append(recorder._beats) or take_back()
    recorder._log.beats_between_looks = lambda most: limits.add(most) or limit
    found = []
    for beat in range(62):
        recorder.found.clear()
        await recorder.maintain_once()
        found += [beat] if any(known for known, _ in recorder.found) or (beat == 0 and recorder.found) else []
    assert (found, readable, limits) == (list(looks), [0, 30, 60], {30})


async def test_what_redis_lost_without_a_restart_is_appended_again_and_all_suppliers_are_looked_at_next(recording):
    recorder = recording(Redis())
    for name in ("alice", "bob"):
        await recorder.record(record(name))
    await recorder.maintain_once()
    recorder.lost_in_redis = {"alice"}
    recorder._log.beats_between_looks = lambda most: 1000
    recorder._beats = 1
    await recorder.maintain_once()
    assert recorder.found[1:] == [], "it is not looked at in each heartbeat"
    recorder._suspicious = True
    await recorder.maintain_once()
    assert recorder.found[1:] == [({"alice": "one", "bob": "one"}, {("alice", "s"), ("bob", "s")})]
    assert (recorder.counters.replayed, recorder.suppliers_with_unacknowledged) == (2 + 1, set())
    recorder.lost_in_redis = set()
    await recorder.maintain_once()
    assert len(recorder.found) == 3, "once more, as others may be concerned"
    await recorder.maintain_once()
    assert len(recorder.found) == 3


@pytest.mark.parametrize(
    ("change", "resting"),
    [
        ({}, True), ({"log_problem": "full"}, False), ({"redis_error": "away"}, False), ({"_memory_ratio": 0.72}, True),
        ({"_memory_ratio": 0.73}, False),
    ],
)  # fmt: skip
async def test_a_recorder_rests_while_nothing_can_be_lost_and_nothing_can_end(recording, change, resting):
    recorder = recording(Redis(), memory_high_water_mark=0.9)
    for name, value in change.items():
        setattr(recorder, name, value)
    assert recorder._resting is resting
    await recorder.record(record())
    assert recorder._resting is False


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_a_primary_that_failed_is_told_whatever_is_appended_to_others(recording, acknowledged):
    redis = Redis()
    recorder = recording(redis)
    await recorder.record(record())
    await recorder.maintain_once()
    redis.errors = [] if acknowledged else [RedisUnavailable("full", RedisTrouble.OUT_OF_MEMORY)]
    with contextlib.suppress(RedisUnavailable):
        await recorder.record(record(relay=b"later"))
    redis.failure = RedisUnavailable("one primary is away")
    for _ in range(2):
        with pytest.raises(RedisUnavailable, match="one primary"):
            await recorder.maintain_once()
    assert recorder.suppliers_with_unacknowledged == set()


async def test_a_relay_whose_recorder_ends_before_redis_answers_is_in_the_log_as_not_acknowledged(recording):
    redis = Redis(gate=asyncio.Event())
    recorder = recording(redis)
    waiting = recorder.submit(record())
    await until(lambda: recorder._log.segments)
    (segment,) = recorder._log.segments
    assert (segment.pending, segment.unacknowledged) == (1, set())
    recorder.task.cancel()
    await asyncio.wait({recorder.task})
    assert (segment.pending, segment.unacknowledged) == (0, {("alice", "s")})
    with pytest.raises(RedisUnavailable):
        await waiting
    assert recorder.waiting == 0


@pytest.mark.parametrize(("reply", "error", "counted"), [
    (0, SessionClosed, "refused_closed"), (None, SessionClosed, "refused_closed"), (-1, CommandRejected, "failed"),
    (b"7-0", None, "appended"),
])  # fmt: skip
async def test_each_session_takes_its_relays_or_says_why_not_and_delays_no_other(recording, reply, error, counted):
    redis = Redis(replies=[[reply, b"8-0"]])
    recorder = recording(redis)
    relays = [recorder.submit(record(session=name)) for name in ("one", "two", "one")]
    outcomes = await asyncio.gather(*relays, return_exceptions=True)
    assert outcomes[1] is None
    for outcome in (outcomes[0], outcomes[2]):
        assert outcome is None if error is None else type(outcome) is error
    counters = recorder.counters
    rows = {"refused_closed": counters.refused_closed, "failed": counters.failed, "appended": counters.appended}
    assert rows == {"refused_closed": 0, "failed": 0, "appended": 1, counted: 3 if counted == "appended" else 2}
    (segment,) = recorder._log.segments
    assert segment.unacknowledged == ({("alice", "one")} if reply == -1 else set())
    assert (("alice", "one") in segment.rejected) is (reply == 0)


async def test_miners_are_notified_of_the_suppliers_of_each_batch_and_replay(recording):
    told, redis = [], Redis()

    class Notifier:
        async def notify(self, suppliers):
            told.append(sorted(suppliers))

    recorder = recording(redis)
    recorder._notifier = Notifier()
    await asyncio.gather(*(recorder.submit(record(name)) for name in ("alice", "bob")))
    await recorder.settled()
    await asyncio.sleep(0)
    assert told == [["alice", "bob"]]
    await recorder.maintain_once()
    assert told[1:] == [["alice", "bob"]]


@pytest.mark.parametrize("taken", [True, False])
async def test_a_recorder_that_stops_waits_for_what_redis_takes_and_no_longer_than_it_may(recording, taken):
    redis = Redis(errors=[RedisUnavailable("full", RedisTrouble.OUT_OF_MEMORY)])
    recorder = recording(redis, retry_seconds=0.001)
    with pytest.raises(RedisUnavailable):
        await recorder.record(record())
    draining = asyncio.create_task(recorder.drain(60.0 if taken else 0.005))
    await asyncio.sleep(0)
    assert not draining.done()
    if taken:
        await recorder.maintain_once()
    await draining
    assert recorder.suppliers_with_unacknowledged == (set() if taken else {"alice"})


@pytest.mark.parametrize(
    ("busy", "linger", "stopping", "together"),
    [(0.85, 0.05, False, True), (0.84, 0.05, False, False), (0.9, 0.0, False, False), (0.9, 0.05, True, False)],
)
async def test_relays_are_collected_for_a_moment_only_by_a_busy_process_that_goes_on(
    recording, busy, linger, stopping, together
):
    recorder = recording(Redis(), linger_seconds=linger, linger_above=0.85)
    recorder._busyness, recorder._stopping = SimpleNamespace(read=lambda now: busy), stopping
    first = recorder.submit(record())
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.gather(first, recorder.submit(record(relay=b"later")))
    assert (recorder._redis.appended == ["alice"]) is together


async def test_a_batch_that_never_got_its_turn_is_not_acknowledged_either(recording):
    recorder = recording(Redis())
    async with recorder._flushing:
        waiting = recorder.submit(record())
        await until(lambda: recorder._log.segments)
        (segment,) = recorder._log.segments
        recorder.task.cancel()
        await asyncio.wait({recorder.task})
    assert (segment.pending, segment.unacknowledged) == (0, {("alice", "s")})
    with pytest.raises(RedisUnavailable):
        await waiting


async def test_what_was_appended_before_a_loss_within_its_own_replay_is_due_again(recording, monkeypatch):
    monkeypatch.setattr(log_positions, "_REPLAY_BATCH", 1)
    redis = Redis()
    recorder = recording(redis)
    for number in range(3):
        await recorder.record(record(relay=b"%d" % number))
    redis.replies = [[b"2000-0"]] * 2
    evalsha, redis.replays = redis.evalsha, 0

    async def loses(*given):
        redis.replays += 1
        redis.life = "two" if redis.replays >= 2 else "one"
        return await evalsha(*given)

    redis.evalsha = loses
    await recorder.maintain_once()
    assert (redis.replays, recorder.suppliers_with_unacknowledged) == (3, {"alice"})
    await recorder.maintain_once()
    assert (redis.replays, recorder.suppliers_with_unacknowledged) == (6, set())


async def test_a_relay_that_nobody_waits_for_keeps_no_other_from_being_recorded(recording):
    redis = Redis(gate=asyncio.Event())
    recorder = recording(redis)
    relays = [recorder.submit(record(relay=b"%d" % number)) for number in range(3)]
    await until(lambda: recorder._log.segments)
    relays[0].cancel()
    redis.gate.set()
    await asyncio.gather(*relays[1:])
    assert recorder.counters.appended == 2


@pytest.mark.parametrize("error", [LogUnavailable("full"), OSError("I/O")])
async def test_without_a_log_a_relay_is_refused_and_nothing_is_owed_for_it(recording, error):
    def append(records):
        raise error

    recorder = recording(Redis())
    recorder._log.append = append
    with pytest.raises(LogUnavailable if isinstance(error, LogUnavailable) else RedisUnavailable):
        await recorder.record(record())
    await until(recorder._queue.settled.is_set)
    assert (recorder.log_problem, recorder.suppliers_with_unacknowledged) == (str(error), set())
