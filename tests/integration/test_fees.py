"""What claims and proofs cost is known to the upokt, and is the measure of what is worth claiming."""

import sqlite3

import pytest
from prometheus_client import REGISTRY

from mine import mine
from pocket.errors import ChainUnavailable, DecodingError, NotFound
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.transactions.build import (
    GasPrice,
    Message,
    Timestamp,
    TransactionPlan,
    create_claim_message,
    sign_transaction,
    submit_proof_message,
)
from pocket.protocol.transactions.decode import DecodedTransaction, decode_tx
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.outcomes import OutcomeRecord
from pocket_miner.submission.fees import FeeTracker, shares
from world import address, key

pytestmark = pytest.mark.redis
PRICE = GasPrice.parse("0.001upokt")


def header(session):
    return SessionHeader(address("app eth"), "eth", session, 1, 10)


def transaction(*messages, fee=100, timeout=5):
    plan = TransactionPlan(messages, "pocket", 1, 5000, fee, Timestamp(timeout, 0))
    return sign_transaction(plan, key("alice"))


def claim(session):
    return create_claim_message(address("alice"), header(session), bytes(48))


def proof(session):
    return submit_proof_message(address("alice"), header(session), b"p")


@pytest.fixture
def audit(tmp_path):
    made = Audit(tmp_path / "audit.sqlite")
    yield made
    made.close()


@pytest.fixture
def store(redis):
    return SealStore(redis, RedisKeys("fees"), address("alice"), 1)


@pytest.mark.parametrize("restart", [(None, "same"), (14, "same"), (17, "same"), (14, "another"), (17, "another")])
@pytest.mark.parametrize("evicted_at", [None, 12, 16])
async def test_an_outcome_holds_exactly_what_the_chain_took_for_its_claim_and_proof(
    redis, tmp_path, restart, evicted_at
):
    params = {"proof_request_probability": 1.0, "proof_missing_penalty": 1_000_000, "proof_submission_fee": 1000}
    async with mine(redis, tmp_path, proof_params=params) as alice:
        await _costs_are_exact(alice, restart, evicted_at)
    assert not await redis.keys("test:costs:*")


async def _costs_are_exact(alice, restart, evicted_at):
    restart_at, volume = restart
    before = alice.chain.state.balances[alice.supplier]
    whose = {"supplier": alice.supplier, "service": "eth"}
    families = {"settled": whose, "earned": {**whose, "recipient": alice.supplier}}
    counted_before = {name: counted(name, labels) for name, labels in families.items()}
    fees_before = sum(counted("fees", {"message": message}) for message in ("claim", "proof"))
    header = alice.header()
    await alice.record(alice.relays(header, 20))
    for height in range(2, 23):
        if height == evicted_at:
            alice.chain.faults.evict = 1
        if height == restart_at:
            alice.folder = alice.folder if volume == "same" else alice.folder / volume
            alice.start()
        await alice.to(height)
    details = alice.outcomes()[header.session_id]["details"]
    paid = alice.chain.state.balances[alice.supplier] - before + details["fees_upokt"]
    assert details["fees_upokt"] > 1000
    assert 0 < paid < details["minted_upokt"]
    assert (details["earned_upokt"], details["earned_by"]) == (paid, {alice.supplier: paid})
    assert (alice.miner.report.earned_upokt, alice.miner.report.earned_by) == (paid, {alice.supplier: paid})
    assert alice.audit.spent(alice.supplier, header.session_id) == 0
    new = {name: counted(name, labels) - counted_before[name] for name, labels in families.items()}
    assert new == {"settled": details["settled_upokt"], "earned": paid}
    assert (
        sum(counted("fees", {"message": message}) for message in ("claim", "proof")) - fees_before
        == details["fees_upokt"]
    )


def counted(name, labels):
    return REGISTRY.get_sample_value(f"pocket_miner_{name}_upokt_total", labels) or 0


async def test_what_shareholders_and_owner_get_is_earned_by_them_and_what_others_get_is_not(redis, tmp_path):
    alice_, owner, friend = (address(name) for name in ("alice", "owner", "friend"))
    staked = {"operator": alice_, "owner": owner, "stake": 10**9, "services": ["eth"],
              "revenue_share": {owner: 60, friend: 30, alice_: 10}}  # fmt: skip
    async with mine(redis, tmp_path, suppliers=[staked]) as alice:
        before = dict(alice.chain.state.balances)
        header = alice.header()
        await alice.record(alice.relays(header, 20))
        await alice.to(21)
        details = alice.outcomes()[header.session_id]["details"]
        got = {who: alice.chain.state.balances[who] - before.get(who, 0) for who in (owner, friend, alice_)}
    # The owner of the supplier is that of the service here, too: what it gets as that is not the supplier's.
    source_owner = 300
    assert details["settled_upokt"] == 2000
    assert details["earned_by"] == {
        owner: got[owner] - source_owner, friend: got[friend], alice_: got[alice_] + details["fees_upokt"]
    }  # fmt: skip
    assert details["earned_upokt"] == sum(details["earned_by"].values()) == 1400


