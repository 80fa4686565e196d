"""The memory for what connections make a worker hold: never above its limit, and nobody is locked out."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket_relayer.memory_budget import MemoryBudget
from pocket_relayer.rejection import Rejected, RejectionReason

LIMIT = 1_000


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def steps():
    return st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["take", "give", "close", "wait"]), st.integers(1, 400)),
        max_size=80,
    )


@given(steps())
def test_the_books_are_the_sum_of_the_holds_and_no_limit_is_exceeded(taken):
    clock = Clock()
    memory = MemoryBudget(clock, LIMIT)
    connections = [memory.connection(f"address {number % 2}") for number in range(3)]
    holds = [connections[number % 3].hold() for number in range(6)]
    for hold in holds:
        hold.drop = lambda: None
    for number, what, size in taken:
        hold = holds[number]
        if what == "take":
            with contextlib.suppress(Rejected):
                hold.take(size)
        elif what == "give":
            hold.give(min(size, hold.size))
        elif what == "close":
            hold.close()
        clock.now += size if what == "wait" else 1
        assert memory.used == sum(one.size for one in holds) <= LIMIT
        for connection in connections:
            mine = sum(one.size for one in holds if one.connection is connection)
            assert connection.used == mine <= memory.connection_limit
            held = sum(one.size for one in holds if one.connection.address == connection.address)
            assert memory.held_by(connection.address) == held <= memory.address_limit
    for hold in holds:
        hold.close()
    assert memory.used == 0


def stalled(memory, address, size):
    """A hold that can be dropped, and what it was told."""
    told = []
    hold = memory.connection(address).hold()
    hold.drop = lambda: told.append(True)
    hold.take(size)
    return hold, told


def test_who_stands_still_makes_room_for_a_newcomer_of_the_same_address():
    clock = Clock()
    memory = MemoryBudget(clock, LIMIT)
    before = [stalled(memory, "one", 150) for _ in range(5)]
    clock.now = 5.0
    newcomer = memory.connection("one").hold()
    newcomer.take(200)
    assert newcomer.size == 200
    assert any(told for _, told in before)
    assert all(hold.dropped == bool(told) for hold, told in before)


def test_an_upload_that_goes_on_outlives_those_that_stand_still():
    clock = Clock()
    memory = MemoryBudget(clock, LIMIT)
    old = [stalled(memory, "strangers", 120) for _ in range(5)]
    clock.now = 60.0
    upload, told = stalled(memory, "gateway", 10)
    for _ in range(20):
        clock.now += 0.01
        upload.take(10)
    more, _ = stalled(memory, "gateway", 200)
    assert not told
    assert upload.size == 210
    assert more.size == 200
    assert any(done for _, done in old)


def test_what_is_being_served_is_never_dropped():
    memory = MemoryBudget(Clock(), LIMIT)
    serving = [memory.connection(str(number)).hold() for number in range(5)]
    for hold in serving:
        hold.take(200)
    with pytest.raises(Rejected) as refused:
        memory.connection("new").hold().take(1)
    assert refused.value.reason is RejectionReason.OVERLOADED
    assert all(hold.size == 200 for hold in serving)


def test_one_connection_cannot_take_the_share_of_others():
    memory = MemoryBudget(Clock(), LIMIT)
    connection = memory.connection("one")
    for _ in range(2):
        connection.hold().take(125)
    with pytest.raises(Rejected):
        connection.hold().take(125)
    memory.connection("one").hold().take(125)


def test_a_hold_that_was_dropped_takes_nothing_more():
    clock = Clock()
    memory = MemoryBudget(clock, LIMIT)
    hold, _ = stalled(memory, "one", 100)
    hold.give_up()
    with pytest.raises(Rejected):
        hold.take(1)
    hold.give(100)
    hold.close()
    assert memory.used == 0
