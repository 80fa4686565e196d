"""When a relayer's worker that says nothing is shown, and when it is killed."""

import asyncio
import itertools
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile_clients import until
from pocket.api.problems import Problem, ProblemCode
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_relayer.process.liveness import (
    POLL_SECONDS,
    REPORT_SECONDS,
    LivenessDeadlines,
    SilenceTimer,
    WorkerState,
    assess,
)
from pocket_relayer.process.reports import (
    ReportReader,
    ReportWriter,
    WorkerReport,
    decode_report,
    encode_report,
    not_ready,
    silent_problem,
    summary,
)
from pocket_relayer.process.resting_pace import RestingPace
from pocket_relayer.process.supervisor import SupervisedWorker
from pocket_relayer.process.worker_problems import ServingState, worker_problem

PATIENCE = LivenessDeadlines.of(10.0)
NO_KEYS, NO_LOG, NO_BLOCK, NO_REDIS = (
    Problem(code=code, message="text")
    for code in (
        ProblemCode.NO_KEYS, ProblemCode.LOG_UNAVAILABLE, ProblemCode.NO_NEW_BLOCK, ProblemCode.REDIS_UNAVAILABLE,
    )
)  # fmt: skip


def watched(gaps, deadlines=PATIENCE, *, reported=True):
    """States at the looks that come after each of these gaps, in seconds, since the last report."""
    now, states = 100.0, []
    silence = SilenceTimer(now)
    if reported:
        silence.reset()
    for gap in gaps:
        now += gap
        states.append(assess(silence.poll(now), deadlines, reported=silence.reported))
    return states


@given(st.floats(3.0, 600.0))
def test_a_worker_is_hung_after_its_deadline_and_neither_sooner_nor_later(hung_seconds):
    looks = watched([POLL_SECONDS] * int(hung_seconds / POLL_SECONDS + 2), LivenessDeadlines.of(hung_seconds))
    first = looks.index(WorkerState.HUNG)
    assert hung_seconds <= (first + 1) * POLL_SECONDS < hung_seconds + 2 * POLL_SECONDS
    assert set(looks[first:]) == {WorkerState.HUNG}


@given(st.floats(3.0, 600.0), st.floats(0.0, 2.0))
def test_an_event_loop_that_stands_for_two_seconds_is_nobodys_concern(hung_seconds, lag):
    silent = min(2.5, REPORT_SECONDS + lag) - 0.001
    assert assess(silent, LivenessDeadlines.of(hung_seconds), reported=True) is WorkerState.RESPONDING


def test_silence_is_shown_within_seconds_long_before_it_is_ended():
    states = watched([POLL_SECONDS] * 20)
    assert states.index(WorkerState.SILENT) * POLL_SECONDS <= 3.0
    assert states.index(WorkerState.SILENT) < states.index(WorkerState.HUNG)


@given(st.lists(st.floats(0.0, 100_000.0), max_size=8))
def test_time_in_which_the_supervisor_itself_did_not_run_kills_no_worker(gaps):
    """A suspended machine, a frozen pod: each gap counts as one look."""
    assert WorkerState.HUNG not in watched(gaps)


@given(st.lists(st.booleans(), max_size=200))
def test_every_report_ends_the_silence(heard):
    silence, now, silent = SilenceTimer(0.0), 0.0, 0.0
    for report in heard:
        now += POLL_SECONDS
        if report:
            silence.reset()
            silent = 0.0
        silent += POLL_SECONDS
        assert silence.poll(now) == pytest.approx(silent)


def test_a_worker_that_has_not_reported_yet_has_two_minutes_to_start():
    polls = int(120 / POLL_SECONDS)
    states = watched([POLL_SECONDS] * (polls + 1), reported=False)
    assert set(states[: polls - 1]) == {WorkerState.STARTING}
    assert states[-1] is WorkerState.HUNG


def report(number, *problems, **more):
    return WorkerReport(number, 100 + number, "k", 5, 0, problems, addresses=["a"], **more)


