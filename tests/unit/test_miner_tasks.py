"""The tasks of a miner: who is woken, who decides when, and that nobody's trouble is another's."""

import asyncio
from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from pocket.coordination.rendezvous import shard_of
from pocket.redis_store.notifications import NotificationReader
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable, StaleEpoch
from pocket_miner.process.supervise import supervise
from pocket_miner.storage.corruption import VolumeCorrupted
from pocket_miner.suppliers.fleet import SupplierManager
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.running import KEY_REMOVAL_GRACE_SECONDS
from supplier_workers import Chained, Supplier, block, running, until


async def test_a_supplier_that_is_slow_or_broken_does_not_keep_the_others_from_their_windows():
    board, never = LatestBlock(), asyncio.Event()

    async def hangs(_):
        await never.wait()

    async def refuses(_):
        raise RedisUnavailable("Redis is away")

    good = [Supplier(f"good {n}") for n in range(20)]
    rows = [Supplier("slow", hangs), Supplier("broken", refuses), *good]
    tasks = [asyncio.create_task(running(row, board).run()) for row in rows]
    for height in range(1, 6):
        board.publish(block(height))
        await until(lambda height=height: all(row.decided[-1:] == [height] for row in good))
    assert rows[0].decided == []
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_burst_of_blocks_is_decided_once_at_its_newest():
    board, supplier = LatestBlock(), Supplier("a")
    for height in range(1, 500):
        board.publish(block(height))
    task = asyncio.create_task(running(supplier, board).run())
    await until(lambda: supplier.decided)
    assert supplier.decided == [499]
    task.cancel()
    await asyncio.wait({task})


async def test_a_block_that_comes_while_another_is_decided_is_decided_next():
    board = LatestBlock()

    async def the_next_one_comes(found):
        if found.height < 5:
            board.publish(block(found.height + 1))

    supplier = Supplier("a", the_next_one_comes)
    board.publish(block(1))
    task = asyncio.create_task(running(supplier, board).run())
    await until(lambda: len(supplier.decided) == 5)
    assert supplier.decided == [1, 2, 3, 4, 5]
    task.cancel()
    await asyncio.wait({task})


async def test_an_owner_that_is_fenced_ends_and_says_by_whom():
    board, met = LatestBlock(), []

    async def fenced(_):
        raise StaleEpoch("another owner holds epoch 9", 9)

    board.publish(block(1))
    found = running(Supplier("a", fenced), board, fenced=lambda a, e: met.append((a, e.epoch)))
    await asyncio.wait_for(found.run(), 10)
    assert met == [("a", 9)]


async def test_a_retired_supplier_ends_when_nothing_of_it_is_open():
    board, supplier = (
        LatestBlock(),
        Supplier("a", sessions={"s": None}, last_scan_at=100.0 + KEY_REMOVAL_GRACE_SECONDS + 0.1),
    )
    found = running(supplier, board)
    found.retire(100.0)
    found.retire(200.0)  # since the first time
    task = asyncio.create_task(found.run())
    board.publish(block(1))
    await until(lambda: supplier.decided)
    assert not task.done()
    supplier.sessions.clear()
    board.publish(block(2))
    await asyncio.wait_for(task, 10)


@pytest.mark.parametrize("looked", [None, 99.0, 100.0 + KEY_REMOVAL_GRACE_SECONDS])
async def test_a_retired_supplier_goes_on_until_it_looked_for_what_relayers_recorded_last(looked):
    board, supplier = LatestBlock(), Supplier("a", last_scan_at=looked)
    found = running(supplier, board)
    found.retire(100.0)
    task = asyncio.create_task(found.run())
    board.publish(block(1))
    await until(lambda: supplier.decided)
    assert not task.done()
    supplier.last_scan_at = 100.0 + KEY_REMOVAL_GRACE_SECONDS + 0.1
    found.wake()
    await asyncio.wait_for(task, 10)


async def test_a_supplier_whose_key_comes_back_is_mined_on():
    board, supplier = LatestBlock(), Supplier("a", last_scan_at=1000.0)
    found = running(supplier, board)
    found.retire(100.0)
    found.retire(None)
    task = asyncio.create_task(found.run())
    board.publish(block(1))
    await until(lambda: supplier.decided)
    before = supplier.tails
    found.wake()
    await until(lambda: supplier.tails > before)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})


