"""One answer ends no session, replaces no terms and deletes no data: a second one decides."""

import sqlite3
from dataclasses import dataclass, field, replace

import pytest

from pocket.chain.model import Block, TransactionResult
from pocket.errors import ChainUnavailable, FailureClass
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.redis_store.stream_reader import StreamExtent
from pocket_miner import miner_metrics
from pocket_miner.ingest import peer_merge, relay_consumer
from pocket_miner.ingest.entry_validation import EntryValidator
from pocket_miner.ingest.peer_merge import PeerMerge
from pocket_miner.ingest.peers import PeerSession
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.relay_rows import Leaf
from pocket_miner.sessions.evidence import REJECTIONS, Fact, Statement
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.terms import SessionTerms
from pocket_miner.sessions.tracked_session import Skip, TrackedSession
from pocket_miner.settlement.concluding import TOMBSTONE_BLOCKS, Concluder, without_event
from pocket_miner.status.report import SupplierReport
from pocket_miner.storage.outcomes import SessionOutcome
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.sealed_work import SealedWork

PARAMS = SharedParams()
HEADER = SessionHeader("app", "eth", "s", 1, 10)
SETTLEMENT = PARAMS.windows(1).settlement
TERMS = LeafTerms("alice", HEADER, b"\xff" * 32, 100)


def block(height):
    return Block(height, bytes(32), Timestamp.of_nanoseconds(10**18))


def tracked(*, terms=TERMS, sealed=0):
    session = TrackedSession(HEADER, terms=terms, params=PARAMS)
    if sealed:
        root = bytes(32) + (100 * sealed).to_bytes(8, "big") + sealed.to_bytes(8, "big")
        session.seal = SessionSeal("s", root, bytes(32), 13, 1)
    return session


def leaf(number):
    return Leaf(number.to_bytes(32, "big"), b"digest", 100, b"relay %d" % number)


@pytest.fixture
def relay_store(tmp_path):
    with RelayStore(tmp_path) as made:
        made.file(10).add_session("alice", "s", HEADER.encode())
        yield made


@dataclass
class Settlements:
    """Nodes that show no event of a session in its settlement block."""

    nodes: tuple = ("one", "two")
    error: Exception | None = None

    async def events(self, height, supplier):
        if self.error is not None:
            raise self.error
        return ()

    async def events_by_node(self, height, supplier, now):
        return dict.fromkeys(self.nodes, ())


@dataclass
class Store:
    away: bool = False
    finished: list = field(default_factory=list)

    async def finish(self, session_id, end):
        if self.away:
            raise RedisUnavailable("away")
        self.finished.append(session_id)

    async def forget_before(self, height):
        self.forgotten = height

    async def costs(self, session_id):
        return {}


class Payments:
    """A volume without a payment: no claim was sent."""

    def payments(self, supplier, session_id):
        return []


def concluder(relay_store, store=None):
    return Concluder("alice", None, store or Store(), Payments(), relay_store, None, None, SupplierReport(), None, {})


@pytest.mark.parametrize("kind", list(FailureClass))
async def test_an_error_of_reading_a_settlement_ends_no_session_and_only_that_of_pruned_nodes_is_no_error(
    relay_store, kind
):
    error = ChainUnavailable("no events", failure=kind)
    result = concluder(relay_store)._result(tracked(sealed=3), block(SETTLEMENT), Settlements(error=error))
    if kind is FailureClass.PRUNED_NODE:
        assert await result is None
        return
    with pytest.raises(ChainUnavailable):
        await result


@pytest.mark.parametrize(
    ("session", "rejections", "outcome"),
    [
        (tracked(), 0, SessionOutcome.CLAIM_MISSED),
        (tracked(terms=None), 0, None),  # why it cannot be claimed is not known yet
        (tracked(terms=None), 1, None),
        (tracked(terms=None), 2, SessionOutcome.FORFEITED),
    ],
)
async def test_a_session_without_a_settlement_ends_once_two_nodes_agree_and_the_reason_is_known(
    relay_store, session, rejections, outcome
):
    for height in range(rejections):
        session.evidence.add(Statement(Fact.NOT_IN_SESSION, "node", height))
    found = await concluder(relay_store)._result(session, block(SETTLEMENT), Settlements())
    assert (found and found.outcome) == outcome


async def test_one_node_has_to_show_no_settlement_at_two_blocks(relay_store):
    session = tracked()
    for height, ended in ((SETTLEMENT, False), (SETTLEMENT, False), (SETTLEMENT + 1, True)):
        found = await concluder(relay_store)._result(session, block(height), Settlements(("one",)))
        assert (found is not None) is ended


