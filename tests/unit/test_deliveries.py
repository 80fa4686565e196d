"""What a broadcast leaves behind, by the answer of the nodes: what is sent next, and what it costs."""

from contextlib import closing
from dataclasses import dataclass, field

import pytest

from pocket.chain.model import Block, TransactionResult
from pocket.errors import ChainUnavailable
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure
from pocket.protocol.transactions.build import (
    GasPrice,
    Timestamp,
    TransactionPlan,
    create_claim_message,
    sign_transaction,
    transaction_hash,
)
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.submission import Submission
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.audit import Audit
from pocket_miner.submission.deliveries import CLAIM, Deliveries
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.sender import BroadcastAnswer, SendError
from world import address, key

SUPPLIER = address("alice")
ROOT = bytes(32) + (300).to_bytes(8, "big") + (3).to_bytes(8, "big")
BLOCK = Block(13, bytes(32), Timestamp.of_nanoseconds(10**18))
PRICE = GasPrice.parse("0.001upokt")
FEE, LATEST = 100, 14


def session(name):
    header = SessionHeader(address("app"), "eth", name, 1, 10)
    made = TrackedSession(header, params=SharedParams())
    made.seal = SessionSeal(name, ROOT, bytes(32), 13, 1)
    return made


def transaction(sessions):
    messages = tuple(create_claim_message(SUPPLIER, row.header, ROOT) for row in sessions)
    return sign_transaction(TransactionPlan(messages, "pocket", 1, 5000, FEE, Timestamp(5, 0)), key("alice")).raw


@dataclass
class Store:
    supplier: str = SUPPLIER

    async def share_costs(self, *_):
        return


@dataclass
class Nodes:
    """Nodes that answer a broadcast, and a query for claims, as the test states."""

    answer: object = None
    claims: object = ()
    results: dict = field(default_factory=dict)
    asked_at: int = -1

    async def broadcast(self, raw):
        if isinstance(self.answer, BroadcastFailure):
            raise SendError(self.answer, "refused")
        return self.answer

    async def results_of(self, submissions):
        return {last.tx_hash: self.results[last.tx_hash] for last in submissions if last.tx_hash in self.results}

    async def claims_at(self, height):
        self.asked_at = height
        if isinstance(self.claims, Exception):
            raise self.claims
        return list(self.claims)


@pytest.fixture
def audit(tmp_path):
    with closing(Audit(tmp_path / "audit.sqlite")) as made:
        yield made


def deliveries(audit, nodes):
    return Deliveries(CLAIM, Store(), nodes, FeeTracker(PRICE, audit), lambda: LATEST)


