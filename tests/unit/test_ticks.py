"""Loops that sleep until ticks wake together."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.runtime.ticks import next_tick, sleep_to_tick


@given(st.floats(0, 1e7), st.integers(0, 3), st.sampled_from([0.25, 0.5, 1.0, 2.0, 5.0]))
def test_the_next_tick_is_a_multiple_neither_now_nor_later_than_a_little_over_a_period(start, periods, seconds):
    time = start + periods * seconds
    tick = next_tick(time, seconds)
    assert (tick / seconds).is_integer()
    assert 0.09 * seconds <= tick - time <= 1.11 * seconds


@pytest.mark.parametrize(
    ("after", "woken_at"), [(None, 100.4), (100.1, 100.4), (100.39, 100.8), (100.4, 100.8), (100.5, 100.8)]
)
async def test_sleepers_of_one_period_wake_at_the_same_moments(monkeypatch, after, woken_at):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 100.0)
    monkeypatch.setattr("pocket.runtime.ticks.asyncio.sleep", sleep)
    await sleep_to_tick(0.4, after)
    assert 100.0 + slept[0] == pytest.approx(woken_at)
