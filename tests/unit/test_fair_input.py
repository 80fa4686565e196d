"""Input of connections without a served relay: in portions, in turns, complete and in its order."""

import asyncio

import pytest

from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.pipeline.fair_queue import FairQueue
from pocket_relayer.transports.client_connections import Connection
from pocket_relayer.transports.fair_input import FairInput

DATA = bytes(range(256)) * 40


class Transport:
    """The three things that are asked of a transport whose input waits."""

    paused = closing = False

    def pause_reading(self):
        self.paused = True

    def is_closing(self):
        return self.closing


class Reader:
    """A connection whose parser takes `seconds` for each portion."""

    ready = True

    def __init__(self, turns, memory, seconds, fed):
        self.transport, self.parsed, self.resumed, self._now = Transport(), bytearray(), 0, 0.0
        self.input = FairInput(
            turns, Connection(None, memory.connection("192.0.2.1"), None), self.parse, self.resume, lambda: self._now,
            ready=lambda: self.ready,
        )  # fmt: skip
        self._seconds, self._fed = seconds, fed

    def parse(self, portion):
        self.parsed += portion
        self._now += self._seconds
        self._fed.append(self)

    def resume(self):
        self.resumed += 1

    def take(self, data):
        self.input.take(self.transport, data)


@pytest.fixture
def readers():
    turns, memory, fed = FairQueue(lambda: 0.0), MemoryBudget(lambda: 0.0, 1_000_000), []
    return [Reader(turns, memory, 0.001, fed) for _ in range(2)], memory, fed


async def test_input_that_is_slow_to_parse_waits_for_turns_and_is_parsed_in_its_order(readers):
    (first, second), memory, fed = readers
    first.take(DATA)
    second.take(DATA)
    assert len(first.parsed) < len(DATA)
    assert first.transport.paused
    assert memory.used
    while first.input.waits or second.input.waits:
        done = len(fed)
        await asyncio.sleep(0)
        assert len(fed) - done <= 3, "more time than an iteration of the event loop may take: portions of four quanta"
    assert first.parsed == second.parsed == DATA
    assert (first.resumed, second.resumed) == (1, 1)
    assert memory.used == 0
    half = len(fed) // 2
    assert first in fed[half:]
    assert second in fed[:half]


async def test_input_without_memory_is_parsed_at_once(readers):
    (first, _), memory, _ = readers
    first.take(DATA[:5000])
    memory.connection_limit = memory.used
    first.take(DATA[5000:])
    assert first.parsed == DATA
    while first.input.waits:  # noqa: ASYNC110 - an iteration of the event loop is what is counted
        await asyncio.sleep(0)
    assert first.resumed == 1
    assert memory.used == 0


async def test_input_of_a_connection_that_is_left_is_forgotten(readers):
    (first, _), memory, _ = readers
    first.take(DATA)
    parsed = len(first.parsed)
    first.input.close()
    assert memory.used == 0
    while first.input.waits:  # noqa: ASYNC110 - an iteration of the event loop is what is counted
        await asyncio.sleep(0)
    first.take(DATA)
    assert len(first.parsed) <= parsed + 128


async def iterations(number):
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_parser_that_is_not_ready_gets_nothing_until_it_is(readers):
    (first, second), memory, _ = readers
    first.ready = False
    first.take(DATA)
    second.take(DATA)
    await iterations(1000)
    assert (first.parsed, second.parsed) == (b"", DATA), "one that is not ready takes no turns"
    first.ready = True
    first.input.proceed()
    await iterations(1000)
    assert first.parsed == DATA
    assert first.resumed == 1
    assert memory.used == 0


async def test_input_of_a_connection_that_is_left_does_not_wait_for_its_parser(readers):
    (first, _), memory, _ = readers
    first.ready = False
    first.take(DATA)
    first.input.close()
    await iterations(10)
    assert not first.input.waits
    assert memory.used == 0
