import asyncio
import random

import pytest

from pocket.runtime.backoff import Backoff
from pocket_operator.controller.work_queue import WorkQueue


def test_pauses_double_from_the_first_to_the_longest_and_differ_between_many():
    pauses = [[Backoff(0.1, 2.0).pause(n, random.Random(seed)) for n in range(1, 20)] for seed in range(200)]
    for failures, column in enumerate(zip(*pauses, strict=True), start=1):
        longest = min(2.0, 0.1 * 2 ** (failures - 1))
        assert all(longest / 2 <= pause <= longest for pause in column)
        assert max(column) - min(column) > longest / 3
    assert Backoff(1.0, 60.0).pause(10_000, random.Random(1)) <= 60.0


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def queue(clock):
    return WorkQueue(lambda: clock[0], debounce=0.0, backoff=Backoff(1.0, 8.0), rng=random.Random(1))


async def next_of(queue):
    async with asyncio.timeout(0.05):
        return await queue.take()


async def test_a_key_that_fails_waits_longer_each_time_until_it_succeeds(queue, clock):
    queue.add("a")
    pauses = []
    for _ in range(5):
        assert await next_of(queue) == "a"
        pauses.append(queue.failed("a"))
        with pytest.raises(TimeoutError):
            await next_of(queue)
        clock[0] += pauses[-1]
    assert [pause <= longest for pause, longest in zip(pauses, (1, 2, 4, 8, 8), strict=True)] == [True] * 5
    assert [pause >= longest / 2 for pause, longest in zip(pauses, (1, 2, 4, 8, 8), strict=True)] == [True] * 5
    assert await next_of(queue) == "a"
    queue.done("a", again_after=0.0)
    assert await next_of(queue) == "a"
    assert queue.failed("a") <= 1


async def test_what_the_server_asks_to_wait_is_waited_and_another_key_does_not_wait(queue):
    queue.add("a")
    assert await next_of(queue) == "a"
    assert queue.failed("a", retry_after=30.0) == 30.0
    queue.add("b")
    assert await next_of(queue) == "b"


async def test_a_key_that_changes_while_it_is_worked_on_is_worked_on_again_afterwards(queue):
    queue.add("a")
    assert await next_of(queue) == "a"
    queue.add("a")
    with pytest.raises(TimeoutError):
        await next_of(queue)
    queue.done("a")
    assert await next_of(queue) == "a"
