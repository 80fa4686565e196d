"""Outcomes and details of sessions are stored and shown, so their texts must not change unnoticed."""

import json

from pocket_miner.sessions.session_details import SessionDetails
from pocket_miner.status.explanations import MEANINGS
from pocket_miner.storage.outcomes import LOSSES, OutcomeRecord, SessionOutcome


def test_every_outcome_is_explained():
    assert set(MEANINGS) == set(SessionOutcome)


def test_the_stored_values_of_outcomes_stay():
    assert {outcome.value for outcome in SessionOutcome} - {outcome.value for outcome in LOSSES} == {
        "settled", "unprofitable", "empty", "unseen",
    }  # fmt: skip
    assert {outcome.value for outcome in LOSSES} == {
        "claim_missed", "claim_lost", "proof_missed", "proof_invalid", "expired", "forfeited",
    }  # fmt: skip


def test_an_outcome_is_stored_as_canonical_json_with_plain_texts():
    details = SessionDetails(refusal="too late", proof_cost_upokt=0.5).to_dict()
    record = OutcomeRecord("pokt1a", "id", SessionOutcome.CLAIM_MISSED, "SEALED", "why", 9, details)
    assert record.body() == json.dumps(
        {
            "details": {"proof_cost_upokt": 0.5, "refusal": "too late"}, "height": 9, "outcome": "claim_missed",
            "reason": "why", "session_id": "id", "stage": "SEALED", "supplier": "pokt1a",
        },
        separators=(",", ":"),
    )  # fmt: skip