@pytest.mark.parametrize("sealed", [0, 3])
async def test_that_no_node_has_the_events_any_more_counts_long_after_the_settlement_and_twice(relay_store, sealed):
    session = tracked(sealed=sealed)
    pruned = Settlements(error=ChainUnavailable("no events", failure=FailureClass.PRUNED_NODE))
    late = SETTLEMENT + 101
    for height, ended in ((SETTLEMENT + 1, False), (SETTLEMENT + 2, False), (SETTLEMENT + 100, False), (late, True)):
        found = await concluder(relay_store)._result(session, block(height), pruned)
        assert (found is not None) is ended
    assert found.outcome is (SessionOutcome.UNSEEN if sealed else SessionOutcome.CLAIM_MISSED)
    alone = tracked(sealed=sealed)
    for height, ended in ((late, False), (late, False), (late + 1, True)):
        assert (await concluder(relay_store)._result(alone, block(height), pruned) is not None) is ended


@pytest.mark.parametrize(("code", "outcome"), [(0, None), (11, SessionOutcome.CLAIM_MISSED)])
@pytest.mark.parametrize("told_by", ["volume", "Redis"])
async def test_nodes_without_an_event_of_a_claim_that_is_in_a_block_have_lost_it(relay_store, code, outcome, told_by):
    @dataclass
    class Known:
        async def costs(self, session_id):
            return {"hash": ("claim", 100)} if told_by == "Redis" else {}

        def payments(self, supplier, session_id):
            return [("claim", "hash")] if told_by == "volume" else [("proof", "other")]

        async def transaction(self, tx_hash):
            assert tx_hash == "hash", "only a claim counts"
            return TransactionResult(tx_hash, code, "", "")

    made = concluder(relay_store, Known())
    made.audit = made.chain = Known()
    found = await made._result(tracked(sealed=3), block(SETTLEMENT), Settlements())
    assert (found and found.outcome) == outcome


@pytest.mark.parametrize("skip", [Skip.EMPTY, Skip.UNPROFITABLE, Skip.UNITS_MISMATCH])
def test_why_a_session_was_not_claimed_counts_only_while_it_has_no_seal(skip):
    session, sealed = tracked(), tracked(sealed=3)
    session.skip = sealed.skip = skip
    assert without_event(session).outcome is not SessionOutcome.CLAIM_MISSED
    assert without_event(sealed).outcome is SessionOutcome.CLAIM_MISSED


@dataclass
class Others:
    """Redis and the other miners, each of which answers or does not."""

    redis: bool
    peers: bool
    ended_there: tuple = ()

    async def finished(self, session_ids):
        if not self.redis:
            raise RedisUnavailable("away")
        return set()

    async def ended(self, supplier, session_ids):
        return self.peers, set(self.ended_there)

    def forget(self, supplier, session_ids):
        self.forgotten = session_ids


@pytest.mark.parametrize(("redis", "peers"), [(True, True), (True, False), (False, True), (False, False)])
async def test_what_a_former_owner_may_have_concluded_waits_some_blocks_for_redis_and_peers(relay_store, redis, peers):
    made = concluder(relay_store)
    made.tail = made.peers = Others(redis, peers)
    made.owner_since = SETTLEMENT
    session = tracked(sealed=3)
    for height in (SETTLEMENT, SETTLEMENT + 4):
        assert await made._not_ended_elsewhere([session], block(height)) == ([session] if redis and peers else [])
    assert await made._not_ended_elsewhere([session], block(SETTLEMENT + 5)) == [session]
    made.owner_since = SETTLEMENT - 1
    assert await made._not_ended_elsewhere([session], block(SETTLEMENT)) == [session], "it settled under this owner"


async def test_what_a_peer_has_concluded_is_not_mined_any_more(relay_store):
    made = concluder(relay_store)
    made.tail = made.peers = made.audit = Others(redis=True, peers=False, ended_there=("s",))
    made.owner_since = SETTLEMENT
    session = tracked(sealed=3)
    assert await made._not_ended_elsewhere([session], block(SETTLEMENT)) == []
    assert (made.finished, made.audit.forgotten) == ({"s": 10}, ["s"])


