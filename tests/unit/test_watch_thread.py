"""Watches in a thread: what ends them ends nothing of the loop that started them."""

import asyncio
import threading

import pytest

from pocket_operator.controller.watch_thread import handed_over, run_in_thread


class WatchFailed(Exception):
    pass


async def cancel_all_others():
    """End as kopf does when a watcher fails."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    raise WatchFailed("404")


async def test_a_failed_watch_raises_and_cancels_no_task_of_the_loop_that_started_it():
    bystander = asyncio.create_task(asyncio.Event().wait())
    with pytest.raises(WatchFailed, match="404"):
        await run_in_thread(lambda _: cancel_all_others(), asyncio.Event())
    await asyncio.sleep(0)
    assert not bystander.done()
    bystander.cancel()


@pytest.mark.parametrize("cancelled", [False, True], ids=["asked to end", "cancelled"])
async def test_watches_end_before_the_one_who_runs_them_does(cancelled):
    events, end, started = [], asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def watches(stop):
        await handed_over(events.append, loop)(threading.current_thread().name)
        loop.call_soon_threadsafe(started.set)
        await stop.wait()
        await handed_over(events.append, loop)("ended")

    running = asyncio.create_task(run_in_thread(watches, end))
    await started.wait()
    assert not running.done()
    running.cancel() if cancelled else end.set()
    await asyncio.wait((running,))
    assert events == ["watches", "ended"]
    assert running.cancelled() == cancelled


async def test_an_event_is_handled_in_the_loop_of_the_operator_before_the_watch_goes_on():
    order = []

    def handle(event):
        order.append((event, threading.current_thread() is threading.main_thread()))

    inform = handed_over(handle, asyncio.get_running_loop())

    async def watches(_):
        for number in range(3):
            await inform(number)
            order.append("next")

    await run_in_thread(watches, asyncio.Event())
    assert order == [(0, True), "next", (1, True), "next", (2, True), "next"]