async def test_a_wake_makes_an_idle_supplier_look_at_once():
    board, supplier = LatestBlock(), Supplier("a")
    found = running(supplier, board)
    task = asyncio.create_task(found.run())
    await supplier.tailed.wait()
    before = supplier.tails
    found.wake()
    await until(lambda: supplier.tails > before)
    task.cancel()
    await asyncio.wait({task})


async def test_the_more_relays_come_the_sooner_they_are_read_and_later_none_without_a_notification(monkeypatch):
    now, reads, sleeps = [100.0], iter([2000, 500, 200, 40, 5, 0, 0]), []
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])

    async def sleep(tick, after=None):
        time = now[0] if after is None else after
        sleeps.append((round(time - now[0], 2), tick))
        now[0] = max(now[0], time) + tick
        await asyncio.sleep(0)

    monkeypatch.setattr("pocket_miner.suppliers.running.sleep_to_tick", sleep)

    class Busy(Supplier):
        async def tail(self, limit=None):
            await super().tail(limit)
            number = next(reads, 0)
            self.behind = number == 500
            return number

    supplier = Busy("a")
    found = running(supplier, LatestBlock())
    found._read_at = 99.0
    task = asyncio.create_task(found.run())
    for _ in range(100):
        await asyncio.sleep(0)
    # 2000 in a second, 500 that were not all, 200 more at once, 40 in 0.2 s, 5 in 0.4 s. Then once more when relayers
    # would notify of another one.
    assert sleeps == [(0.0, 0.2), (0.0, 0.2), (0.0, 0.4), (0.0, 0.8), (0.2, 0.8)]
    assert supplier.tails == 7
    found.wake()
    for _ in range(20):
        await asyncio.sleep(0)
    assert supplier.tails == 8
    task.cancel()
    await asyncio.wait({task})


@dataclass
class Keeper:
    """The part of a ShardKeeper that a fleet asks."""

    leads: bool = False
    epochs: list = field(default_factory=list)

    def report_stale_epoch(self, shard, epoch):
        self.epochs.append((shard, epoch))

    def standby_for(self):
        return frozenset()


class Made:
    """Stands for Suppliers: which keys are loaded, which suppliers were begun."""

    def __init__(self, *names):
        self.addresses = list(names)
        self.made = {}
        self.audit = self
        self.kept = {}
        self.fence = None
        self.config = self
        self.shards = 4
        self.chain = Chained()

    def epoch(self, shard):
        return self.kept.get(shard, 0)

    def save_epoch(self, shard, epoch):
        self.kept[shard] = epoch

    def miner(self, name, epoch, confirm):
        self.made.setdefault(name, []).append(epoch)
        return Supplier(name)

    async def highest_fence(self, addresses):
        if self.fence is None:
            raise RedisUnavailable("Redis is away")
        return self.fence


def fleet(*names):
    suppliers = Made(*names)
    made = SupplierManager(suppliers, LatestBlock(), 30.0)
    made.keeper = Keeper()
    return made, suppliers


async def test_a_shard_that_is_gained_is_mined_under_its_epoch_and_nothing_of_it_runs_once_it_is_lost():
    made, suppliers = fleet(*(f"supplier {n}" for n in range(40)))
    for shard in range(4):
        await made.on_acquired(shard, 5 + shard)
    assert set(made.running) == set(suppliers.addresses)
    assert {epoch for epochs in suppliers.made.values() for epoch in epochs} == {5, 6, 7, 8}
    assert [*suppliers.kept.values()] == [5, 6, 7, 8], "on the volume"
    tasks = dict(made._tasks)
    await made.on_lost(2)
    gone = set(suppliers.addresses) - set(made.running)
    assert gone == {name for name in suppliers.addresses if shard_of(name, 4) == 2} != set()
    assert all(tasks[name].done() for name in gone)
    assert not any(tasks[name].done() for name in made.running)
    await made._align()
    assert gone.isdisjoint(made.running), "not begun again either"
    await made.stop()
    assert all(task.done() for task in tasks.values())


@pytest.mark.timeout(20)
async def test_a_miner_without_shards_pauses_though_standbys_are_left():
    made, _ = fleet("a")
    made._standbys["a"] = None  # they are dropped in a turn of the loop that comes only if this one pauses
    listening = asyncio.create_task(made.listen(NotificationReader(None, RedisKeys("unit"))))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not listening.done()
    listening.cancel()


