import asyncio
import errno
import resource
import threading
import time
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from pocket.redis_store import log_probe
from pocket.redis_store.log_records import WalRecord, decode_records, encode_record
from pocket.redis_store.store_errors import LogUnavailable
from pocket.redis_store.write_ahead_log import WriteAheadLog

RECORDS = st.builds(
    WalRecord, st.text("pokt1abc", max_size=20), st.text(max_size=20), st.binary(max_size=40), st.binary(max_size=60)
)


@given(st.lists(RECORDS, max_size=6), st.integers(0, 400))
def test_records_survive_and_a_torn_tail_loses_only_itself(records, cut):
    encoded = [encode_record(r) for r in records]
    data = b"".join(encoded)
    assert list(decode_records(data)) == records
    torn = data[: min(cut, len(data))]
    whole = 0
    while whole < len(encoded) and len(b"".join(encoded[: whole + 1])) <= len(torn):
        whole += 1
    assert list(decode_records(torn)) == records[:whole]


@given(st.binary(max_size=80))
def test_arbitrary_bytes_never_crash_the_reader(data):
    list(decode_records(data))


@pytest.mark.parametrize("zeros", [7, 8, 9, 4096])
def test_zeros_that_a_power_cut_leaves_end_the_reading(zeros):
    good = WalRecord("s", "i", b"h", b"r")
    assert list(decode_records(encode_record(good) + bytes(zeros))) == [good]


ADDRESSES = st.text("qpzry9x8gf2tvdw0s3jn54khce6mua7l", min_size=38, max_size=38).map("pokt1".__add__)
REAL_RECORDS = st.builds(
    WalRecord, ADDRESSES, st.text("0123456789abcdef", min_size=64, max_size=64), st.binary(max_size=40), st.binary()
)


@given(st.lists(REAL_RECORDS, min_size=2, max_size=6), st.data())
def test_a_damaged_record_is_told_and_hides_no_other_whatever_bits_of_it_are_wrong(records, data):
    encoded = [bytearray(encode_record(record)) for record in records]
    damaged = data.draw(st.integers(0, len(records) - 2))
    at, bits = data.draw(st.integers(0, len(encoded[damaged]) - 1)), data.draw(st.integers(1, 255))
    encoded[damaged][at] ^= bits
    assert list(decode_records(bytes(b"".join(encoded)))) == [*records[:damaged], None, *records[damaged + 1 :]]


def test_a_search_for_the_next_record_is_bounded_by_the_size_of_the_file():
    trap = (300_000).to_bytes(4, "big") + bytes(4) + b"+" + rows(1)[0].supplier.encode().ljust(5) + b"pokt1" + b"q" * 38
    body = trap * 8_000
    data = bytearray(encode_record(WalRecord("s", "i", b"h", body)))
    data[0] ^= 1
    begun = time.process_time()
    list(decode_records(bytes(data)))
    assert time.process_time() - begun < 1.5


def test_damaged_records_are_counted_once_and_logged_with_their_file(tmp_path):
    log = WriteAheadLog(tmp_path, "w")
    segment = log.append(rows(3))
    data = bytearray(segment.path.read_bytes())
    data[len(data) // 2] ^= 1
    segment.path.write_bytes(data)
    with structlog.testing.capture_logs() as told:
        for _ in range(2):
            assert log.load(segment) == ([rows(3)[0], rows(3)[2]], None)
    assert log.damaged_records == 1
    assert [(row["log_level"], row["file"], row["places"]) for row in told] == [("error", str(segment.path), 1)]
    log.close()
    again = WriteAheadLog(tmp_path, "w")
    assert again.damaged_records == 1, "a new worker tells it, too"
    again.close()


def rows(count):
    return [WalRecord("s", "session", b"h", bytes([i])) for i in range(count)]


def test_a_new_worker_adopts_the_log_of_a_dead_one_but_not_of_a_living_one(tmp_path):
    living = WriteAheadLog(tmp_path, "living")
    living.append(rows(1))
    dead = WriteAheadLog(tmp_path, "dead")
    dead.append(rows(3))
    dead.close()
    heir = WriteAheadLog(tmp_path, "heir")
    assert [list(s.read()) for s in heir.segments] == [rows(3)]
    assert not (tmp_path / "dead").exists()
    assert (tmp_path / "living").exists()
    assert heir.segments[0].sessions == {("s", "session")}
    heir.close()
    living.close()


def broken_disk(*_):
    raise OSError


@pytest.mark.parametrize("truncates", [True, False])
def test_records_after_one_that_did_not_fit_are_read_again(tmp_path, monkeypatch, truncates):
    log = WriteAheadLog(tmp_path, "w")
    first, too_large, last = rows(3)
    used = log.append([first]).size
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 10, limit[1]))
    try:
        with monkeypatch.context() as broken:
            if not truncates:
                broken.setattr("os.ftruncate", broken_disk)
            with pytest.raises(LogUnavailable if truncates else OSError, match="free up space"):
                log.append([too_large])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    log.append([last])
    assert [record for segment in log.segments for record in segment.read()] == [first, last]
    log.close()


