"""Which heights are believed, how long blocks take, and how the feed follows them through silence."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.block_feed import BlockFeed
from pocket.chain.model import Block
from pocket.chain.plausible_heights import Belief, HeightGuard
from pocket.protocol.transactions.build import Timestamp
from virtual_time import in_virtual_time


def block(height, seconds=None):
    return Block(height, b"h", Timestamp.of_nanoseconds(int((height if seconds is None else seconds) * 10**9)))


@given(st.lists(st.integers(1, 3), max_size=30), st.integers(20, 10**9), st.integers(0, 29))
def test_a_height_that_time_does_not_allow_is_never_taken_and_changes_nothing(steps, ahead, at):
    guard, height, now = HeightGuard(1.0), 100, 0.0
    guard.observe(block(height), now)
    for number, step in enumerate(steps):
        height, now = height + step, now + step
        if number == at:
            assert guard.observe(Block(height + ahead + 20, b"x", Timestamp(100)), now - step) is Belief.IMPLAUSIBLE
        assert guard.observe(block(height), now) is Belief.NEWER
    assert guard.height == height


def test_a_node_that_catches_up_is_believed_by_the_time_of_its_blocks():
    guard = HeightGuard(1.0)
    guard.observe(block(100), 0.0)
    assert guard.observe(block(2100), 0.5) is Belief.NEWER


def test_a_first_height_that_others_contradict_is_let_go_and_a_confirmed_one_never():
    guard = HeightGuard(1.0)
    guard.observe(block(5000, 100), 0.0)
    assert [guard.observe(block(100 + n, 100 + n), float(n)) for n in (1, 2)] == [Belief.KNOWN, Belief.REPLACED]
    assert guard.height == 102
    assert guard.observe(block(103), 3.0) is Belief.NEWER
    assert {guard.observe(block(50), 4.0 + n) for n in range(9)} == {Belief.KNOWN}
    assert guard.height == 103


def test_a_node_that_lags_contradicts_a_first_height_only_if_no_other_one_repeats_it():
    guard = HeightGuard(1.0)
    guard.observe(block(5000, 100), 0.0)
    for number in range(5):
        assert guard.observe(block(100 + number, 100 + number), number + 0.5) is Belief.KNOWN
        assert guard.observe(block(5000, 100), number + 1.0) is Belief.KNOWN
    assert guard.height == 5000


@given(st.integers(1, 40), st.integers(110, 10**6), st.sampled_from([0, 200]))
def test_a_height_that_repeats_or_jumps_is_no_evidence_however_often_it_is_read(times, ahead, swing):
    guard = HeightGuard(1.0)
    guard.observe(block(100), 0.0)
    for number in range(times):
        jumps = ahead + swing * (number % 2)
        assert guard.observe(block(100 + jumps, 100), number / 100) is Belief.IMPLAUSIBLE
    assert guard.height == 100
    assert guard.observe(block(101), 1.0) is Belief.NEWER


def test_a_foreign_chain_that_was_believed_is_let_go_for_the_one_that_grows():
    guard, now = HeightGuard(1.0), 0.0
    guard.observe(block(100), now)
    for number in range(8):  # no other node answers for so long
        now += 1.0
        guard.observe(block(1000 + number, 100 + now), now)
    assert guard.height == 1007
    found = []
    for number in range(40):
        now += 0.25
        found.append(guard.observe(block(108 + number // 4, 108 + number // 4), now))
    assert Belief.REPLACED in found
    assert guard.height == 117
    assert found[-1] is Belief.KNOWN


def test_a_node_that_lags_never_replaces_a_confirmed_height_though_it_grows():
    guard = HeightGuard(1.0)
    for height in (1000, 1001, 1002):
        guard.observe(block(height), float(height))
    assert {guard.observe(block(900 + n), 1002.0 + n) for n in range(50)} == {Belief.KNOWN}
    assert guard.height == 1002


@given(
    pace=st.sampled_from([1.0, 6.0, 60.0]),
    before=st.integers(4, 30),
    halts=st.lists(st.floats(2.0, 500.0), max_size=3),
    steps=st.lists(st.integers(1, 12), min_size=8, max_size=8),
)  # fmt: skip
def test_a_chain_that_halted_is_followed_at_once_and_its_pace_stays_what_it_was(pace, before, halts, steps):
    guard, height, now = HeightGuard(pace), 100, 0.0
    for blocks, seconds in [(1, 0.0)] * before + [(1, halt * pace) for halt in halts] + [(n, 0.0) for n in steps]:
        height, now = height + blocks, now + blocks * pace + seconds
        assert guard.observe(block(height, now), now) is Belief.NEWER
        assert not guard.doubts
        assert guard.block_seconds == pytest.approx(pace)


def test_a_pace_other_than_expected_is_measured_after_three_blocks_and_another_one_after_four():
    guard, height, now, measured = HeightGuard(1.0), 100, 0.0, []
    for seconds in [0.0, 30.0, 30.0, 30.0, *[30.0] * 4, *[10.0] * 4]:
        height, now = height + 1, now + seconds
        guard.observe(block(height, now), now)
        measured.append(guard.block_seconds)
    assert measured == [1.0, 1.0, 15.5, *[30.0] * 8, 10.0]


def test_a_chain_that_halts_right_after_the_start_is_not_slow():
    guard = HeightGuard(3.0)
    for height, now in ((100, 0.0), (101, 200.0), (102, 203.0)):
        guard.observe(block(height, now), now)
        assert guard.block_seconds == 3.0


@in_virtual_time
async def test_a_right_height_that_was_doubted_is_believed_within_four_blocks_though_nothing_is_announced():
    now = asyncio.get_running_loop().time

    class Source:
        async def block(self, height=None):
            made = int(now() / 10)
            return block(100 if made == 0 else 1000 + made, now())

        async def heights(self):
            await asyncio.Event().wait()
            yield 0

    async def on_block(found):
        if found.height > 1000:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await BlockFeed(Source(), on_block, poll_seconds=10.0, clock=now, rng=random.Random(1)).run()
    assert now() < 10 + 4 * 10


async def test_a_subscription_that_announces_nothing_is_made_up_for_and_made_anew():
    heights, seen, opened = iter([*range(1, 8)]), [], []

    class Source:
        async def block(self, height=None):
            number = next(heights, 7)
            return block(number, number / 20)

        async def heights(self):
            opened.append(True)
            await asyncio.Event().wait()
            yield 0

    async def on_block(found):
        seen.append(found.height)
        if found.height == 7:
            raise asyncio.CancelledError

    async def at_once(_):
        return None

    now = iter(range(1000))
    feed = BlockFeed(Source(), on_block, poll_seconds=0.01, sleep=at_once, clock=lambda: float(next(now)))
    with pytest.raises(asyncio.CancelledError):
        await feed.run()
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert len(opened) > 1
