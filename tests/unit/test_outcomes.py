"""What is told of a session at its end, from whatever is known then."""

import pytest

from pocket.protocol.claims.proof_requirement import Claim, ProofRequirement
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.settlement.outcome_details import details_of

HEADER = SessionHeader("app", "eth", "s", 1, 10)
ROOT = bytes(32) + (300).to_bytes(8, "big") + (3).to_bytes(8, "big")
TERMS = LeafTerms("supplier", HEADER, BASE_TARGET, 100)
KNOWN = {"relays": 3, "compute_units": 300, "claimed_upokt": 12600}


def session(*, sealed=False, terms=True, **more):
    made = TrackedSession(HEADER, terms=TERMS if terms else None, params=SharedParams() if terms else None, **more)
    made.seal = SessionSeal("s", ROOT, bytes(32), 13, 1) if sealed else None
    return made


@pytest.mark.parametrize(("made", "leaves", "told"), [
    (session(), 0, {}),
    (session(), 3, KNOWN),
    (session(terms=False), 3, {}),
    (session(sealed=True), 7, {**KNOWN, "root": ROOT.hex(), "sealed_height": 13}),
    (session(sealed=True, terms=False), 0,
     {"relays": 3, "compute_units": 300, "root": ROOT.hex(), "sealed_height": 13}),
    (session(claim_on_chain=Claim("", HEADER, ROOT)), 9, {**KNOWN, "root": ROOT.hex()}),
    (session(requirement=ProofRequirement.NOT_REQUIRED), 0, {"proof_required": False}),
    (session(requirement=ProofRequirement.THRESHOLD), 0, {"proof_required": True}),
])  # fmt: skip
def test_everything_that_is_known_is_told_and_nothing_else(made, leaves, told):
    assert details_of(made, leaves, []) == told


def test_transactions_are_told_by_what_they_were_for():
    paid = [("claim", "A"), ("claim", "B"), ("proof", "C"), ("other", "D")]
    assert details_of(session(), 0, paid) == {"claim_transactions": ["A", "B"], "proof_transactions": ["C"]}
