"""The amounts and heights in an outcome, and the metrics that count it."""

import pytest
from prometheus_client import REGISTRY

from pocket.chain.model import Block
from pocket.protocol.claims.proof_requirement import Claim, ProofRequirement
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.settlement.outcome_details import count_outcome, details_of, heights_of
from pocket_miner.storage.outcomes import SessionOutcome

HEADER = SessionHeader("app", "eth", "s", 11, 20)
PARAMS = SharedParams(compute_units_to_tokens_multiplier=42, compute_unit_cost_granularity=10)
TERMS = LeafTerms("alice", HEADER, b"\xff" * 32, 7)


def root(relays, units, fill=1):
    return bytes([fill]) * 32 + units.to_bytes(8, "big") + relays.to_bytes(8, "big")


SEALED, CLAIMED = root(3, 21), root(5, 35, fill=2)
SEAL = SessionSeal("s", SEALED, bytes(32), 23, 1)
CLAIM = Claim("alice", HEADER, CLAIMED)
OF_SEAL = {"relays": 3, "compute_units": 21, "root": SEALED.hex(), "sealed_height": 23}
OF_CLAIM = {"relays": 5, "compute_units": 35, "root": CLAIMED.hex()}
OF_LEAVES = {"relays": 4, "compute_units": 28}


@pytest.mark.parametrize(
    ("state", "leaves", "details"),
    [
        ({"seal": SEAL, "terms": TERMS, "params": PARAMS}, 9, OF_SEAL | {"claimed_upokt": 88}),
        ({"seal": SEAL, "claim_on_chain": CLAIM, "terms": TERMS}, 9, OF_SEAL),
        ({"seal": SEAL, "params": PARAMS}, 0, OF_SEAL),
        ({"claim_on_chain": CLAIM, "terms": TERMS, "params": PARAMS}, 9, OF_CLAIM | {"claimed_upokt": 147}),
        ({"terms": TERMS, "params": PARAMS}, 4, OF_LEAVES | {"claimed_upokt": 117}),
        ({"terms": TERMS}, 4, OF_LEAVES),
        ({"terms": TERMS, "params": PARAMS}, 0, {}),
        ({"params": PARAMS}, 4, {}),
        ({"requirement": ProofRequirement.NOT_REQUIRED}, 0, {"proof_required": False}),
        ({"requirement": ProofRequirement.PROBABILISTIC}, 0, {"proof_required": True}),
        ({"requirement": ProofRequirement.THRESHOLD}, 0, {"proof_required": True}),
    ],
)
def test_amounts_are_of_the_seal_or_else_of_the_claim_on_chain_or_else_of_the_stored_relays(state, leaves, details):
    assert details_of(TrackedSession(HEADER, **state), leaves, []) == details


def test_each_transaction_is_listed_with_its_message():
    payments = [("claim", "A"), ("proof", "B"), ("claim", "C")]
    details = details_of(TrackedSession(HEADER), 0, payments)
    assert details == {"claim_transactions": ["A", "C"], "proof_transactions": ["B"]}


def test_heights_are_those_of_the_session_and_the_time_is_the_blocks():
    block = Block(40, bytes(32), Timestamp(86_400))
    known = {"session_start_height": 11, "session_end_height": 20, "time": "1970-01-02T00:00:00Z"}
    windows = {"grace_end": 21, "claim_open": 22, "claim_close": 26, "proof_open": 26, "proof_close": 30}
    assert heights_of(TrackedSession(HEADER), block) == known
    assert heights_of(TrackedSession(HEADER, params=PARAMS), block) == known | {"windows": windows}


def counted(name, **labels):
    return REGISTRY.get_sample_value(f"pocket_miner_{name}_total", labels) or 0.0


@pytest.mark.parametrize(
    ("outcome", "amounts", "claimed", "settled", "lost"),
    [
        (SessionOutcome.SETTLED, {"claimed_upokt": 100, "settled_upokt": 60}, 100, 60, 40),
        (SessionOutcome.SETTLED, {"claimed_upokt": 100, "settled_upokt": 160}, 100, 160, 0),
        (SessionOutcome.CLAIM_MISSED, {"claimed_upokt": 100}, 100, 0, 100),
        (SessionOutcome.UNSEEN, {"claimed_upokt": 100}, 100, 0, 0),
        (SessionOutcome.CLAIM_LOST, {"claimed_upokt": "damaged"}, 0, 0, 0),
    ],
)
def test_an_outcome_adds_what_was_claimed_settled_and_lost(outcome, amounts, claimed, settled, lost):
    details = {"service_id": "eth", "earned_by": {"alice": 9, "bob": 4, "carol": 2, "dave": None}, **amounts}
    supplier = f"supplier of {outcome} {amounts}"
    labels = {"supplier": supplier, "service": "eth"}
    before = counted("session_outcomes", outcome=outcome), counted("lost_upokt", reason=outcome)
    count_outcome({"supplier": supplier, "outcome": outcome.value, "details": details}, ["alice", "dave"])
    assert (counted("claimed_upokt", **labels), counted("settled_upokt", **labels)) == (claimed, settled)
    assert counted("session_outcomes", outcome=outcome) - before[0] == 1
    assert counted("lost_upokt", reason=outcome) - before[1] == lost
    earned = {who: counted("earned_upokt", **labels, recipient=who) for who in ("alice", "dave", "others")}
    assert earned == {"alice": 9, "dave": 0, "others": 6}
