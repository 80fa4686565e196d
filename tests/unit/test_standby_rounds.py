"""When a miner copies the relays of suppliers that others own, and how long it rests after what fails."""

import asyncio
from dataclasses import dataclass, field

import pytest

from pocket.redis_store.store_errors import RedisUnavailable
from pocket_miner.suppliers import fleet as fleet_module
from pocket_miner.suppliers.fleet import SupplierManager
from pocket_miner.suppliers.latest_block import LatestBlock
from supplier_workers import Chained, Supplier, block, running


@dataclass
class Follower:
    """A standby of a supplier, whose rounds find relays as long as the test says."""

    rounds: list
    name: str
    more: int = 0

    async def round(self):
        self.rounds.append(self.name)
        self.more -= 1
        return max(0, self.more)


@dataclass
class Miners:
    """The loaded suppliers, and those of which this miner is the standby."""

    addresses: list
    more: dict = field(default_factory=dict)
    follows: bool = True
    rounds: list = field(default_factory=list)
    shards: int = 1

    def __post_init__(self):
        self.config, self.chain, self.audit = self, Chained(), self

    def save_epoch(self, shard, epoch):
        return

    def standby(self, name):
        return Follower(self.rounds, name, self.more.get(name, 0))

    def miner(self, name, epoch, confirm):
        return Supplier(name)

    def standby_for(self):
        return frozenset({0} if self.follows else ())


@pytest.fixture
async def following(monkeypatch):
    """Return a function that lets a fleet follow for some ticks, and returns who was read at each of them."""
    now, tick, ticked = [1000.0], asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])

    async def sleep_to_tick(seconds, after=None):
        ticked.set()
        await tick.wait()
        tick.clear()
        now[0] += seconds

    async def clean(*_):
        return

    monkeypatch.setattr(fleet_module, "sleep_to_tick", sleep_to_tick)
    monkeypatch.setattr(SupplierManager, "_clean", clean)
    tasks = []

    def begin(miners):
        made = SupplierManager(miners, LatestBlock(), 30.0)
        made.keeper = miners
        tasks.append(asyncio.create_task(made.follow()))
        return made

    async def ticks(miners, number):
        read = []
        for _ in range(number):
            await ticked.wait()
            ticked.clear()
            tick.set()
            await ticked.wait()
            read.append(sorted(miners.rounds))
            miners.rounds.clear()
        return read

    yield begin, ticks
    for task in tasks:
        task.cancel()
        await asyncio.wait({task})


async def test_a_standby_reads_at_once_while_there_is_more_and_every_five_seconds(following):
    begin, ticks = following
    miners = Miners(["a", "b"], more={"b": 3})
    begin(miners)
    assert await ticks(miners, 3) == [["a", "b"], ["b"], ["b"]]
    rest = await ticks(miners, 24)
    assert [number for number, read in enumerate(rest) if read] == [6, 17], "more than five seconds after the last time"
    assert rest[6] == rest[17] == ["a", "b"]


async def test_a_supplier_that_is_mined_here_has_no_standby_here(following):
    begin, ticks = following
    miners = Miners(["a"])
    made = begin(miners)
    assert await ticks(miners, 1) == [["a"]]
    await made.on_acquired(0, 5)
    assert (set(made.running), made._standbys) == ({"a"}, {})
    made._due.add("a")
    assert await ticks(miners, 2) == [[], []]
    await made.on_lost(0)
    assert await ticks(miners, 1) == [["a"]]
    miners.follows = False
    assert await ticks(miners, 12) == [[]] * 12
    assert made._standbys == {}
    await made.stop()


@pytest.mark.parametrize(("step", "pauses"), [("decide", [1.0] * 7), ("tail", [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])])
async def test_a_step_that_fails_again_and_again_rests_in_between(monkeypatch, step, pauses):
    rested, enough, sleep = [], asyncio.Event(), asyncio.sleep

    async def noted(seconds, *_):
        if len(rested) < 7:
            rested.append(seconds)
        if len(rested) == 7:
            enough.set()
        await sleep(0)

    async def fails(*_):
        raise RedisUnavailable("away")

    async def idle(limit=None):
        await asyncio.Event().wait()

    supplier, board = Supplier("a", fails if step == "decide" else None), LatestBlock()
    supplier.tail = fails if step == "tail" else idle
    board.publish(block(1))
    worker = running(supplier, board)
    if step == "tail":
        board.latest = None
        worker.seen = 1
    monkeypatch.setattr(asyncio, "sleep", noted)
    task = asyncio.create_task(worker.run())
    await asyncio.wait_for(enough.wait(), 10)
    task.cancel()
    await asyncio.wait({task})
    assert rested == pauses
