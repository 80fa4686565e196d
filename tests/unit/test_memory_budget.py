"""The memory for what connections make a worker reservation: never above its limit, and nobody is locked out."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.limits.rejection import Rejected, RejectionReason

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
    reservations = [connections[number % 3].reserve() for number in range(6)]
    owned = [0] * 6  # as their owners know it: one that was evicted gives back later what it took
    for reservation in reservations:
        reservation.on_evict = lambda: None
    for number, what, size in taken:
        reservation = reservations[number]
        if what == "take":
            with contextlib.suppress(Rejected):
                reservation.acquire(size)
                owned[number] += size
        elif what == "give":
            reservation.release(min(size, owned[number]))
            owned[number] -= min(size, owned[number])
        elif what == "close":
            reservation.close()
            owned[number] = 0
        clock.now += size if what == "wait" else 1
        assert [one.size for one in reservations if not one.evicted] == [
            size for size, one in zip(owned, reservations, strict=True) if not one.evicted
        ]  # fmt: skip
        assert memory.used == sum(one.size for one in reservations if not one.evicted) <= LIMIT
        for connection in connections:
            mine = sum(one.size for one in reservations if one.connection is connection)
            assert connection.used == mine <= memory.connection_limit
            held = sum(one.size for one in reservations if one.connection.address == connection.address)
            assert memory.used_by(connection.address) == held <= memory.address_limit
    for reservation in reservations:
        reservation.close()
    assert memory.used == 0


def stalled(memory, address, size):
    """Return a reservation that can be dropped, and the recorded reasons."""
    told = []
    reservation = memory.connection(address).reserve()
    reservation.on_evict = lambda: told.append(True)
    reservation.acquire(size)
    return reservation, told


def test_what_is_evicted_makes_room_for_more_than_the_next_relay():
    memory = MemoryBudget(Clock(), LIMIT)
    rows = [stalled(memory, f"address {number}", 100)[0] for number in range(10)]
    memory.connection("another").reserve().acquire(1)
    assert [row.evicted for row in rows].count(True) == 2, "to seven eighths of the limit"
    assert memory.used == 801


def test_who_stands_still_makes_room_for_a_newcomer_of_the_same_address():
    clock, evicted = Clock(), []
    memory = MemoryBudget(clock, LIMIT, lambda: evicted.append(True))
    before = [stalled(memory, "one", 150) for _ in range(5)]
    clock.now = 5.0
    newcomer = memory.connection("one").reserve()
    newcomer.acquire(200)
    assert newcomer.size == 200
    assert any(told for _, told in before)
    assert all(reservation.evicted == bool(told) for reservation, told in before)
    assert len(evicted) == sum(reservation.evicted for reservation, _ in before)


def test_an_upload_that_goes_on_outlives_those_that_stand_still():
    clock = Clock()
    memory = MemoryBudget(clock, LIMIT)
    old = [stalled(memory, "strangers", 120) for _ in range(5)]
    clock.now = 60.0
    upload, told = stalled(memory, "gateway", 10)
    for _ in range(20):
        clock.now += 0.01
        upload.acquire(10)
    more, _ = stalled(memory, "gateway", 200)
    assert not told
    assert upload.size == 210
    assert more.size == 200
    assert any(done for _, done in old)


def test_what_is_being_served_is_never_dropped():
    memory = MemoryBudget(Clock(), LIMIT)
    serving = [memory.connection(str(number)).reserve() for number in range(5)]
    for reservation in serving:
        reservation.acquire(200)
    with pytest.raises(Rejected) as refused:
        memory.connection("new").reserve().acquire(1)
    assert refused.value.reason is RejectionReason.OVERLOADED
    assert all(reservation.size == 200 for reservation in serving)


def test_one_connection_cannot_take_the_share_of_others():
    memory = MemoryBudget(Clock(), LIMIT)
    connection = memory.connection("one")
    for _ in range(2):
        connection.reserve().acquire(125)
    with pytest.raises(Rejected):
        connection.reserve().acquire(125)
    memory.connection("one").reserve().acquire(125)


def test_a_hold_that_was_dropped_takes_nothing_more():
    clock = Clock()
    memory = MemoryBudget(clock, LIMIT)
    reservation, _ = stalled(memory, "one", 100)
    reservation.evict()
    with pytest.raises(Rejected):
        reservation.acquire(1)
    reservation.release(100)
    reservation.close()
    assert memory.used == 0