def test_a_report_survives_the_pipe_and_a_line_of_another_version_is_none():
    row = report(1, NO_KEYS, leaving=["b"], recent={"served": 1.5})
    assert decode_report(encode_report(row)) == row
    for line in (b"", b"{}\n", b"nonsense\n", b'{"worker": "x"}\n'):
        assert decode_report(line) is None


def test_a_silent_worker_is_told_with_a_code_and_what_it_said_before_counts_no_more():
    hung = {1: silent_problem(1, 101, 10)}
    found = summary([report(0), report(1)], 2, hung)
    assert [problem["code"] for problem in found["problems"]] == ["WorkerHung"]
    assert "worker 1 (process 101)" in found["problems"][0]["message"]
    assert (found["complete"], found["workers"], found["keys"]) == (False, 1, "")
    assert found["leaving"] == ["a"], "it may go on recording once it runs again"


def test_a_worker_that_starts_says_nothing_of_keys_and_of_relays_that_may_lie_in_its_log():
    waits = Problem(code=ProblemCode.REDIS_UNAVAILABLE, message="waiting for Redis")
    starts = WorkerReport(1, 101, "", 0, 0, (waits,), starting=True)
    found = summary([report(0), starts], 2)
    assert (found["complete"], found["keys"], found["leaving"]) == (False, "", ["a"])
    assert found["problems"] == [{"code": "RedisUnavailable", "message": "waiting for Redis"}]


@pytest.mark.parametrize(
    ("reports", "silent", "codes"),
    [
        ([report(0), report(1)], (), []),
        ([report(0)], (), []),  # the other one starts, and does not listen yet
        ([report(0), report(1, NO_KEYS)], (), ["NoKeys"]),  # which rejects its share of the relays
        ([report(0), report(1, NO_LOG)], (), ["LogUnavailable"]),
        ([report(0), report(1, NO_BLOCK)], (), []),
        ([report(0, NO_BLOCK), report(1, NO_BLOCK)], (), ["NoNewBlock"]),
        ([report(0, NO_REDIS), report(1, NO_REDIS)], (), []),  # no other pod could serve these relays
        ([report(0), report(1, NO_REDIS, starting=True)], (), []),
        ([report(0, NO_REDIS, starting=True), report(1, NO_REDIS, starting=True)], (), ["RedisUnavailable"]),
        ([report(0, NO_KEYS), report(1, NO_KEYS)], (), ["NoKeys"]),
        ([], (), ["WorkerMissing"]),
        ([report(0), report(1)], (1,), ["WorkerHung"]),
    ],
)
def test_a_pod_is_ready_while_one_worker_serves_and_none_hangs_or_rejects_every_relay(reports, silent, codes):
    found = not_ready(reports, 2, {number: silent_problem(number, 1, 10) for number in silent})
    assert [problem.code for problem in found] == codes


SOUND = ServingState(
    draining=False,
    keys=1,
    keys_dir="/keys",
    signer_problem="",
    log_problem="",
    stale=False,
    redis_full=False,
    redis_error="",
    strict=True,
)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"redis_error": "timeout"}, "RedisUnavailable"),
        ({"redis_error": "timeout", "strict": False}, None),  # fast recording serves without Redis
        ({"redis_full": True, "strict": False}, "RedisFull"),
        ({"redis_error": "timeout", "redis_full": True, "stale": True}, "NoNewBlock"),
        ({"redis_full": True, "log_problem": "full"}, "LogUnavailable"),
        ({"log_problem": "full", "signer_problem": "refused"}, "SignerUnavailable"),
        ({"log_problem": "full", "keys": 0, "signer_problem": "refused"}, "NoKeys"),
        ({"keys": 0, "draining": True}, "Draining"),
    ],
)
def test_a_worker_reports_its_own_problem_before_one_that_all_pods_share(changes, code):
    found = worker_problem(replace(SOUND, **changes))
    assert (found and found.code) == code


async def test_a_recorder_knows_since_its_last_heartbeat_that_redis_is_away(tmp_path):
    log = WriteAheadLog(tmp_path, "w")
    redis = connect("redis://127.0.0.1:1")
    recorder = RelayRecorder(redis, RedisKeys("test"), log)
    maintaining = asyncio.create_task(recorder.maintain(0))
    await until(lambda: recorder.redis_error)
    maintaining.cancel()
    await asyncio.gather(maintaining, return_exceptions=True)
    log.close()
    await redis.aclose()


