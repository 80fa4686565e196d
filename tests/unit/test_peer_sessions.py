"""Each session that a peer states is judged on its own, in whatever order it states them."""

from dataclasses import dataclass, field

import pytest

from pocket.errors import ChainUnavailable
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import Timestamp, TransactionPlan, create_claim_message, sign_transaction
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.stream_reader import StreamExtent
from pocket_miner.ingest import peer_merge
from pocket_miner.ingest.peer_merge import PeerMerge
from pocket_miner.ingest.peers import PeerSession
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.relay_rows import Leaf
from pocket_miner.sessions.evidence import Fact, Statement
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.relay_store import RelayStore
from world import key

NAMES = ("missing", "in the stream", "ended", "rejected", "unknown terms", "sealed", "no ring")
STREAM = StreamExtent("5-0", 5)


def header(name):
    return SessionHeader("app", "eth", name, 1, 10)


def row(name):
    return PeerSession("http://peer", name, header(name).encode(), "5-0", "", 5 if name == "in the stream" else 9)


@dataclass
class Peer:
    """A peer that states sessions, has relays of one of them, and is asked for those."""

    names: tuple
    complete: bool = True
    urls: frozenset = frozenset({"http://peer"})
    asked: list = field(default_factory=list)

    async def sessions(self, supplier):
        return True, [row(name) for name in self.names]

    async def seals(self, supplier):
        return []

    async def relays(self, session, supplier, end, take):
        self.asked.append(session.session_id)
        return self.complete


@dataclass
class Tail:
    supplier: str = "alice"
    redis: object = None

    async def extents(self, session_ids):
        return dict.fromkeys(session_ids, STREAM)


@pytest.fixture
def relay_store(tmp_path):
    with RelayStore(tmp_path) as made:
        yield made


@pytest.fixture
def merge(relay_store, monkeypatch):
    """Return a function that merges with a peer that states these sessions, and returns (asked, still needed)."""
    sessions = {}
    for name in NAMES:
        terms = LeafTerms("alice", header(name), b"\xff" * 32, 100)
        sessions[name] = TrackedSession(header(name), terms=terms, params=SharedParams())
        relay_store.file(10).add_session("alice", name, header(name).encode())
    sessions["rejected"].terms = sessions["unknown terms"].terms = None
    sessions["rejected"].evidence.add(Statement(Fact.NOT_IN_SESSION, "node", 3))
    root = bytes(32) + (200).to_bytes(8) + (2).to_bytes(8)
    sessions["sealed"].seal = SessionSeal("sealed", root, bytes(32), 13, 1)
    leaves = [Leaf(number.to_bytes(32), b"digest", 100, b"relay") for number in range(2)]
    relay_store.file(10).add("alice", "sealed", leaves)

    async def ring_of(chain, of):
        if of.session_id == "no ring":
            raise ChainUnavailable("away")

    async def unknown(*_):
        raise ChainUnavailable("away")

    async def signed(_):
        return False

    monkeypatch.setattr(peer_merge, "ring_of", ring_of)
    monkeypatch.setattr("pocket_miner.ingest.relay_consumer.ask_terms", unknown)

    async def merged(*names, complete=True):
        peer = Peer(names, complete)
        made = PeerMerge(RelayConsumer(Tail(), relay_store, None, sessions), relay_store, sessions, signed)
        await made.merge(peer, {"ended": 10})
        return peer.asked, made.needed

    return merged


@pytest.mark.parametrize("name", NAMES)
async def test_a_peer_is_asked_for_a_sessions_relays_unless_they_cannot_count_or_are_here(merge, name):
    asked, needed = await merge(name)
    assert asked == (["missing"] if name == "missing" else [])
    assert needed is (name in ("unknown terms", "no ring")), "again, once the chain answers"


@pytest.mark.parametrize("first", NAMES)
async def test_what_is_found_of_one_session_changes_nothing_for_the_next(merge, first):
    asked_alone, needed_alone = await merge(first)
    for name in NAMES:
        asked, needed = await merge(name)
        assert await merge(first, name) == ([*asked_alone, *asked], needed_alone or needed)


@pytest.mark.parametrize("names", [("missing",), ("missing", "sealed"), ("sealed", "missing")])
async def test_relays_that_a_peer_did_not_give_to_the_end_are_asked_for_again(merge, names):
    assert await merge(*names, complete=False) == (["missing"], True)


@pytest.mark.parametrize("signed", [True, False])
async def test_a_root_counts_as_claimed_if_the_suppliers_key_signed_its_claim(signed):
    root = bytes(47) + b"\x01"
    session = TrackedSession(header("s"))
    session.other_seals = [SessionSeal("s", root, bytes(32), 13, 1)]
    messages = tuple(create_claim_message("alice", header(name), root) for name in ("s", "unknown"))
    plan = TransactionPlan(messages, "pocket", 1, 5000, 1, Timestamp(5, 0))
    raw = sign_transaction(plan, key("alice")).raw

    class Claiming(Peer):
        async def claims(self, supplier, end):
            return {raw, b"\xff"}

    async def has_signed(given):
        assert given == raw
        return signed

    sessions = {"s": session}
    await PeerMerge(RelayConsumer(Tail(), None, None, sessions), None, sessions, has_signed).merge(Claiming(()), {})
    assert session.signed_roots == ({root} if signed else set())


@pytest.mark.parametrize("known", [True, False])
async def test_a_seal_that_a_peer_states_is_no_seal_of_ours_and_its_sessions_are_tracked(
    relay_store, monkeypatch, known
):
    seal, tracked = SessionSeal("s", bytes(48), bytes(32), 13, 1), []
    sessions = {"s": TrackedSession(header("s"))} if known else {}

    class Stating(Peer):
        async def seals(self, supplier):
            return [seal, SessionSeal("unknown", bytes(48), bytes(32), 13, 1)]

        async def claims(self, supplier, end):
            return set()

    async def unknown(*_):
        raise ChainUnavailable("away")

    async def track(self, headers):
        tracked.append(dict(headers))
        sessions["s"] = TrackedSession(header("s"))

    monkeypatch.setattr("pocket_miner.ingest.relay_consumer.ask_terms", unknown)
    monkeypatch.setattr(RelayConsumer, "track", track)
    made = PeerMerge(RelayConsumer(Tail(), relay_store, None, sessions), relay_store, sessions, None)
    await made.merge(Stating(("s",)), {})
    assert (sessions["s"].seal, sessions["s"].other_seals) == (None, [seal])
    assert tracked == ([] if known else [{"s": header("s").encode()}])
    assert made.needed, "its terms are unknown"