def test_segments_rotate_and_only_ended_ones_are_released(tmp_path):
    log = WriteAheadLog(tmp_path, "w", segment_bytes=40)
    first = log.append(rows(2))
    second = log.append(rows(2))
    assert first is not second
    with pytest.raises(ValueError, match="active"):
        log.release(second)
    log.release(first)
    assert not first.path.exists()
    assert log.size == second.size > 0
    log.rotate()
    assert log.active is None
    log.release(second)
    assert log.size == 0
    log.append(rows(1))
    log.close()
    again = WriteAheadLog(tmp_path, "w")
    assert [list(s.read()) for s in again.segments] == [rows(1)]
    again.close()


def test_the_more_sessions_a_log_has_the_rarer_all_of_them_are_looked_for_in_redis(tmp_path):
    log = WriteAheadLog(tmp_path, "w")
    assert log.beats_between_looks(30) == 2
    log.append([WalRecord("s", f"{number}", b"h", b"r") for number in range(320)])
    assert log.beats_between_looks(30) == 12
    assert log.beats_between_looks(10) == 10
    log.close()


def unreadable(path):
    """Replace a file by one that no read succeeds on, whoever runs the test."""
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("folder", ["heir", "dead"])
def test_a_segment_that_cannot_be_read_is_set_aside_and_hinders_no_other(tmp_path, folder):
    before = WriteAheadLog(tmp_path, folder)
    for row in rows(3):
        before.append([row])
        before.rotate()
    before.close()
    unreadable(before.segments[1].path)
    heir = WriteAheadLog(tmp_path, "heir")
    assert [record for segment in heir.segments for record in segment.read()] == [rows(3)[0], rows(3)[2]]
    assert heir.damaged == 1
    assert [path.name for path in tmp_path.glob("*.damaged")] == [f"{folder}-segment-00000002.damaged"]
    assert folder == "heir" or not (tmp_path / folder).exists()
    heir.close()
    later = WriteAheadLog(tmp_path, "later")
    assert (len(later.segments), later.damaged) == (2, 0)
    later.close()


