"""How a process is."""

import asyncio

from pocket.runtime.process_stats import LoopLagMonitor


async def test_whatever_keeps_the_event_loop_busy_shows_once():
    now, beats = [0.0], asyncio.Queue()

    async def sleep(seconds):
        now[0] += seconds + await beats.get()
        beats.task_done()

    pulse = LoopLagMonitor(lambda: now[0], sleep)
    feeling = asyncio.create_task(pulse.run())
    for late in (0.0, 0.5, 0.25):
        beats.put_nowait(late)
    await beats.join()
    await asyncio.sleep(0)
    found = pulse.reset()
    assert found.loop_lag_seconds == 0.5
    assert found.tasks >= 2
    assert found.threads >= 1
    assert found.resident_bytes > 10_000_000
    assert pulse.reset().loop_lag_seconds == 0.0
    feeling.cancel()