@pytest.mark.parametrize(("total", "number"), [(0, 3), (7, 3), (9, 3), (1, 1), (2, 5)])
def test_a_fee_is_shared_to_the_upokt(total, number):
    found = shares(total, number)
    assert (sum(found), len(found), max(found) - min(found) <= 1) == (total, number, True)


def test_a_transaction_tells_its_fee_and_sessions_whoever_signed_it():
    made = transaction(claim("a" * 64), claim("b" * 64), fee=7)
    assert decode_tx(made.raw) == DecodedTransaction(made.tx_hash, 7, ("a" * 64, "b" * 64), (), (bytes(48),) * 2)
    made = transaction(proof("c" * 64), Message("/other.Msg", b""), fee=0)
    assert decode_tx(made.raw) == DecodedTransaction(made.tx_hash, 0, (), ("c" * 64,))


@pytest.mark.parametrize("raw", [b"\xff", transaction(Message(claim("a").type_url, b"\xff\xff")).raw])
async def test_bytes_that_are_no_transaction_of_ours_are_a_typed_error_and_cost_nothing(
    raw, audit, store, captured_logs
):
    with pytest.raises(DecodingError):
        decode_tx(raw)
    await FeeTracker(PRICE, audit).record_sent(store, raw)
    assert "the transaction cannot be decoded" in str(captured_logs)


async def test_the_same_transaction_costs_once_however_often_it_is_sent(audit, store):
    book = FeeTracker(PRICE, audit)
    first = transaction(claim("a" * 64), claim("b" * 64), fee=101)
    for _ in range(3):
        await book.record_sent(store, first.raw)
    await book.record_sent(store, transaction(proof("a" * 64), fee=30, timeout=6).raw, 10)
    assert [book.of(address("alice"), i * 64) for i in "abc"] == [91, 50, 0]
    assert book.of(address("bob"), "a" * 64) == 0
    audit.record(OutcomeRecord(address("alice"), "a" * 64, "settled", "SETTLED", "", 9, {"session_end_height": 5}))
    assert [book.of(address("alice"), i * 64) for i in "ab"] == [0, 50]


async def test_the_next_claim_is_judged_by_what_the_last_ones_cost(audit, store, redis):
    book = FeeTracker(PRICE, audit)
    assert book.estimate_upokt() == 130 + 400
    await book.record_sent(store, transaction(claim("a" * 64), claim("b" * 64), fee=101).raw)
    assert book.estimate_upokt() == 51 + 400
    await book.record_sent(
        SealStore(redis, RedisKeys("fees"), address("bob"), 1),
        transaction(proof("a" * 64), fee=33, timeout=6).raw,
        1_000_000,
    )
    assert book.estimate_upokt() == 51 + 33


async def test_one_dear_transaction_makes_no_later_session_unprofitable(audit, store):
    now = [0.0]
    book = FeeTracker(PRICE, audit, lambda: now[0])
    dear = transaction(claim("a" * 64), fee=17_000)
    for _ in range(20):  # the same bytes again cost nothing more
        await book.record_sent(store, dear.raw)
    assert book.estimate_upokt() == 130 + 400
    for number in range(8):
        await book.record_sent(store, transaction(claim(f"{number}" * 64), fee=900 + number).raw)
    assert book.estimate_upokt() == 900 + 400, "fees that are higher for good are believed"
    now[0] += 3601
    assert book.estimate_upokt() == 130 + 400, "while no session is claimed, no transaction can show lower fees"


async def test_a_volume_that_takes_no_fees_stops_nobody(store, audit, monkeypatch, captured_logs):
    def full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(audit, "spend", full)
    await FeeTracker(PRICE, audit).record_sent(store, transaction(claim("a" * 64)).raw)
    assert "free up space" in str(captured_logs)


class Node:
    """A node that knows these transactions, and raises an error while it is away."""

    def __init__(self, known):
        self.known = known

    async def transaction(self, tx_hash):
        if self.known is None:
            raise ChainUnavailable("down")
        if tx_hash not in self.known:
            raise NotFound("tx not found")