@pytest.mark.parametrize("failure", [row for row in BroadcastFailure if row is not BroadcastFailure.ACCEPTED_BEFORE])
async def test_refused_bytes_are_signed_anew_and_cost_nothing_and_those_without_an_answer_may_be_included(
    audit, failure
):
    rows = [session("a"), session("b")]
    raw = transaction(rows)
    with pytest.raises(SendError):
        await deliveries(audit, Nodes(failure)).broadcast(raw, rows, BLOCK, timeout_ns=7)
    unanswered = failure in (BroadcastFailure.UNREACHABLE, BroadcastFailure.MEMPOOL_FULL)
    for row in rows:
        assert (row.claim.sent is not None) is unanswered
        assert not (row.claim.sent and row.claim.sent.accepted)
        assert row.claim.attempts.number == (0 if unanswered else 1)
        assert row.claim.attempts.gas_steps == (failure is BroadcastFailure.MORE_GAS)
        assert audit.spent(SUPPLIER, row.session_id) == (FEE // 2 if unanswered else 0)
        assert row.details.refusal == (None if unanswered else "refused")


@pytest.mark.parametrize("known", [True, False])
async def test_a_timestamp_that_is_refused_may_have_been_used_by_the_same_bytes_alone(audit, known):
    rows = [session("a")]
    raw, other = transaction(rows), transaction([session("b")])
    nodes = Nodes(BroadcastAnswer("hash", False, 15))
    made = deliveries(audit, nodes)
    await made.broadcast(raw if known else other, rows, BLOCK, timeout_ns=7)
    nodes.answer = BroadcastFailure.NEW_TIMESTAMP
    if known:
        await made.broadcast(raw, rows, BLOCK, timeout_ns=7)
        assert rows[0].claim.sent == Submission(
            raw, transaction_hash(raw), 15, 1, accepted=True, first_at=15 * known
        ), "over, perhaps included"
    else:
        with pytest.raises(SendError):
            await made.broadcast(raw, rows, BLOCK, timeout_ns=7)
        assert rows[0].claim.sent is None
    assert rows[0].claim.attempts.number == (0 if known else 1)


@pytest.mark.parametrize("names", ["a", "ab"])
async def test_messages_that_were_refused_together_again_and_again_are_sent_alone(audit, names):
    rows = [session(name) for name in names]
    for before in range(3):
        assert [row.claim.attempts.alone for row in rows] == [False] * len(rows), before
        with pytest.raises(SendError):
            await deliveries(audit, Nodes(BroadcastFailure.RETRY)).broadcast(transaction(rows), rows, BLOCK)
    assert {row.claim.attempts.alone for row in rows} == {len(rows) > 1}


@pytest.mark.parametrize("known_before", [True, False])
async def test_accepted_bytes_are_remembered_with_the_height_of_the_nodes_and_their_cost(audit, known_before):
    rows = [session("a")]
    raw = transaction(rows)
    nodes = Nodes(BroadcastAnswer("hash", known_before, 15))
    await deliveries(audit, nodes).broadcast(raw, rows, BLOCK, timeout_ns=7)
    sent = rows[0].claim.sent
    assert (sent.raw, sent.timeout_ns, sent.accepted) == (raw, 7, True)
    assert (sent.height, sent.known_at) == ((LATEST, 15) if known_before else (15, 0))
    assert audit.spent(SUPPLIER, "a") == FEE
    await deliveries(audit, nodes).broadcast(raw, rows, BLOCK, timeout_ns=7)
    assert audit.spent(SUPPLIER, "a") == FEE, "the same bytes cost nothing more"


async def test_a_second_fee_is_paid_only_for_what_the_latest_block_does_not_show(audit):
    shown, other, absent = session("a"), session("b"), session("c")
    claims = [Claim(SUPPLIER, shown.header, ROOT), Claim(SUPPLIER, other.header, bytes(48))]
    nodes = Nodes(claims=claims)
    assert await deliveries(audit, nodes).missing([shown, other, absent], BLOCK, {}) == [other, absent]
    assert nodes.asked_at == LATEST, "the block being decided is older"


@pytest.mark.parametrize(("left", "waits"), [(5, True), (3, True), (2, False), (1, False)])
async def test_while_no_node_shows_claims_what_was_sent_waits_until_the_last_blocks_of_its_window(audit, left, waits):
    sent, fresh = session("a"), session("b")
    sent.claim.sent = Submission(b"raw", "hash", 12)
    block = Block(sent.windows.claim_close - left, bytes(32), BLOCK.time)
    found = await deliveries(audit, Nodes(claims=ChainUnavailable("away"))).missing([sent, fresh], block, {})
    assert found == ([fresh] if waits else [sent, fresh])


@pytest.mark.parametrize(("code", "above", "shown", "again"), [
    (0, 0, None, False), (11, 0, None, True), (0, 1, (), False), (0, 0, (), True),
])  # fmt: skip
async def test_a_message_in_a_block_is_sent_again_only_if_it_failed_or_the_state_of_that_block_lacks_it(
    audit, code, above, shown, again
):
    row = session("a")
    row.claim.sent = Submission(b"raw", "hash", 12)
    block = Block(row.windows.claim_close - 1, bytes(32), BLOCK.time)
    results = {"hash": TransactionResult("hash", code, "sdk", "", block.height + above)}
    nodes = Nodes(claims=ChainUnavailable("away") if shown is None else shown)
    assert await deliveries(audit, nodes).missing([row], block, results) == ([row] if again else [])


@pytest.mark.parametrize(
    ("code", "codespace", "cost"), [(0, "", FEE), (1100, "proof", FEE), (11, "sdk", FEE), (18, "sdk", 0)]
)
async def test_a_transaction_that_failed_in_a_block_costs_the_fee_that_the_block_took(audit, code, codespace, cost):
    row = session("a")
    raw = transaction([row])
    nodes = Nodes(BroadcastAnswer("hash", False, 15))
    made = deliveries(audit, nodes)
    await made.broadcast(raw, [row], BLOCK)
    tx_hash = row.claim.sent.tx_hash
    nodes.results = {tx_hash: TransactionResult(tx_hash, code, codespace, "", 16)}
    assert await made.results([row]) == nodes.results
    assert audit.spent(SUPPLIER, "a") == cost
