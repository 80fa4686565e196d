"""Define how sessions can end, and the record of one outcome."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class SessionOutcome(StrEnum):
    """The outcome of a session.

    The values are stored, exported and used as metric labels.
    """

    SETTLED = "settled"
    UNPROFITABLE = "unprofitable"
    EMPTY = "empty"
    CLAIM_MISSED = "claim_missed"  # no claim of ours was on chain when the window closed
    CLAIM_LOST = "claim_lost"  # the claim on chain has another root
    PROOF_MISSED = "proof_missed"
    PROOF_INVALID = "proof_invalid"
    UNSEEN = "unseen"  # no node retains how the session was settled
    EXPIRED = "expired"
    FORFEITED = "forfeited"  # not claimed, because the claim would be rejected or penalised


LOSSES: Final = frozenset({
    SessionOutcome.CLAIM_MISSED, SessionOutcome.CLAIM_LOST, SessionOutcome.PROOF_MISSED,
    SessionOutcome.PROOF_INVALID, SessionOutcome.EXPIRED, SessionOutcome.FORFEITED,
})  # fmt: skip
"""Outcomes of sessions whose served relays are not paid although they were worth claiming."""


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """The stored outcome of one session.

    `height` is the block at which it was concluded.
    """

    supplier: str
    session_id: str
    outcome: SessionOutcome
    stage: str
    reason: str
    height: int
    details: Mapping[str, Any]

    def body(self) -> str:
        """Return the outcome as canonical JSON, which its hash covers."""
        fields = {
            "supplier": self.supplier, "session_id": self.session_id, "outcome": self.outcome, "stage": self.stage,
            "reason": self.reason, "height": self.height, "details": dict(self.details),
        }  # fmt: skip
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))
