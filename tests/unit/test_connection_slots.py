"""Connections to a backend are shared between applications."""

import asyncio
import random

import pytest
from prometheus_client import REGISTRY

from pocket.redis_store.connection import PoolUsage
from pocket_relayer import relayer_metrics
from pocket_relayer.backends.connection_slots import ConnectionSlots
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.relayer_metrics import BackendConnections


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_application_that_floods_leaves_connections_to_others():
    slots = ConnectionSlots(100, wait_seconds=60)
    flood = [asyncio.create_task(slots.acquire("flood")) for _ in range(250)]
    await settle()
    assert sum(task.done() for task in flood) == 75
    for _ in range(10):
        async with asyncio.timeout(0.1):
            await slots.acquire("other")
    for task in flood:
        task.cancel()


async def test_who_would_wait_too_long_is_told_at_once_and_the_rest_in_time():
    slots = ConnectionSlots(10, wait_seconds=0.05)
    flood = [asyncio.create_task(slots.acquire("flood")) for _ in range(100)]
    await settle()
    told = [task for task in flood if task.done() and task.exception() is not None]
    assert len(told) == 100 - 8 - 20
    done, waiting = await asyncio.wait(flood, timeout=5)
    assert not waiting
    refused = [task.exception() for task in done if task.exception() is not None]
    assert len(refused) == 92
    assert {(error.reason, error.status) for error in refused} == {(RejectionReason.OVERLOADED, 503)}


async def test_applications_take_turns_when_all_connections_are_taken():
    slots = ConnectionSlots(1, wait_seconds=60)
    await slots.acquire("flood")
    order = []

    async def use(key):
        await slots.acquire(key)
        order.append(key)
        await asyncio.sleep(0)
        slots.release(key)

    async with asyncio.TaskGroup() as group:
        for key in ["flood", "flood", "a", "b"]:
            group.create_task(use(key))
            await settle()
        slots.release("flood")
    assert order == ["flood", "a", "b", "flood"]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_is_cancelled_or_refused_no_connection_is_lost_or_given_twice(seed):
    chance = random.Random(seed)
    slots, used, most = ConnectionSlots(5, wait_seconds=60), [0], [0]

    async def use(key):
        await slots.acquire(key)
        used[0] += 1
        most[0] = max(most[0], used[0])
        try:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            used[0] -= 1
            slots.release(key)

    tasks = []
    for _ in range(200):
        tasks.append(asyncio.create_task(use(f"app {chance.randrange(4)}")))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        if chance.random() < 0.3:
            await asyncio.sleep(0)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(end is None or isinstance(end, asyncio.CancelledError | Rejected) for end in ended)
    assert used == [0]
    assert 1 < most[0] <= 5
    for number in range(5):
        async with asyncio.timeout(0.1):
            await slots.acquire(f"other {number}")


async def test_used_and_awaited_connections_are_counted():
    slots = ConnectionSlots(4, wait_seconds=60)
    tasks = [asyncio.create_task(slots.acquire("flood")) for _ in range(6)]
    await settle()
    assert (slots.used, slots.awaited) == (3, 3)
    slots.release("flood")
    await settle()
    assert (slots.used, slots.awaited) == (3, 2), "the next in turn took it"
    for task in tasks:
        task.cancel()
    await settle()
    assert slots.awaited == 0


def test_connections_have_a_series_for_each_service_and_state():
    usage = {"metered": BackendConnections(used=3, idle=2, awaited=1)}
    relayer_metrics.show_connections(usage, PoolUsage(used=4, idle=5))
    shown = {
        (family, tuple(labels.values())): REGISTRY.get_sample_value(family, labels)
        for family, labels in (
            ("pocket_relayer_backend_connections", {"service": "metered", "state": "used"}),
            ("pocket_relayer_backend_connections", {"service": "metered", "state": "idle"}),
            ("pocket_relayer_backend_connections_awaited", {"service": "metered"}),
            ("pocket_relayer_redis_connections", {"state": "used"}),
            ("pocket_relayer_redis_connections", {"state": "idle"}),
        )
    }
    assert list(shown.values()) == [3, 2, 1, 4, 5]
