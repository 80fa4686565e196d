"""Deadlines that share one timer end waits as asyncio.timeout does."""

import asyncio

import pytest

from pocket.runtime.shared_deadlines import SharedDeadlines

TICK = 0.01


async def test_a_wait_ends_in_time_and_its_task_goes_on():
    deadlines, loop = SharedDeadlines(TICK), asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(TimeoutError), deadlines.within(0.03):
        await asyncio.Event().wait()
    assert loop.time() - begun >= 0.03
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


async def test_many_waits_end_each_at_its_own_deadline():
    deadlines = SharedDeadlines(TICK)
    order = []

    async def wait(seconds):
        with pytest.raises(TimeoutError), deadlines.within(seconds):
            await asyncio.Event().wait()
        order.append(seconds)

    await asyncio.gather(*(wait(seconds) for seconds in (0.09, 0.03, 0.06)))
    assert order == [0.03, 0.06, 0.09]


async def test_what_ends_before_its_deadline_is_not_cancelled_later():
    deadlines = SharedDeadlines(TICK)
    with deadlines.within(0.02):
        pass
    await asyncio.sleep(5 * TICK)
    assert asyncio.current_task().cancelling() == 0
    assert deadlines.watched == 0


async def test_an_error_and_a_cancellation_from_elsewhere_pass_unchanged():
    deadlines = SharedDeadlines(TICK)
    with pytest.raises(ValueError, match="inner"), deadlines.within(1.0):
        raise ValueError("inner")

    async def wait():
        with deadlines.within(1.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert deadlines.watched == 0


async def test_a_task_that_is_cancelled_when_its_deadline_expires_stays_cancelled():
    deadlines = SharedDeadlines(TICK)

    async def wait():
        deadline = deadlines.within(1.0)
        with deadline:
            asyncio.current_task().cancel()
            deadline.expire()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_wait_within_a_wait_ends_only_the_inner_one():
    deadlines = SharedDeadlines(TICK)
    with deadlines.within(5.0):
        with pytest.raises(TimeoutError), deadlines.within(0.02):
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_after_an_idle_time_new_deadlines_expire_too():
    deadlines = SharedDeadlines(TICK)
    for _ in range(2):
        with pytest.raises(TimeoutError), deadlines.within(0.02):
            await asyncio.Event().wait()
        await asyncio.sleep(3 * TICK)
