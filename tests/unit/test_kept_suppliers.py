"""Which suppliers a miner keeps, starts again and lets go, and what it works on while owners are unknown."""

import asyncio
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from pocket.redis_store.seals import SessionSeal
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.storage.ended_sessions import _SETTLED_BLOCKS as SETTLED
from pocket_miner.storage.relay_store import RelayStore, SessionEndFile
from pocket_miner.suppliers import standby
from pocket_miner.suppliers.fleet import SupplierManager
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.sealed_work import SealedWork
from supplier_parts import supplier_miner
from supplier_workers import Chained, Supplier, block, until


class Suppliers:
    """Two suppliers whose keys are loaded."""

    def __init__(self):
        self.addresses, self.config, self.shards, self.chain = ["a", "b"], self, 1, Chained()

    def miner(self, name, epoch, confirm):
        return Supplier(name, sessions={"open": None})


@pytest.fixture
async def fleet():
    made = SupplierManager(Suppliers(), LatestBlock(), 30.0)
    made._epochs[0] = 5
    await made._align()
    yield made
    await made.stop()


def shown(role):
    return REGISTRY.get_sample_value("pocket_miner_suppliers", {"role": role})


async def test_a_supplier_without_a_key_is_mined_until_its_worker_has_ended_and_then_let_go(fleet):
    assert (set(fleet.running), shown("owner"), shown("standby")) == ({"a", "b"}, 2, 0)
    fleet._suppliers.addresses = ["b"]
    await fleet._align()
    assert set(fleet.running) == {"a", "b"}, "sessions of it are open"
    assert fleet._running["a"].retiring_since is not None
    assert fleet._running["b"].retiring_since is None
    fleet._tasks["a"].cancel()
    await asyncio.wait({fleet._tasks["a"]})
    await fleet._align()
    assert (set(fleet.running), shown("owner")) == ({"b"}, 1)


async def test_a_worker_that_met_another_owner_is_started_again_while_the_lease_is_ours(fleet):
    before = fleet._running["a"]
    for owned in (True, False):
        fleet._tasks["a"].cancel()
        await asyncio.wait({fleet._tasks["a"]})
        if not owned:
            fleet._epochs.clear()
        await fleet._align()
        assert ("a" in fleet.running) is owned
        assert fleet._running.get("a") is not before


async def test_sealed_sessions_are_worked_on_at_each_block_until_it_is_done():
    board, worked, due = LatestBlock(), [], [False, True, True]
    work = SealedWork(None, board, None, 0.001, lambda: False, list)

    async def at_block():
        worked.append(board.height)
        return due.pop(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SealedWork, "at_block", lambda self: at_block())
        task = asyncio.create_task(work.run())
        board.publish(block(4))
        await until(lambda: len(worked) == 1)
        board.publish(block(5))
        await until(lambda: len(worked) == 2)
        board.publish(block(6))
        await until(lambda: len(worked) == 3)
        task.cancel()
        await asyncio.wait({task})
    assert worked == [4, 5, 6]


@pytest.mark.parametrize(("name", "raised"), [("SQLITE_CORRUPT", True), ("SQLITE_IOERR", False)])
def test_a_file_that_cannot_be_read_is_skipped_and_a_damaged_one_is_told(tmp_path, monkeypatch, name, raised):
    error = sqlite3.DatabaseError("trouble")
    error.sqlite_errorname = name
    read = SessionEndFile.sessions

    def sessions(self):
        if "end-20" in self.path.name:
            raise error
        return read(self)

    with RelayStore(tmp_path) as store:
        for end in (10, 20):
            store.file(end).add_session("alice", f"s{end}", b"header")
        monkeypatch.setattr(SessionEndFile, "sessions", sessions)
        if raised:
            with pytest.raises(sqlite3.DatabaseError) as found:
                store.sessions()
            assert corruption_in(found.value) is not None
            return
        assert [end for end, _ in store.sessions()] == [10]
        assert store._skipped == {20}
        store.remove(10, "alice", "s10")
        with pytest.raises(sqlite3.DatabaseError):
            store.sessions()


