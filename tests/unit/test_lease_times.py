"""Durations of Leases, locks of folders, and timeouts of transactions, to the last digit."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.coordination.elector import LeaseTiming, member_location, member_name, timing_for_blocks
from pocket.coordination.file_lock import FileLock, LockHeld
from pocket.protocol.transactions.build import Timestamp
from pocket.protocol.transactions.timeouts import UnorderedNonceAllocator, timeout_duration_seconds


@pytest.mark.parametrize(
    ("block_seconds", "lease"), [(0.1, 3.0), (0.75, 3.0), (0.76, 3.04), (3.0, 12.0), (3.75, 15.0), (3.76, 15.0)]
)
def test_a_lease_lasts_four_blocks_within_bounds_and_is_renewed_well_before(block_seconds, lease):
    timing = timing_for_blocks(block_seconds)
    assert timing.lease == pytest.approx(lease)
    parts = (timing.renew / lease, timing.retry / lease, timing.call / lease)
    assert parts == pytest.approx((0.6, 0.13, 0.2))


def test_the_longest_timing_that_is_safe_is_taken():
    assert LeaseTiming(lease=10.0, renew=5.0, retry=2.0, call=3.0).lease == 10.0
    with pytest.raises(ValueError, match="two could hold"):
        LeaseTiming(lease=9.999, renew=5.0, retry=2.0, call=3.0)


@pytest.mark.parametrize(
    ("identity", "name", "place"),
    [("miner-0_uid_7", "miner-0", "uid"), ("a_10.0.0.1:90_x_7", "a", "10.0.0.1:90_x"), ("miner-0", "miner-0", "")],
)
def test_an_identity_names_the_member_and_its_place(identity, name, place):
    assert (member_name(identity), member_location(identity)) == (name, place)


def test_a_folder_has_one_owner_whose_process_the_next_one_is_told(tmp_path):
    path = tmp_path / "new" / "folder" / "lock"
    with FileLock(path):
        assert path.read_text() == str(os.getpid())
        assert path.stat().st_mode & 0o777 == 0o600
        for read_only in (False, True):
            with pytest.raises(LockHeld, match=f"held by process {os.getpid()};"):
                FileLock(path).acquire(read_only=read_only)
    path.write_text("12345678 former owner")
    with FileLock(path):
        assert path.read_text() == str(os.getpid()), "nothing of the former owner is left"


def test_a_lock_for_reading_needs_its_file_and_leaves_it_as_it_is(tmp_path):
    lock = FileLock(tmp_path / "missing" / "lock")
    with pytest.raises(FileNotFoundError):
        lock.acquire(read_only=True)
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "lock"
    path.write_text("777")
    lock = FileLock(path)
    lock.acquire(read_only=True)
    with pytest.raises(LockHeld, match="held by process 777;"):
        FileLock(path).acquire()
    lock.release()
    lock.release()
    with FileLock(path):
        assert path.read_text() == str(os.getpid())


@pytest.mark.parametrize(
    ("blocks", "block_seconds", "seconds"),
    [(None, 60.0, 120), (0, 60.0, 120), (3, 60.0, 120), (4, 60.0, 180.0), (10, 65.0, 590.0), (11, 60.0, 590)],
)
def test_a_timeout_is_the_rest_of_the_window_less_a_minute_within_what_the_chain_takes(blocks, block_seconds, seconds):
    assert timeout_duration_seconds(blocks, block_seconds) == pytest.approx(min(seconds, 590))


@pytest.mark.parametrize("offset", [0, 1, 999, 1000, 1234])
def test_a_timeout_is_exact_to_the_microsecond_and_ends_in_the_offset_of_its_process(offset):
    allocator = UnorderedNonceAllocator(offset)
    first = allocator.next_timeout("alice", Timestamp(100, 999), 1.0)
    assert first.nanoseconds == 101 * 10**9 + offset % 1000
    assert allocator.next_timeout("alice", Timestamp(100, 999), 1.0).nanoseconds == first.nanoseconds + 1000
    assert allocator.next_timeout("bob", Timestamp(100, 999), 1.0) == first, "of another signer"


@given(
    st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 10**9 - 1)), min_size=1, max_size=20), st.integers(0, 999)
)
def test_no_timeout_is_given_twice_nor_lies_ten_minutes_beyond_what_was_asked(times, offset):
    allocator, seen = UnorderedNonceAllocator(offset), []
    for seconds, nanoseconds in times:
        at = Timestamp(seconds, nanoseconds)
        given_out = allocator.next_timeout("alice", at, 120).nanoseconds
        wanted = (at.nanoseconds + 120 * 10**9) // 1000 * 1000 + offset
        assert wanted <= given_out < wanted + 590 * 10**9 + 1000
        assert given_out % 1000 == offset
        if seen and wanted <= seen[-1] < wanted + 590 * 10**9:
            assert given_out == seen[-1] + 1000
        else:
            assert given_out == wanted
        seen.append(given_out)
