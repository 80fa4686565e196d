"""Sessions that end together: each recorded, published and deleted once, and none that another owner has ended."""

from collections import Counter
from dataclasses import replace

import pytest

from pocket.chain.model import Block
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_miner.relay_rows import Leaf
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.settlement.concluding import TOMBSTONE_BLOCKS, Concluder
from pocket_miner.status.report import SupplierReport
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.relay_store import RelayStore

PARAMS = SharedParams()
HEADER = SessionHeader("app", "eth", "one", 1, 10)
SETTLEMENT = PARAMS.windows(1).settlement


def session(name, start=1):
    header = replace(HEADER, session_id=name, session_start_block_height=start, session_end_block_height=start + 9)
    return TrackedSession(header, terms=LeafTerms("alice", header, b"\xff" * 32, 100), params=PARAMS)


def block(height=SETTLEMENT):
    return Block(height, bytes(32), Timestamp.of_nanoseconds(10**18))


class Elsewhere:
    """Redis, peers and the chain's nodes: no settlement has an event, and what others have ended is set by the test."""

    def __init__(self):
        self.did, self.away, self.tombstones, self.at_peers, self.asked = [], False, set(), (True, set()), []

    async def finish(self, session_id, end):
        self._reach()
        self.did.append(("finish", session_id, end))

    async def forget_before(self, height):
        self.did.append(("forget", height))

    async def check_fence(self):
        self._reach()

    async def costs(self, _):
        return {}

    def _reach(self):
        if self.away:
            raise RedisUnavailable("away")

    async def finished(self, ids):
        self._reach()
        return self.tombstones & set(ids)

    async def ended(self, supplier, session_ids):
        self.asked.append((supplier, list(session_ids)))
        return self.at_peers

    async def events(self, height, supplier):
        return ()

    async def events_by_node(self, height, supplier, now):
        return dict.fromkeys(("one", "two"), ())

    async def settle(self, *_):
        return

    def of(self, supplier, session_id):
        return 7


@pytest.fixture
def concluding(tmp_path):
    """Return a function that makes a miner's part of some sessions on one volume."""
    world, audit = Elsewhere(), Audit(tmp_path / "audit.sqlite")
    with RelayStore(tmp_path) as relay_store:

        def made(*sessions, peers=True):
            for row in sessions:
                relay_store.file(row.end).add_session("alice", row.session_id, row.header.encode())
            others, tracked = world if peers else None, {row.session_id: row for row in sessions}
            return Concluder(
                "alice", world, world, audit, relay_store, world, world, SupplierReport(), others, tracked
            )  # fmt: skip

        yield world, made
    audit.close()


async def test_sessions_are_recorded_published_and_deleted_once_and_pruned_for_once(concluding):
    world, made = concluding
    one, two = session("one"), session("two")
    concluder = made(one, two)
    concluder.relay_store.file(10).store("alice", "two", [Leaf(b"k" * 32, b"d" * 48, 100, b"r")], 0, "1-0", "")
    await concluder.conclude([one, two], block(), world)
    assert (concluder.sessions, concluder.is_pending, concluder.finished) == ({}, False, {"one": 10, "two": 10})
    assert Counter(row[0] for row in world.did) == {"finish": 2, "forget": 1}
    assert ("forget", 10 - TOMBSTONE_BLOCKS) in world.did
    rows = concluder.audit.outcomes()
    assert [(row["session_id"], row["outcome"], row["details"]["fees_upokt"]) for row in rows] == [
        ("one", "claim_missed", 7), ("two", "claim_missed", 7),
    ]  # fmt: skip
    assert [row["details"].get("relays", 0) for row in rows] == [0, 1]
    assert world.asked == [], "they settled since this owner began"
    assert concluder.report.lost_recently == 2
    again = made(session("one"))
    await again.conclude(list(again.sessions.values()), block(SETTLEMENT + 1), world)
    assert (len(again.audit.outcomes()), again.sessions) == (2, {}), "it is not recorded again"
    assert again.report.lost_recently == 0, "nor counted"
    later = session("three", 11)
    third = made()
    third._pruned_through = 10
    await third.conclude([later], block(SETTLEMENT + 10), world)
    assert world.did[-1] == ("forget", 20 - TOMBSTONE_BLOCKS)
    assert third.report.lost_recently == 1, "the volume has no file of it"


async def test_a_session_whose_end_is_not_certain_waits_and_delays_no_other(concluding):
    world, made = concluding
    unknown, known = TrackedSession(replace(HEADER, session_id="unknown")), session("one")
    concluder = made(unknown, known)
    await concluder.conclude([unknown, known], block(), world)
    assert (list(concluder.sessions), list(concluder.finished)) == (["unknown"], ["one"])


async def test_what_is_recorded_is_deleted_once_redis_is_back(concluding):
    world, made = concluding
    one = session("one")
    concluder = made(one)
    world.away = True
    with pytest.raises(RedisUnavailable):
        await concluder.conclude([one], block(), world)
    assert (concluder.is_pending, len(concluder.audit.outcomes())) == (True, 1)
    world.away = False
    await concluder.conclude([], block(SETTLEMENT + 1), world)
    assert (concluder.is_pending, world.did[0]) == (False, ("finish", "one", 10))


@pytest.mark.parametrize(
    ("tombstones", "at_peers", "peers", "away", "recorded"),
    [
        (set(), (True, set()), True, False, 2), ({"one"}, (True, set()), True, False, 1),
        (set(), (True, {"two"}), True, False, 1), (set(), (False, {"two"}), True, False, 0),
        (set(), (True, set()), False, False, 2), (set(), (True, set()), True, True, 0),
    ],
)  # fmt: skip
async def test_what_a_former_owner_may_have_ended_is_asked_for_everywhere_first(
    concluding, tombstones, at_peers, peers, away, recorded
):
    world, made = concluding
    one, two = session("one"), session("two")
    concluder = made(one, two, peers=peers)
    concluder.owner_since = SETTLEMENT
    world.tombstones, world.at_peers, world.away = tombstones, at_peers, away
    await concluder.conclude([one, two], block(), world)
    assert len(concluder.audit.outcomes()) == recorded
    left = [name for name in ("one", "two") if name not in tombstones]
    assert world.asked == ([("alice", left)] if peers else [])
    gone = tombstones | at_peers[1]
    assert set(concluder.sessions) == ({"one", "two"} - gone if recorded == 0 else set())
    for height, waits in ((SETTLEMENT + 4, recorded == 0), (SETTLEMENT + 5, False)):
        if not away:
            await concluder.conclude(list(concluder.sessions.values()), block(height), world)
            assert bool(concluder.sessions) is waits, "for five blocks"