@pytest.mark.parametrize(("known", "cost"), [
    ("first", 10), ("second", 20), ("both", 30), ("none", 30), ("away", 30),
])  # fmt: skip
async def test_of_a_claim_signed_twice_counts_what_the_chain_included_and_all_where_nobody_knows(
    audit, store, known, cost
):
    book, supplier, session = FeeTracker(PRICE, audit), address("alice"), "a" * 64
    made = [transaction(claim(session), fee=10), transaction(claim(session), fee=20, timeout=6)]
    only = transaction(proof(session), fee=5, timeout=7)
    for one in (*made, only):
        await book.record_sent(store, one.raw)
    hashes = [one.tx_hash for one in made]
    node = Node({"first": hashes[:1], "second": hashes[1:], "both": hashes, "none": [], "away": None}[known])
    await book.settle(store, session, node)
    assert book.of(supplier, session) == cost + 5


async def test_an_owner_counts_what_former_owners_paid_and_no_word_that_cannot_be_read(audit, store, redis, tmp_path):
    session, paid = "a" * 64, transaction(claim("a" * 64), fee=10)
    await FeeTracker(PRICE, audit).record_sent(store, paid.raw)
    await redis.hset(RedisKeys("fees").costs(store.supplier, session), "ff", "claim/-1")
    other = Audit(tmp_path / "other" / "audit.sqlite")
    try:
        book = FeeTracker(PRICE, other)
        await book.settle(store, session, Node([paid.tx_hash]))
        assert book.of(store.supplier, session) == 10
    finally:
        other.close()


async def test_fees_are_kept_while_redis_is_away(audit, store, redis, monkeypatch, captured_logs):
    async def away(*_):
        raise RedisUnavailable("Redis is away")

    monkeypatch.setattr(store, "share_costs", away)
    monkeypatch.setattr(store, "costs", away)
    book, paid = FeeTracker(PRICE, audit), transaction(claim("a" * 64), fee=10)
    await book.record_sent(store, paid.raw)
    await book.settle(store, "a" * 64, Node([paid.tx_hash]))
    assert book.of(store.supplier, "a" * 64) == 10
    assert "fees of former owners" in str(captured_logs)


async def test_what_a_transaction_costs_is_in_the_books_before_it_is_handed_over_and_out_again_where_it_is_refused(
    audit, store
):
    book, paid = FeeTracker(PRICE, audit), transaction(claim("a" * 64), fee=10)
    await book.record_pending(store, paid.raw)
    assert book.of(store.supplier, "a" * 64) == 10
    await book.record_rejected(store, paid.raw)
    assert book.of(store.supplier, "a" * 64) == 0


async def test_a_rejected_transaction_that_is_in_a_block_all_the_same_is_in_the_books(audit, store):
    book, paid = FeeTracker(PRICE, audit), transaction(claim("a" * 64), fee=10)
    await book.record_pending(store, paid.raw)
    await book.record_rejected(store, paid.raw)
    book = FeeTracker(PRICE, audit)  # after a restart
    await book.settle(store, "a" * 64, Node([]))
    assert book.of(store.supplier, "a" * 64) == 0
    await book.settle(store, "a" * 64, Node([paid.tx_hash]))
    assert book.of(store.supplier, "a" * 64) == 10


@pytest.mark.parametrize(("missed", "known", "cost"), [
    ((), "none", 10), (("claim",), "none", 0), (("claim",), "all", 10), (("claim",), "away", 10),
    (("proof",), "none", 10),
])  # fmt: skip
async def test_a_claim_that_was_in_no_block_costs_nothing(audit, store, missed, known, cost):
    book, paid = FeeTracker(PRICE, audit), transaction(claim("a" * 64), fee=10)
    await book.record_sent(store, paid.raw)
    nodes = {"none": Node([]), "all": Node([paid.tx_hash]), "away": Node(None)}
    await book.settle(store, "a" * 64, nodes[known], missed)
    assert book.of(store.supplier, "a" * 64) == cost


async def test_fees_that_the_volume_did_not_take_are_in_the_books_at_the_end(audit, store, monkeypatch):
    def full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    book, paid = FeeTracker(PRICE, audit), transaction(claim("a" * 64), fee=10)
    with monkeypatch.context() as patch:
        patch.setattr(audit, "spend", full)
        await book.record_sent(store, paid.raw)
        with pytest.raises(sqlite3.OperationalError):
            await book.settle(store, "a" * 64, Node([paid.tx_hash]))
    await store._redis.flushall()
    await book.settle(store, "a" * 64, Node([paid.tx_hash]))
    assert book.of(store.supplier, "a" * 64) == 10