def test_workers_that_start_and_end_at_once_never_share_or_lose_a_folder(tmp_path):
    written, mistakes = [], []

    def live(name):
        for turn in range(40):
            try:
                log = WriteAheadLog(tmp_path, f"{name}-{turn}")
            except FileNotFoundError as error:
                mistakes.append(error)
                continue
            row = WalRecord(name, f"{turn}", b"h", b"r")
            try:
                log.append([row])
            except OSError as error:
                mistakes.append(error)
            else:
                written.append(row)
            log.close()

    threads = [threading.Thread(target=live, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heir = WriteAheadLog(tmp_path, "heir")
    found = [record for segment in heir.segments for record in segment.read()]
    heir.close()
    assert mistakes == []
    assert sorted(found, key=repr) == sorted(written, key=repr)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [tmp_path / "heir"]


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_worker_without_space_for_a_folder_reads_the_logs_of_dead_ones_and_writes_once_there_is_space(
    tmp_path, monkeypatch
):
    dead = WriteAheadLog(tmp_path, "dead")
    dead.append(rows(2))
    dead.close()
    with monkeypatch.context() as volume:
        volume.setattr(Path, "mkdir", full)
        heir = WriteAheadLog(tmp_path, "heir")
        assert [list(segment.read()) for segment in heir.segments] == [rows(2)]
        assert "takes no writes" in heir.problem(0)
        with pytest.raises(LogUnavailable):
            heir.append(rows(1))
    second = WriteAheadLog(tmp_path, "second")
    assert second.segments == [], "the dead worker's folder belongs to its first heir"
    heir.release(heir.segments[0])
    assert (heir.open_problem(), heir.problem(0)) == ("", "")
    heir.append(rows(1))
    assert [list(segment.read()) for segment in heir.segments] == [rows(1)]
    heir.close()
    second.close()
    third = WriteAheadLog(tmp_path, "third")
    assert [list(segment.read()) for segment in third.segments] == [rows(1)]
    assert not (tmp_path / "dead").exists()
    third.close()


def test_a_volume_that_takes_no_writes_or_has_too_little_space_is_a_problem_until_a_probe_succeeds(tmp_path):
    log = WriteAheadLog(tmp_path, "w")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        assert "takes no writes" in log.problem(0)
        with pytest.raises(LogUnavailable):
            log.append(rows(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert log.problem(0) == ""
    assert "bytes are free" in log.problem(2**62)
    assert [path.name for path in (tmp_path / "w").iterdir() if path.name == "probe"] == []
    log.close()


def test_a_segment_that_can_be_read_again_is_taken_back(tmp_path):
    before = WriteAheadLog(tmp_path, "dead")
    before.append(rows(2))
    before.close()
    path = before.segments[0].path
    kept = path.read_bytes()
    unreadable(path)
    heir = WriteAheadLog(tmp_path, "heir")
    assert (heir.damaged, heir.segments, heir.readable_again()) == (1, [], [])
    aside = next(tmp_path.glob("*.damaged"))
    aside.unlink()
    aside.write_bytes(kept)
    found, other = heir.readable_again(), WriteAheadLog(tmp_path, "other")
    again = other.readable_again()
    heir.take_back(found)
    other.take_back(again)
    assert (heir.damaged, other.segments) == (0, []), "only one worker takes it"
    assert [(list(s.read()), s.sessions) for s in heir.segments] == [(rows(2), {("s", "session")})]
    heir.append(rows(1))
    assert heir.active is heir.segments[-1]
    heir.close()
    other.close()


def test_what_may_be_lost_of_a_segment_that_could_not_be_read_is_appended_again(tmp_path):
    log = WriteAheadLog(tmp_path, "worker")
    segment = log.append(rows(2))
    segment.histories["s"] = "history"
    log.rotate()
    log.report_damage(segment, OSError("no sector"))
    assert log.damaged == 1
    log.take_back(log.readable_again())
    assert (log.damaged, segment.damaged, segment.histories) == (0, False, {}), "due in every history of Redis"
    log.close()


class HalfReadable:
    """A file whose reads fail after so many bytes."""

    def __init__(self, file, left):
        self.file, self.left = file, left

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def read(self, size):
        if not self.left:
            raise OSError("I/O error")
        data = self.file.read(min(size, self.left))
        self.left -= len(data)
        return data


def test_records_before_an_unreadable_part_are_kept(tmp_path, monkeypatch):
    before = WriteAheadLog(tmp_path, "dead")
    segment = before.append(rows(3))
    before.close()
    real = Path.open

    def failing(path, mode="r", **options):
        file = real(path, mode, **options)
        half = segment.size - 1 if mode == "rb" and path.name == segment.path.name and "dead" in str(path) else None
        return file if half is None else HalfReadable(file, half)

    with monkeypatch.context() as during:
        during.setattr(Path, "open", failing)
        with pytest.raises(OSError, match="I/O error"):
            list(segment.read())
        heir = WriteAheadLog(tmp_path, "heir")
    assert [list(s.read()) for s in heir.segments] == [rows(2)]
    assert heir.damaged == 1
    assert heir.active is None
    found = heir.readable_again()
    heir.take_back(found)
    assert [list(s.read()) for s in heir.segments] == [rows(3), rows(2)]
    heir.close()


async def test_a_disk_that_hangs_is_reported_and_holds_one_thread_and_no_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(log_probe, "_SECONDS", 0.05)
    log, gate, threads = WriteAheadLog(tmp_path, "w"), threading.Event(), []
    real = log.problem

    def hanging(reserve):
        threads.append(threading.current_thread())
        gate.wait(10)
        return real(reserve)

    monkeypatch.setattr(log, "problem", hanging)
    probe = log_probe.LogProbe(log, 0)
    assert [bool(await probe.problem()) for _ in range(3)] == [True] * 3
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()
    gate.set()
    async with asyncio.timeout(5):
        while await probe.problem():
            pass
    log.close()