async def test_reports_are_left_out_while_nobody_reads_and_nothing_blocks_or_grows():
    read_end, write_end = os.pipe()
    writer = ReportWriter(write_end)
    await writer.open()
    large = report(1, leaving=["x" * 50] * 2000)
    for _ in range(50):
        writer.write(large)
        await asyncio.sleep(0)
    assert writer._transport.get_write_buffer_size() <= len(encode_report(large))
    os.close(read_end)  # the supervisor is gone
    async with asyncio.timeout(5):
        while not writer._transport.is_closing():
            writer.write(large)
            await asyncio.sleep(0)
    writer.write(large)
    writer.close()


@pytest.fixture
def report_pipe():
    read_end, write_end = os.pipe()
    reports = ReportReader(read_end)
    yield reports, lambda data: os.write(write_end, data)
    os.close(write_end)
    if reports._descriptor >= 0:
        reports.close()


async def test_a_worker_that_nobody_supervises_reports_to_nobody():
    writer = ReportWriter(None)
    await writer.open()
    writer.write(report(1))
    writer.close()


def test_a_supervisor_keeps_the_last_whole_report_of_a_worker_that_ended_while_it_wrote(report_pipe):
    reports, write = report_pipe
    worker = SupervisedWorker(0, None, reports, SilenceTimer(0.0))
    assert worker.receive() is None
    assert not worker.has_served
    assert not worker.silence.reported
    write(encode_report(report(7)) + encode_report(report(8)) + b"\n" + encode_report(report(9))[:-5])
    assert worker.receive() == report(8)
    assert worker.has_served
    assert worker.silence.reported
    assert reports.is_in_a_line
    write(encode_report(report(9))[-5:])
    reports.close()
    assert worker.receive() == report(9)
    assert not reports.is_in_a_line


async def test_a_beat_ends_the_silence_and_leaves_the_last_report():
    read_end, write_end = os.pipe()
    writer, worker = ReportWriter(write_end), SupervisedWorker(0, None, ReportReader(read_end), SilenceTimer(0.0))
    writer.beat()  # before the pipe is open
    await writer.open()
    writer.write(report(4))
    assert worker.receive() == report(4)
    worker.silence.poll(2.0)
    writer.beat()
    assert worker.receive() == report(4)
    assert worker.silence.poll(2.0) == 0.0
    writer.close()
    worker.reports.close()


def test_what_rests_is_due_at_every_change_and_every_fifth_time():
    pace, states = RestingPace(), [*"aaaaaaa", *"bb", *"aaaaaa"]
    assert [number for number, state in enumerate(states) if pace.is_due(state)] == [0, 5, 7, 9, 14]
    assert RestingPace().is_due(None)


@given(st.lists(st.integers(1, 9), max_size=6), st.lists(st.integers(1, 800), max_size=4))
def test_a_report_is_read_however_a_pipe_cuts_it(workers, cuts):
    read_end, write_end = os.pipe()
    reader, sent = ReportReader(read_end), b"".join(encode_report(report(number)) for number in workers)
    for begin, end in itertools.pairwise(sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})):
        os.write(write_end, sent[begin:end])
        assert reader.receive()
        assert not reader.receive(), "nothing has come since"
    assert reader.report == (report(workers[-1]) if workers else None)
    os.close(write_end)
    assert not reader.receive(), "an end is no sign of life"
    reader.close()


def test_a_line_without_end_takes_bounded_memory_and_counts_as_a_sign_of_life(report_pipe, monkeypatch):
    monkeypatch.setattr("pocket_relayer.process.reports.LARGEST_LINE", 100_000)
    reports, write = report_pipe
    for _ in range(10):
        write(b"{" * 60_000)
        assert reports.receive()
    assert len(reports._begun) <= 160_000
    write(b"\n" + encode_report(report(3)))
    reports.receive()
    assert reports.report == report(3)
