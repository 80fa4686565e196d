"""What claims and proofs cost: estimates, what is kept back, what a balance pays, and which costs count in the end."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.model import TransactionResult
from pocket.errors import ChainUnavailable, NotFound
from pocket.protocol.claims.proof_requirement import Claim, ProofParams, ProofRequirement
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import (
    GasPrice,
    Timestamp,
    TransactionPlan,
    create_claim_message,
    sign_transaction,
    submit_proof_message,
    transaction_hash,
)
from pocket.protocol.transactions.decode import decode_tx, is_signed_by
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.submission import Submission
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.audit import Audit
from pocket_miner.submission.fees import FeeTracker, shares
from pocket_miner.submission.funds import Costs, balance_for, may_need_proof, owed_upokt, payable
from pocket_miner.submission.gas import CLAIM_GAS, PROOF_GAS, believed_gas, typical_gas
from world import address, key

SUPPLIER = address("alice")
PRICE = GasPrice.parse("0.001upokt")
CLAIM_FEE, PROOF_FEE = PRICE.fee_upokt(CLAIM_GAS), PRICE.fee_upokt(PROOF_GAS)
PARAMS = SharedParams()
WINDOWS = PARAMS.windows(1)
ROOT = bytes(32) + (300).to_bytes(8) + (3).to_bytes(8)


def header(name):
    return SessionHeader(address("app"), "eth", name, 1, 10)


def transaction(fee, claims=(), proofs=(), number=1):
    messages = (
        *(create_claim_message(SUPPLIER, header(name), ROOT) for name in claims),
        *(submit_proof_message(SUPPLIER, header(name), b"proof") for name in proofs),
    )
    plan = TransactionPlan(messages, "pocket", 1, 5000, fee, Timestamp(number, 0))
    return sign_transaction(plan, key("alice")).raw


def test_a_transaction_is_the_suppliers_if_its_only_signature_is_of_its_key_account_and_chain():
    raw, public = transaction(100, ["a"]), key("alice").public_key
    assert is_signed_by(raw, public, "pocket", 1)
    assert not is_signed_by(raw, key("bob").public_key, "pocket", 1)
    assert not is_signed_by(raw, public, "another chain", 1)
    assert not is_signed_by(raw, public, "pocket", 2)
    for changed in (lambda tx: tx.signatures.append(tx.signatures[0]), lambda tx: tx.signatures.pop()):
        other = tx_pb.TxRaw.FromString(raw)
        changed(other)
        assert not is_signed_by(other.SerializeToString(), public, "pocket", 1)
    assert not is_signed_by(b"\xff", public, "pocket", 1)


def test_a_fee_is_what_is_paid_in_the_chains_coin():
    raw = tx_pb.TxRaw.FromString(transaction(100, ["a"]))
    info = tx_pb.AuthInfo.FromString(raw.auth_info_bytes)
    info.fee.amount.add(denom="another", amount="7000")
    raw.auth_info_bytes = info.SerializeToString()
    assert decode_tx(raw.SerializeToString()).fee_upokt == 100


@dataclass
class Store:
    """The costs that other owners share through Redis."""

    supplier: str = SUPPLIER
    shared: dict = field(default_factory=dict)
    away: bool = False

    async def share_costs(self, tx_hash, message, costs):
        if self.away:
            raise RedisUnavailable("away")
        self.shared[tx_hash] = (message, dict(costs))

    async def costs(self, session_id):
        if self.away:
            raise RedisUnavailable("away")
        return {tx: (message, costs[session_id]) for tx, (message, costs) in self.shared.items() if session_id in costs}


@dataclass
class Node:
    """A node that knows the transactions of some blocks."""

    included: tuple = ()
    away: bool = False
    asked: int = 0

    async def transaction(self, tx_hash):
        self.asked += 1
        if self.away:
            raise ChainUnavailable("away")
        if tx_hash not in self.included:
            raise NotFound("no such transaction")
        return TransactionResult(tx_hash, 0, "", "")


@pytest.fixture
def audit(tmp_path):
    with closing(Audit(tmp_path / "audit.sqlite")) as made:
        yield made


@given(st.integers(0, 10**9), st.integers(1, 200))
def test_a_fee_is_split_into_whole_amounts_that_differ_by_at_most_one(total, number):
    parts = shares(total, number)
    assert (sum(parts), len(parts)) == (total, number)
    assert parts == sorted(parts, reverse=True)
    assert parts[0] - parts[-1] <= 1


async def test_the_estimate_is_the_lowest_of_eight_recent_fees_and_of_typical_gas_while_they_are_fewer(audit):
    now = [0.0]
    fees, store = FeeTracker(PRICE, audit, lambda: now[0]), Store()
    assert fees.estimate_upokt() == CLAIM_FEE + PROOF_FEE
    dear = 10 * CLAIM_FEE
    for number in range(1, 9):
        assert fees.estimate_upokt() == CLAIM_FEE + PROOF_FEE
        await fees.record_sent(store, transaction(2 * dear - 1, claims=("a", "b"), number=number))
    assert fees.estimate_upokt() == dear + PROOF_FEE, "of one message, rounded up"
    assert (fees.highest_claim_upokt(), fees.highest_proof_upokt(0)) == (dear, PROOF_FEE)
    now[0] = 3601.0
    assert fees.estimate_upokt() == CLAIM_FEE + PROOF_FEE
    assert fees.highest_claim_upokt() == CLAIM_FEE


@pytest.mark.parametrize(
    ("relay", "gas"), [(0, PROOF_GAS), (1000, PROOF_GAS), (1001, PROOF_GAS + 70), (3000, PROOF_GAS + 140_000)]
)
async def test_a_proof_of_a_large_relay_is_expected_to_cost_more_and_never_less_than_recent_ones(audit, relay, gas):
    fees = FeeTracker(PRICE, audit)
    assert fees.highest_proof_upokt(relay) == PRICE.fee_upokt(gas)
    await fees.record_sent(Store(), transaction(10**6 + 50, proofs=("a",)), 50)
    assert fees.highest_proof_upokt(relay) == 10**6 + 50, "the submission fee is no fee of the transaction"


@pytest.mark.parametrize("away", [False, True])
async def test_each_session_pays_its_share_and_a_proofs_submission_fee_which_other_owners_learn(audit, away):
    store = Store(away=away)
    claim, raw = transaction(7, claims=("a",)), transaction(101, proofs=("a", "b"))
    fees = FeeTracker(PRICE, audit)
    await fees.record_pending(store, claim, 1000)
    await fees.record_pending(store, raw, 1000)
    assert audit.spent_by_kind(SUPPLIER, "a") == {"claim": 7, "proof": 1051}
    assert audit.spent_by_kind(SUPPLIER, "b") == {"proof": 1050}
    assert store.shared == {}, "it is not sent yet"
    await fees.record_sent(store, raw, 1000)
    assert audit.spent_by_kind(SUPPLIER, "a") == {"claim": 7, "proof": 1051}, "it is paid once"
    assert bool(store.shared) is not away
    await fees.record_failed(store, raw, fee_paid=True)
    assert audit.spent_by_kind(SUPPLIER, "a") == {"claim": 7, "proof": 51}, "no proof was taken"
    await fees.record_failed(store, raw, fee_paid=False)
    assert (audit.spent(SUPPLIER, "a"), audit.spent(SUPPLIER, "b")) == (7, 0)


PAID = {"one": 10, "two": 20}


@pytest.mark.parametrize(
    ("paid", "included", "missed", "cost"),
    [
        (("one",), (), (), 10),  # a node without an index of transactions returns none
        (("one",), ("one",), (), 10),
        (("one",), (), ("claim",), 0),
        (("one",), (), ("proof",), 10),
        (("one",), ("one",), ("claim",), 10),
        (("one", "two"), ("one", "two"), (), 30),
        (("one", "two"), ("two",), (), 20),
        (("one", "two"), (), (), 30),
        (("one", "two"), (), ("claim",), 0),
    ],
)
@pytest.mark.parametrize("of", ["volume", "Redis", "memory"])
async def test_only_included_transactions_count_in_the_end_where_a_node_can_tell(
    audit, paid, included, missed, cost, of
):
    fees, store = FeeTracker(PRICE, audit), Store()
    for name in paid:
        if of == "volume":
            audit.spend(SUPPLIER, name, "claim", {"a": PAID[name]})
        elif of == "Redis":
            store.shared[name] = ("claim", {"a": PAID[name], "b": 5})
        else:
            fees._unsaved[SUPPLIER, name] = ("claim", {"a": PAID[name], "b": 5})
            fees._unsaved["another supplier", name] = ("claim", {"a": 999})
    node = Node(included)
    await fees.settle(store, "a", node, missed)
    assert fees.of(SUPPLIER, "a") == cost
    assert fees.of(SUPPLIER, "b") == 0
    assert node.asked == (len(paid) if len(paid) > 1 or "claim" in missed else 0), "one that was not missed is included"


@pytest.mark.parametrize(("included", "cost"), [((), 0), (("rejected",), 10)])
async def test_a_rejected_transaction_costs_what_a_block_took_it_for(audit, included, cost):
    audit.spend(SUPPLIER, "rejected", "claim", {"a": 10})
    audit.reject(SUPPLIER, ["a"], "rejected")
    fees = FeeTracker(PRICE, audit)
    await fees.settle(Store(away=True), "a", Node(included))
    assert fees.of(SUPPLIER, "a") == cost


async def test_all_fees_count_while_no_node_answers(audit):
    for name, upokt in PAID.items():
        audit.spend(SUPPLIER, name, "claim", {"a": upokt})
    fees = FeeTracker(PRICE, audit)
    await fees.settle(Store(), "a", Node(away=True), ("claim",))
    assert fees.of(SUPPLIER, "a") == 30


async def test_costs_that_the_volume_does_not_take_are_kept_until_it_does(audit, monkeypatch):
    fees, raw = FeeTracker(PRICE, audit), transaction(10, claims=("a",))

    def full(*_, **__):
        raise sqlite3.OperationalError("full")

    with monkeypatch.context() as patch:
        patch.setattr(Audit, "spend", full)
        await fees.record_pending(Store(), raw)
    assert list(fees._unsaved) == [(SUPPLIER, transaction_hash(raw))]
    await fees.record_sent(Store(), raw)
    assert (list(fees._unsaved), audit.spent(SUPPLIER, "a")) == ([], 10)


def test_the_gas_of_a_transaction_is_believed_within_bounds():
    raw = transaction(1, claims=("a", "b"), proofs=("c",))
    typical = 2 * CLAIM_GAS + PROOF_GAS + 40 * len(raw)
    assert typical_gas(raw) == typical
    most = 2_000_000 + 5_000 * len(raw)
    for used, believed in ((0, typical // 6), (typical // 6, typical // 6), (typical // 6 + 1, typical // 6 + 1),
                           (most, most), (most + 1, most)):  # fmt: skip
        assert believed_gas(used, raw) == believed


def sealed(**changes):
    session = TrackedSession(header("a"), terms=LeafTerms(SUPPLIER, header("a"), b"\xff" * 32, 100), params=PARAMS)
    session.seal = SessionSeal("a", ROOT, bytes(32), 13, 1)
    session.largest_relay = 7
    for name, value in changes.items():
        setattr(session, name, value)
    return session


@pytest.mark.parametrize("height", range(WINDOWS.claim_open, WINDOWS.settlement + 2))
def test_a_sealed_session_owes_its_claim_until_it_is_shown_and_its_proof_until_it_is_sent(height):
    costs = Costs(10, lambda size: 100 * size)
    claim, over = 10 * (height < WINDOWS.claim_close), height >= WINDOWS.proof_close

    def owed(session):
        return owed_upokt([session], height, costs)

    proven = sealed()
    proven.proof.sent = Submission(b"raw", "hash", 17)
    rows = [
        (sealed(), 700 + claim),
        (sealed(claim_on_chain=Claim(SUPPLIER, header("a"), ROOT)), 700),
        (sealed(requirement=ProofRequirement.NOT_REQUIRED), claim),
        (sealed(requirement=ProofRequirement.THRESHOLD), 700 + claim),
        (proven, claim),
        (sealed(seal=None), 0),
        (sealed(params=None), 0),
    ]
    for session, upokt in rows:
        assert owed(session) == (0 if over else upokt)
    assert owed_upokt([session for session, _ in rows], height, costs) == sum(owed(session) for session, _ in rows)


@pytest.mark.parametrize(
    ("params", "needed"),
    [
        (ProofParams(0.0, 301 * 42, 1), False),
        (ProofParams(0.0, 300 * 42, 1), True),
        (ProofParams(0.0, 299 * 42, 1), True),
        (ProofParams(0.0, 300 * 42, 0), False),
        (ProofParams(0.01, 10**9, 1), True),
        (ProofParams(0.01, 10**9, 0), False),
    ],
)
def test_a_proof_may_be_needed_by_chance_or_from_the_threshold_on_where_its_absence_costs(params, needed):
    assert may_need_proof(sealed(), ROOT, params) is needed
    assert not may_need_proof(sealed(terms=None), ROOT, params)
    assert not may_need_proof(sealed(params=None), ROOT, params)


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(-5, 60))
def test_a_balance_pays_each_amount_that_the_rest_of_it_covers(wanted, balance):
    chosen = payable(wanted, balance)
    rest = balance
    for position, upokt in enumerate(wanted):
        assert (position in chosen) is (upokt <= rest)
        rest -= upokt if position in chosen else 0
    assert chosen == sorted(chosen)


@dataclass
class Bank:
    """Nodes that state a balance: the first one, and each."""

    first: object
    each: tuple = ()
    asked: int = 0

    async def balance_upokt(self, account):
        if isinstance(self.first, Exception):
            raise self.first
        return self.first

    async def decoded_by_node(self, *_):
        self.asked += 1
        return dict(enumerate(self.each))


@pytest.mark.parametrize(
    ("bank", "balance", "asked"),
    [
        (Bank(100), 100, 0),
        (Bank(150), 150, 0),
        (Bank(99, (99, 500, 3)), 500, 1),
        (Bank(99, (99, 50)), 99, 1),
        (Bank(99, ()), None, 1),
        (Bank(ChainUnavailable("away")), None, 0),
        (Bank(TimeoutError()), None, 0),
    ],
)
async def test_no_single_answer_makes_a_balance_too_low(bank, balance, asked):
    assert (await balance_for(bank, SUPPLIER, 100), bank.asked) == (balance, asked)
