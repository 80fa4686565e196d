"""Settlement blocks are read once for all suppliers of a miner, and nobody waits for them for long."""

import asyncio
import contextlib

import pytest

from pocket.chain.model import Event
from pocket.errors import ChainQueryRejected, ChainUnavailable
from pocket_miner.settlement.event_reader import NotReadYet, SettlementReader


def settled(supplier, number=0):
    return Event("pocket.tokenomics.EventClaimSettled", {"supplier_operator_address": supplier, "n": str(number)})


class Source:
    """A node: what it was asked, and a gate before each answer."""

    def __init__(self, events, error=None):
        self.events, self.error = events, error
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def end_events(self, height, wanted):
        self.asked.append(height)
        self.begun.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return tuple(filter(wanted, self.events))

    async def end_events_by_node(self, height, wanted):
        self.asked.append((height, "every node"))
        return {"node": tuple(filter(wanted, self.events))}


@contextlib.asynccontextmanager
async def reading(source, ours=(), wait_timeout_seconds=10.0, failure_seconds=0.0):
    settlements = SettlementReader(source, lambda: ours, wait_timeout_seconds, failure_seconds)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(settlements.run())
        yield settlements
        task.cancel()


async def test_all_suppliers_are_told_of_one_block_by_one_question():
    names = [f"supplier-{n}" for n in range(100)]
    source = Source([settled(name, n) for n in range(3) for name in (*names, "somebody else")])
    async with reading(source, names) as settlements:
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(settlements.events(20, name)) for name in names}
        for name, task in tasks.items():
            assert task.result() == tuple(settled(name, n) for n in range(3))
        assert await settlements.events(20, names[0]) == tasks[names[0]].result()
    assert source.asked == [20]


async def test_who_has_no_event_in_a_block_that_was_read_is_told_so():
    async with reading(Source([settled("alice")]), ["alice", "bob"]) as settlements:
        assert await settlements.events(20, "bob") == ()


async def test_nobody_waits_longer_than_a_moment_that_is_the_same_for_all():
    source = Source([settled("alice"), settled("bob")])
    source.gate.clear()
    async with reading(source, ["alice", "bob"], wait_timeout_seconds=0.05) as settlements:
        for name in ("alice", "bob", "alice"):
            with pytest.raises(NotReadYet, match="being read"):
                await settlements.events(20, name)
        source.gate.set()
        question = settlements._pending[20]
        await question.answered.wait()
        assert await settlements.events(20, "alice") == (settled("alice"),)
        assert await settlements.events(20, "bob") == (settled("bob"),)
    assert source.asked == [20]


@pytest.mark.parametrize("error", [ChainQueryRejected("pruned"), ChainUnavailable("no node")])
async def test_what_reading_raised_is_told_and_the_next_question_reads_again(error):
    source = Source([settled("alice")], error)
    async with reading(source) as settlements:
        with pytest.raises(type(error), match=str(error)):
            await settlements.events(20, "alice")
        source.error = None
        assert await settlements.events(20, "alice") == (settled("alice"),)
    assert source.asked == [20, 20]


async def test_what_failed_is_not_tried_again_for_each_of_many_suppliers():
    names = [f"supplier-{n}" for n in range(50)]
    source = Source([], ChainQueryRejected("pruned"))
    async with reading(source, names, failure_seconds=100.0) as settlements:
        for name in names:
            with pytest.raises(ChainQueryRejected, match="pruned"):
                await settlements.events(20, name)
        with pytest.raises(ChainQueryRejected, match="pruned"):
            await settlements.events(21, names[0])
    assert source.asked == [20, 21]


async def test_a_supplier_that_came_later_has_the_block_read_again():
    source = Source([settled("alice"), settled("bob")])
    async with reading(source, ["alice"]) as settlements:
        assert await settlements.events(20, "alice") == (settled("alice"),)
        assert await settlements.events(20, "bob") == (settled("bob"),)
        assert await settlements.events(20, "alice") == (settled("alice"),)
    assert source.asked == [20, 20]


async def test_a_block_is_read_again_once_a_node_has_events_that_the_first_answer_lacked():
    source = Source([])
    async with reading(source, ["alice"]) as settlements:
        assert await settlements.events(20, "alice") == ()
        assert await settlements.events_by_node(20, "alice", 21) == {"node": ()}
        source.events = [settled("alice")]
        assert await settlements.events(20, "alice") == ()
        assert await settlements.events_by_node(20, "alice", 22) == {"node": (settled("alice"),)}
        assert await settlements.events(20, "alice") == (settled("alice"),)


async def test_who_asks_while_the_block_is_being_read_for_others_asks_again():
    source = Source([settled("alice"), settled("bob")])
    source.gate.clear()
    async with reading(source) as settlements:
        first = asyncio.create_task(settlements.events(20, "alice"))
        await source.begun.wait()
        second = asyncio.create_task(settlements.events(20, "bob"))
        await asyncio.sleep(0)
        source.gate.set()
        assert await first == (settled("alice"),)
        with pytest.raises(NotReadYet, match="without this supplier"):
            await second
        assert await settlements.events(20, "bob") == (settled("bob"),)


async def test_the_oldest_block_is_read_first_and_a_bounded_number_is_kept():
    source = Source([settled("alice")])
    async with reading(source, ["alice"]) as settlements:
        async with asyncio.TaskGroup() as group:
            for height in range(200, 100, -1):
                group.create_task(settlements.events(height, "alice"))
        assert len(settlements._pages) == 64
    assert source.asked == sorted(source.asked)


async def test_every_node_is_asked_once_a_block_for_all_suppliers_and_again_for_one_that_is_new():
    source = Source([settled("alice"), settled("new")])
    settlements = SettlementReader(source, lambda: ["alice", "bob"])
    for name, now, asked in (
        ("alice", 21, 1), ("bob", 21, 1), ("alice", 21, 1), ("alice", 22, 2), ("new", 22, 3), ("alice", 22, 3),
        ("alice", 21, 4),
    ):  # fmt: skip
        expected = () if name == "bob" else (settled(name),)
        assert await settlements.events_by_node(20, name, now) == {"node": expected}
        assert source.asked == [(20, "every node")] * asked
