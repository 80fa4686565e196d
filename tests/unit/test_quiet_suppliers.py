"""Blocks at which nothing can happen to a supplier's sessions are not decided, so that idle suppliers cost nothing."""

import asyncio

import pytest

from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.stages import Action, ClaimState, SessionSnapshot, Stage, decide
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.quiet_sessions import quiet_sessions
from supplier_workers import Supplier, block, running, until

FOREVER = 10**9


def session(name, start, length=10, **state):
    found = TrackedSession(SessionHeader("app", "eth", name, start, start + length - 1))
    found.params, found.terms = SharedParams(num_blocks_per_session=length), object.__new__(LeafTerms)
    for field, value in state.items():
        setattr(found, field, value)
    return found


@pytest.mark.parametrize("length", [1, 4, 10, 60])
def test_quiet_sessions_are_decided_before_any_of_them_can_change(length):
    rows = [session(f"s{n}", 1 + n * length, length) for n in range(3)]
    quiet = quiet_sessions(rows, dict.fromkeys(("s0", "s1", "s2"), Stage.ACTIVE), FOREVER)
    windows = rows[0].windows
    for height in range(1, windows.settlement + 2):
        found = decide(SessionSnapshot(windows, False, ClaimState.ABSENT, None), height)
        if (found.stage, found.action) != (Stage.ACTIVE, Action.NOTHING):
            assert height >= quiet.until
    assert quiet.until == rows[0].end, "the seals in Redis are read at the session's end"


@pytest.mark.parametrize(
    ("state", "stage"),
    [({"terms": None}, Stage.ACTIVE), ({"seal": object()}, Stage.ACTIVE), ({}, Stage.GRACE), ({}, None)],
)
def test_a_session_that_lacks_anything_keeps_its_supplier_from_being_quiet(state, stage):
    rows = [session("a", 1), session("b", 1, **state)]
    stages = {"a": Stage.ACTIVE} | ({"b": stage} if stage is not None else {})
    assert quiet_sessions(rows, stages, FOREVER) is None


def test_a_supplier_without_sessions_is_quiet_until_the_cutoff_changes():
    assert quiet_sessions([], {}, 17).until == 17
    assert quiet_sessions([session("a", 1)], {"a": Stage.ACTIVE}, 7).until == 7


async def test_a_reader_is_woken_only_by_blocks_that_it_does_not_skip():
    board = LatestBlock()
    waiting = asyncio.create_task(board.wait_newer(0, 1000, lambda height: height < 5))
    for height in range(1, 5):
        board.publish(block(height))
        await asyncio.sleep(0)
        assert not waiting.done()
    board.publish(block(5))
    await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(board.wait_newer(4, 1000, lambda height: height < 5), 5)


class Quiet(Supplier):
    """One that has nothing to decide before a height."""

    until = 5

    def quiet_at(self, height):
        return height < self.until


async def test_a_quiet_supplier_is_decided_when_it_no_longer_is():
    board, supplier = LatestBlock(), Quiet("a")
    task = asyncio.create_task(running(supplier, board).run())
    for height in range(1, 6):
        board.publish(block(height))
        for _ in range(20):
            await asyncio.sleep(0)
    assert supplier.decided == [5]
    supplier.until = 100
    board.publish(block(6))
    supplier.until = 0  # as after a restart of Redis
    board.publish(block(7))
    await until(lambda: supplier.decided == [5, 7])
    task.cancel()
    await asyncio.wait({task})


class Resting(Quiet):
    """One that waits for relays."""

    async def tail(self, limit=None):
        await asyncio.Event().wait()


async def test_a_quiet_supplier_without_a_key_is_decided_and_ends():
    board, supplier = LatestBlock(), Resting("a")
    found = running(supplier, board)
    found.retire(100.0)
    task = asyncio.create_task(found.run())
    board.publish(block(1))
    await until(lambda: supplier.decided)
    supplier.last_scan_at = 1000.0
    board.publish(block(2))
    await asyncio.wait_for(task, 10)


@pytest.mark.parametrize(("fleet", "soonest", "latest"), [(3, 0.0, 5.6), (250, 0.0, 5.6), (1000, 16.0, 25.2)])
async def test_suppliers_are_read_without_a_notification_at_a_bounded_rate(monkeypatch, fleet, soonest, latest):
    found = running(Supplier("a"), LatestBlock())
    found.fleet_size, found._read_at = (lambda: fleet), -100.0
    now, due, timeout_at = asyncio.get_running_loop().time(), [], asyncio.timeout_at

    def noted(when):
        due.append(when - now)
        return timeout_at(now)

    monkeypatch.setattr(asyncio, "timeout_at", noted)
    await found._rest(0, 200.0)
    assert soonest < due[0] <= latest