@pytest.mark.parametrize(("volume", "fence", "epoch"), [(41, None, 41), (41, 7, 41), (7, 41, 41), (0, 41, 41)])
async def test_the_highest_epoch_of_volume_and_fences_is_known_and_the_volumes_while_redis_is_away(
    volume, fence, epoch
):
    made, suppliers = fleet("a")
    suppliers.kept[1], suppliers.fence = volume, fence
    assert await made.known_epoch(1) == epoch


@pytest.mark.parametrize("error", [ValueError("no number"), KeyError("r"), TypeError("null")])
async def test_a_damaged_value_that_reading_meets_does_not_interrupt_deciding(error):
    board, deciding, go_on, failed = LatestBlock(), asyncio.Event(), asyncio.Event(), []

    async def waits(_):
        deciding.set()
        await go_on.wait()

    async def breaks(limit):
        await deciding.wait()
        failed.append(error)
        raise error

    supplier = Supplier("a", waits)
    supplier.tail = breaks
    task = asyncio.create_task(running(supplier, board).run())
    board.publish(block(1))
    await until(lambda: failed)
    for _ in range(20):  # in which the failure would have ended the decision
        await asyncio.sleep(0)
    go_on.set()
    await until(lambda: task.done() or supplier.decided == [1])
    assert supplier.decided == [1]
    task.cancel()


async def test_what_nobody_foresaw_ends_neither_the_supplier_nor_the_others(monkeypatch):
    monkeypatch.setattr("pocket_miner.suppliers.fleet._AGAIN_SECONDS", 0.0)
    made, suppliers = fleet("a", "b")
    failing = []

    def miner(name, epoch, confirm):
        supplier = Supplier(name)
        if name == "a":

            async def breaks(limit):
                failing.append(1)
                raise ZeroDivisionError("a defect")

            supplier.tail = breaks
        return supplier

    suppliers.miner = miner
    for shard in range(4):
        await made.on_acquired(shard, 1)
    await until(lambda: len(failing) >= 3)
    assert set(made.running) == {"a", "b"}
    assert not any(task.done() for task in made._tasks.values())
    await made.stop()


async def test_what_nobody_foresaw_in_a_loop_beside_the_mining_is_told_and_the_loop_begun_anew(captured_logs):
    before = REGISTRY.get_sample_value("pocket_miner_errors_total", {"step": "unforeseen"}) or 0
    runs, pauses = [], []

    async def loop():
        runs.append(1)
        if len(runs) < 3:
            raise ZeroDivisionError("a defect")

    async def pause(seconds):
        pauses.append(seconds)

    await supervise("the figures", loop, pause)
    assert (len(runs), len(pauses)) == (3, 2)
    assert [(row["event"], row["task"]) for row in captured_logs] == [
        ("background task failed, restarting", "the figures")
    ] * 2
    assert REGISTRY.get_sample_value("pocket_miner_errors_total", {"step": "unforeseen"}) == before + 2


@pytest.mark.parametrize("error", [VolumeCorrupted("a"), asyncio.CancelledError()])
async def test_damage_and_cancellation_end_a_loop_beside_the_mining(error):
    async def loop():
        raise error

    with pytest.raises(type(error)):
        await supervise("the figures", loop)


@pytest.mark.parametrize("where", ["tail", "on_block"])
async def test_a_damaged_volume_is_told_to_whoever_can_end_the_miner_and_not_tried_again(where):
    made, suppliers = fleet("a", "b")

    async def malformed(*_):
        raise VolumeCorrupted("/data/mirror/end-10.sqlite")

    def miner(name, epoch, confirm):
        supplier = Supplier(name)
        if name == "a":
            setattr(supplier, where, malformed)
        return supplier

    suppliers.miner = miner
    made._board.publish(block(1))
    for shard in range(4):
        await made.on_acquired(shard, 1)
    found = await asyncio.wait_for(made.corruption, 10)
    assert found.path == "/data/mirror/end-10.sqlite"
    await until(made._tasks["a"].done)
    assert not made._tasks["b"].done()
    await made.stop()


@pytest.mark.parametrize("seen", [0, 3])
async def test_a_board_returns_at_once_when_there_is_news_and_after_a_while_without(seen):
    board = LatestBlock()
    await asyncio.wait_for(board.wait_newer(seen, 0.01), 5)
    board.publish(block(4))
    await asyncio.wait_for(board.wait_newer(seen, 1000), 5)
    waiting = asyncio.create_task(board.wait_newer(4, 1000))
    await asyncio.sleep(0)
    board.publish(block(5))
    await asyncio.wait_for(waiting, 5)