async def test_relays_of_an_ended_session_stay_on_the_volume_until_redis_has_its_tombstone(relay_store):
    store = Store(away=True)
    ending = concluder(relay_store, store)
    ending._stop_mining(tracked())
    with pytest.raises(RedisUnavailable):
        await ending.drop_ended()
    assert relay_store.file(10).has("alice", "s")
    store.away = False
    await ending.drop_ended()
    assert (store.finished, store.forgotten) == (["s"], 10 - TOMBSTONE_BLOCKS)
    assert relay_store.known(10) is None


async def test_a_file_that_cannot_be_deleted_from_keeps_no_other_session_on_the_volume(relay_store, monkeypatch):
    later = SessionHeader("app", "eth", "later", 11, 20)
    relay_store.file(20).add_session("alice", "later", later.encode())
    ending, remove = concluder(relay_store), relay_store.remove
    for header in (HEADER, later):
        ending._stop_mining(TrackedSession(header, terms=TERMS, params=PARAMS))
    with monkeypatch.context() as patch:
        patch.setattr(relay_store, "remove", lambda end, *row: failing() if end == 10 else remove(end, *row))
        with pytest.raises(sqlite3.OperationalError):
            await ending.drop_ended()
    assert (relay_store.known(10) is not None, relay_store.known(20)) == (True, None)
    await ending.drop_ended()
    assert relay_store.known(10) is None


def failing():
    raise sqlite3.OperationalError("disk I/O error")


@dataclass
class Tail:
    supplier: str = "alice"
    redis: object = None

    async def extents(self, session_ids):
        return dict.fromkeys(session_ids, StreamExtent("5-0", 5))


def consumer(relay_store, sessions):
    return RelayConsumer(Tail(), relay_store, None, sessions)


OTHER = replace(TERMS, compute_units_per_relay=7)


@pytest.mark.parametrize(
    ("rounds", "terms", "confirmed"),
    [
        ([[TERMS]], TERMS, True),
        ([[TERMS, TERMS, OTHER]], TERMS, True),
        ([[TERMS, OTHER]], TERMS, False),  # no answer outweighs the other
        ([[TERMS, OTHER], [TERMS]], TERMS, True),
        ([[OTHER]], TERMS, False),  # one node may lag
        ([[OTHER], [OTHER]], OTHER, True),
        ([[OTHER, OTHER]], OTHER, True),
        ([[OTHER, OTHER, TERMS]], OTHER, True),
        ([[OTHER], [TERMS]], TERMS, True),
        ([[], []], TERMS, False),
    ],
)
async def test_the_first_terms_are_replaced_only_by_those_of_two_answers(
    relay_store, monkeypatch, rounds, terms, confirmed
):
    session = tracked()
    made = consumer(relay_store, {"s": session})
    for answers in rounds:

        async def every_node(*_, answers=answers):
            return {f"node {n}": (12, SessionTerms(PARAMS, found)) for n, found in enumerate(answers)}

        monkeypatch.setattr(relay_consumer, "ask_terms_of_every_node", every_node)
        await made.confirm_terms(session, 12)
    assert (session.terms, session.terms_confirmed) == (terms, confirmed)


@pytest.mark.parametrize(("stored", "kept"), [(TERMS.name, 1), (OTHER.name, 0), ("", 0)])
async def test_relays_that_were_stored_by_other_or_unknown_terms_are_validated_again(
    relay_store, monkeypatch, stored, kept
):
    async def every_node(*_):
        return {f"node {n}": (12, SessionTerms(PARAMS, TERMS)) for n in range(2)}

    monkeypatch.setattr(relay_consumer, "ask_terms_of_every_node", every_node)
    relay_store.file(10).add("alice", "s", [leaf(1)], stored)
    session = tracked()
    await consumer(relay_store, {"s": session}).confirm_terms(session, 12)
    assert relay_store.file(10).count("alice", "s") == kept, "no relay of these terms has that content"
    assert relay_store.file(10).terms_of("alice", "s") in (TERMS.name, None)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_terms_that_a_node_states_retract_what_others_had_against_the_session(relay_store, rejection):
    session = tracked()
    session.terms, made = None, consumer(relay_store, {"s": session})
    for node in ("one", "two"):
        made._accept(node, 12, session, SessionTerms(PARAMS, None, rejection, "no"))
    assert session.evidence.rejection() is not None
    made._accept("three", 13, session, SessionTerms(PARAMS, TERMS))
    assert (session.evidence.rejection(), session.terms) == (None, TERMS)


