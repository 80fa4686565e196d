"""Requests of connections without a served relay: in turns, and at a limited rate."""

import asyncio

import pytest

from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.pipeline.fair_queue import MAX_WAIT_SECONDS, FairQueue
from pocket_relayer.transports.client_connections import Connection
from pocket_relayer.transports.first_requests import BURST, PER_SECOND, FirstRequests


class Clock:
    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def requests(clock):
    return FirstRequests(FairQueue(lambda: 0.0, per_iteration=2.0), clock, clock.sleep)


def connection(address="192.0.2.1"):
    return Connection(None, MemoryBudget(lambda: 0.0).connection(address), None)


async def serve(turns, client, served):
    if not turns.take_free_turn(client):
        await turns.turn(client)
    served.append(client)


async def test_a_connection_gets_its_burst_at_once_and_then_a_request_at_a_time():
    clock, client = Clock(), connection()
    turns = requests(clock)
    for _ in range(int(BURST)):
        await serve(turns, client, [])
    assert clock.slept == []
    for _ in range(20):
        await serve(turns, client, [])
    assert clock.now == 20 / PER_SECOND
    await serve(turns, connection(), [])
    assert clock.now == 20 / PER_SECOND, "another connection waited for this one"


async def test_requests_of_one_address_delay_one_of_another_address_by_a_round():
    turns, flood, other, served = requests(Clock()), [connection() for _ in range(400)], connection("192.0.2.2"), []
    async with asyncio.TaskGroup() as group:
        for client in [*flood, other]:
            group.create_task(serve(turns, client, served))
    assert len(served) == 401
    assert served.index(other) < 20


async def test_connections_over_their_rate_delay_new_ones_of_their_address_by_a_round():
    turns, served = FirstRequests(FairQueue(lambda: 0.0), lambda: 0.0, lambda _: asyncio.sleep(0)), []
    flood = [connection() for _ in range(100)]
    for client in flood:
        for _ in range(int(BURST)):
            turns.take_free_turn(client)
    newcomer = connection()
    async with asyncio.TaskGroup() as group:
        for client in [*flood, newcomer]:
            group.create_task(serve(turns, client, served))
    assert served.index(newcomer) < 20


async def test_requests_of_a_connection_that_wait_go_on_once_one_of_them_was_served_and_others_are_refused():
    clock, gate = Clock(), asyncio.Event()

    async def sleep(seconds):
        clock.slept.append(seconds)
        await gate.wait()

    turns, client = FirstRequests(FairQueue(lambda: 0.0), clock, sleep), connection()
    for _ in range(int(BURST)):
        turns.take_free_turn(client)
    waiting = []
    for _ in range(int(PER_SECOND * MAX_WAIT_SECONDS)):
        assert not turns.take_free_turn(client)
        waiting.append(asyncio.create_task(turns.turn(client)))
        await asyncio.sleep(0)
    turns.take_free_turn(client)
    refused = asyncio.create_task(turns.turn(client))
    await asyncio.sleep(0)
    with pytest.raises(Rejected):
        refused.result()
    client.trusted = True
    gate.set()
    await asyncio.gather(*waiting)
    assert clock.slept == [1 / PER_SECOND] * len(waiting), "one sleep each, though the last would wait two seconds"


async def test_an_iteration_of_the_event_loop_serves_few_of_them():
    turns, served = requests(Clock()), []
    async with asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(serve(turns, connection(), served))
        before = 0
        while before < 40:
            await asyncio.sleep(0)
            assert len(served) - before <= 1
            before = len(served)


class Listed:
    def on_trusted(self, connection):
        pass


def test_a_served_relay_favours_its_connection_for_a_while_and_not_for_ever():
    client = Connection(Listed(), MemoryBudget(lambda: 0.0).connection("192.0.2.1"), None)

    def favoured_requests():
        number = 0
        while client.favoured and number < 10_000:
            client.begin_request()
            number += 1
        return number

    assert favoured_requests() == 0
    client.trust()
    assert 256 < favoured_requests() < 1024, "fewer than HTTP/2 serves at once, or for ever"
    client.trust()
    for _ in range(10_000):
        client.begin_request()
        assert client.favoured
        client.trust()
