"""The loop of the simulation: time, order, SIGKILL and SIGSTOP."""

import asyncio

import pytest
from simulated.loop import Loop, Process, Stuck

from pocket.runtime.ticks import sleep_to_tick


def lived(seed, work):
    loop = Loop(seed)
    try:
        return loop.run_until_complete(work(loop))
    finally:
        loop.close()


def test_time_passes_only_when_nobody_can_go_on_and_costs_none():
    async def work(loop):
        async with asyncio.timeout(10_000):
            await asyncio.gather(asyncio.sleep(3000), asyncio.sleep(5000))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        return loop.time()

    assert lived(1, work) == 5005


def racing(seed):
    """Who came first, of two processes that are always due at the same moment."""
    came = []

    async def steps(name):
        for _ in range(20):
            await asyncio.sleep(1)
            came.append(name)

    async def work(loop):
        await asyncio.gather(*(loop.spawn(Process(name), steps(name)) for name in "ab"))
        return came

    return lived(seed, work)


def test_the_seed_decides_which_process_goes_first():
    assert racing(3) == racing(3)
    assert len({tuple(racing(seed)) for seed in range(10)}) > 5


def test_callbacks_of_one_process_keep_their_order():
    async def work(loop):
        came = []
        for number in range(50):
            loop.call_soon(came.append, number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return came

    assert lived(7, work) == list(range(50))


def test_what_is_killed_does_nothing_any_more_not_even_clean_up():
    came = []

    async def worker():
        try:
            while True:
                await asyncio.sleep(1)
                came.append("worked")
        finally:
            came.append("cleaned up")

    loop = Loop(1)
    process = Process("victim")

    async def main():
        loop.spawn(process, worker())
        await asyncio.sleep(2.5)
        loop.kill(process)
        await asyncio.sleep(5)

    loop.run_until_complete(main())
    assert came == ["worked", "worked"]
    loop.bury()
    loop.run_for(100)
    loop.close()


def test_what_is_stopped_goes_on_late_with_all_that_became_due():
    async def work(loop):
        process, came = Process("sleeper"), []

        async def worker():
            for _ in range(3):
                await asyncio.sleep(1)
                came.append(loop.time())

        task = loop.spawn(process, worker())
        await asyncio.sleep(1.5)
        loop.stop(process)
        await asyncio.sleep(10)
        loop.go_on(process)
        await task
        return came

    assert lived(1, work) == [1, 11.5, 12.5]


def test_sleepers_of_one_tick_wake_although_the_process_that_slept_first_is_gone():
    async def work(loop):
        first, second = Process("first"), Process("second")
        loop.spawn(first, sleep_to_tick(5))
        left = loop.spawn(second, sleep_to_tick(5))
        await asyncio.sleep(1)
        loop.kill(first)
        async with asyncio.timeout(100):
            await left
        return loop.time()

    assert lived(1, work) == 5


def test_a_wait_for_what_never_comes_is_told():
    async def work(loop):
        await loop.create_future()

    with pytest.raises(Stuck):
        lived(1, work)
