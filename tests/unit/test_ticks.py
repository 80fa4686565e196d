"""Loops that sleep until ticks wake together."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.runtime.ticks import next_tick, sleep_near_tick, sleep_to_tick


@given(st.floats(0, 1e7), st.integers(0, 3), st.sampled_from([0.25, 0.5, 1.0, 2.0, 5.0]))
def test_the_next_tick_is_a_multiple_neither_now_nor_later_than_a_little_over_a_period(start, periods, seconds):
    time = start + periods * seconds
    tick = next_tick(time, seconds)
    assert (tick / seconds).is_integer()
    assert 0.09 * seconds <= tick - time <= 1.11 * seconds


@pytest.fixture
async def timers(monkeypatch):
    """Return the timers that are set at the time 100, which nobody fires."""
    made, loop = [], asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: 100.0)
    monkeypatch.setattr(loop, "call_at", lambda *timer, context: made.append(timer))
    return made


@pytest.mark.parametrize(
    ("after", "woken_at"), [(None, 100.4), (100.1, 100.4), (100.39, 100.8), (100.4, 100.8), (100.5, 100.8)]
)
async def test_sleepers_of_one_period_wake_at_the_same_moments(timers, after, woken_at):
    sleeping = asyncio.create_task(sleep_to_tick(0.4, after))
    await asyncio.sleep(0)
    ((moment, wake, *arguments),) = timers
    assert moment == pytest.approx(woken_at)
    assert not sleeping.done()
    wake(*arguments)
    await sleeping


async def test_all_that_sleep_until_a_moment_share_a_timer_and_one_that_is_cancelled_wakes_no_other(timers):
    sleeping = [
        asyncio.create_task(sleep) for sleep in (sleep_to_tick(1.0), sleep_to_tick(0.5, 100.9), sleep_near_tick(0.996))
    ]
    await asyncio.sleep(0)
    ((moment, wake, *arguments),) = timers
    assert moment == 101.0
    sleeping[0].cancel()
    await asyncio.sleep(0)
    assert [task.done() for task in sleeping] == [True, False, False]
    wake(*arguments)
    await asyncio.gather(*sleeping[1:])
    again = asyncio.create_task(sleep_to_tick(1.0))
    await asyncio.sleep(0)
    assert len(timers) == 2, "the moment is over, and has a new timer"
    again.cancel()