@pytest.mark.parametrize(("stored", "taken"), [(0, 2), (2, 2), (3, 0), (4, 0)])
def test_relays_that_come_after_a_seal_are_taken_only_while_the_volume_lacks_sealed_ones(
    relay_store, captured_logs, stored, taken
):
    file = relay_store.file(10)
    file.add("alice", "s", [leaf(number) for number in range(stored)])
    refused = miner_metrics.REFUSED.labels(miner_metrics.RefusedEntry.SEALED)._value
    before, late, validator = refused.get(), [leaf(100), leaf(101)], EntryValidator("alice", relay_store)
    assert len(validator._of_seal(tracked(sealed=3), 3, file, late)) == taken
    assert refused.get() - before == 2 - taken
    assert [(row["supplier"], row["relays"]) for row in captured_logs] == ([] if taken else [("alice", 2)])
    if not taken:
        assert validator._of_seal(tracked(sealed=3), 3, file, [leaf(0)]) == []
        assert refused.get() - before == 2, "the volume has it: nothing is lost"


@dataclass
class OnePeer:
    """A peer with relays of a session."""

    number: int
    answers: bool = True
    urls: frozenset[str] = frozenset({"http://peer"})

    async def sessions(self, supplier):
        return self.answers, [PeerSession("http://peer", "s", HEADER.encode(), "9-0", "elsewhere", self.number)]

    async def seals(self, supplier):
        return []

    async def relays(self, row, supplier, end, take):
        await take([b"no relay"])
        self.asked = True
        return True


@pytest.mark.parametrize(
    ("stored", "sealed", "finished", "asked"),
    [(2, 3, {}, True), (3, 3, {}, False), (3, 0, {}, True), (2, 3, {"s": 10}, False)],
)
async def test_a_peer_is_asked_for_what_the_volume_lacks_of_a_session_that_is_open(
    relay_store, monkeypatch, stored, sealed, finished, asked
):
    async def ring_of(*_):
        return None  # no relay is asked for its signature

    monkeypatch.setattr(peer_merge, "ring_of", ring_of)
    relay_store.file(10).add("alice", "s", [leaf(number) for number in range(stored)])
    sessions, peer = {"s": tracked(sealed=sealed)}, OnePeer(9)
    merge = PeerMerge(consumer(relay_store, sessions), relay_store, sessions, nothing_signed)
    await merge.merge(peer, finished)
    assert getattr(peer, "asked", False) is asked
    assert not merge.is_due(peer)


async def nothing_signed(_):
    return False


async def test_peers_are_asked_again_until_all_have_answered_and_whenever_another_one_comes(relay_store):
    sessions, peer = {"s": tracked(sealed=3)}, OnePeer(9)
    merge = PeerMerge(consumer(relay_store, sessions), relay_store, sessions, nothing_signed)
    assert merge.is_due(peer)
    assert not merge.is_due(None)
    for peer.answers in (False, True):
        await merge.merge(peer, {"s": 10})
        assert merge.is_due(peer) is not peer.answers
    peer.urls = frozenset()
    assert not merge.is_due(peer)
    peer.urls = frozenset({"http://peer", "http://other"})
    assert merge.is_due(peer)
    await merge.merge(peer, {"s": 10})
    assert not merge.is_due(peer)
    merge.needed = True  # Redis has lost something
    assert merge.is_due(peer)


@pytest.mark.parametrize(
    ("known", "unowned", "running", "worked"),
    [
        (False, set(), set(), {"a", "b"}), (False, set(), {"a"}, {"b"}), (True, set(), set(), set()),
        (True, {"a"}, set(), {"a"}), (True, {"a", "b"}, {"a"}, {"b"}),
    ],
)  # fmt: skip
async def test_what_is_sealed_is_worked_on_for_suppliers_without_a_known_owner_that_this_miner_does_not_mine(
    known, unowned, running, worked
):
    decided = set()

    class Suppliers:
        addresses = ("a", "b", "c")
        audit = None

        def suppliers_with_open_seals(self):
            return ["a", "b", "d"]

        def detached(self, address):
            async def on_block(*_):
                decided.add(address)

            return type("Miner", (), {"on_block": staticmethod(on_block)})

    class Params:
        async def at(self, height):
            return None

    suppliers, board = Suppliers(), LatestBlock()
    suppliers.audit = suppliers
    board.publish(block(14))
    await SealedWork(
        suppliers, board, Params(), 1.0, lambda: known, lambda: running, unowned=lambda addresses: unowned & addresses
    ).at_block()
    assert decided == worked