def test_what_a_transaction_costs_is_saved_once_and_changed_only_to_correct_it(tmp_path):
    with closing(Audit(tmp_path / "audit.sqlite")) as audit:
        audit.spend("alice", "hash", "claim", {"s": 10})
        audit.spend("alice", "hash", "claim", {"s": 99})
        assert audit.spent("alice", "s") == 10
        audit.spend("alice", "hash", "claim", {"s": 7}, correct=True)
        assert audit.spent("alice", "s") == 7


async def test_a_cutoff_does_not_wait_for_a_peer_that_hangs():
    miner, parts = supplier_miner()
    miner.merge_seconds, miner._peer_merge.needed = 0.0, True
    miner._cutoff = SimpleNamespace(changes_at=0, session_end=0, height=0)

    async def hangs(supplier):
        await asyncio.Event().wait()

    miner.peers.seals = hangs
    await asyncio.wait_for(miner._advance_cutoff(16), 5)
    assert parts.names()[-2:] == ["cutoff", "discover"]
    assert miner._cutoff.height == 16


class Sealed:
    """Suppliers with sealed sessions, whose miners note the blocks that they work on."""

    def __init__(self, *addresses):
        self.addresses, self.audit, self.worked = list(addresses), self, []

    def suppliers_with_open_seals(self):
        return ["b", "a", "elsewhere"]

    def detached(self, name):
        return SimpleNamespace(on_block=lambda at, params: self.work(name, at.height))

    async def work(self, name, height):
        self.worked.append((name, height))


async def test_sealed_sessions_are_worked_on_once_their_owner_was_unknown_for_long_enough(monkeypatch):
    now, known, unowned, mined = [100.0], [False], set(), []
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    suppliers, board = Sealed("a", "b"), LatestBlock()
    board.publish(block(4))
    work = SealedWork(
        suppliers, board, Chained(), 1.0, lambda: known[0], lambda: mined, grace_seconds=15.0,
        unowned=lambda addresses: unowned & set(addresses),
    )  # fmt: skip
    monkeypatch.setattr(Chained, "at", lambda self, height: asyncio.sleep(0), raising=False)
    for second, done in ((100.0, False), (114.9, False), (115.0, True), (116.0, True)):
        now[0] = second
        assert await work.at_block() is done
    assert suppliers.worked == [("b", 4), ("a", 4)] * 2
    suppliers.worked.clear()
    mined.append("b")
    assert await work.at_block()
    assert suppliers.worked == [("a", 4)], "those that are mined here are left to their owner"
    known[0] = True
    assert not await work.at_block()
    known[0], now[0] = False, 120.0
    assert not await work.at_block(), "the owner was known in between"
    known[0], unowned = True, {"a"}
    now[0] = 140.0
    assert await work.at_block()
    assert suppliers.worked[1:] == [("a", 4)], "nobody holds its Lease"


@pytest.mark.parametrize(("height", "left"), [(10 + SETTLED, ["old", "unsealed"]), (11 + SETTLED, ["unsealed"])])
async def test_leftovers_go_with_their_tombstone_or_long_after_their_settlement(tmp_path, monkeypatch, height, left):
    async def finished(self, session_ids):
        return {"tombstone"} & set(session_ids)

    monkeypatch.setattr(standby.StreamReader, "finished", finished)
    with closing(Audit(tmp_path / "audit.sqlite")) as audit, RelayStore(tmp_path) as store:
        for name, end in (("tombstone", 10), ("held", 10)):
            store.file(end).add_session("alice", name, b"header")
        store.file(10).add_session("followed", "tombstone", b"header")
        for name in ("old", "tombstone", "held"):
            audit.save_seals("alice", 10, [SessionSeal(name, bytes(48), bytes(32), 13, 1)], "")
        audit.spend("alice", "hash", "claim", {"unsealed": 10})
        removed = await standby.delete_leftovers(store, audit, None, None, {"followed"}, height)
        assert [(row.supplier, row.session_id) for _, row in store.sessions()] == [
            ("alice", "held"), ("followed", "tombstone"),
        ]  # fmt: skip
        assert sorted(name for _, name, _ in audit.unfinished()) == sorted(["held", *left])
        assert removed == 1 + ("old" not in left)
