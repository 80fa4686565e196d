"""Derive the outcome of a session from the events of its settlement block."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pocket.api.recipients import bounded
from pocket.chain.model import Event
from pocket.chain.settlement_event import ClaimEnd, ClaimOutcome, claim_end
from pocket_miner.sessions.evidence import Fact
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.outcomes import SessionOutcome

_PROOF_OUTCOMES: Final = {
    ClaimOutcome.PROOF_MISSING: SessionOutcome.PROOF_MISSED,
    ClaimOutcome.PROOF_INVALID: SessionOutcome.PROOF_INVALID,
    ClaimOutcome.EXPIRED: SessionOutcome.EXPIRED,
    ClaimOutcome.DISCARDED: SessionOutcome.EXPIRED,
}
_RECIPIENTS: Final = 100


@dataclass(frozen=True, slots=True)
class SettlementResult:
    """Outcome, reason and amounts (upokt) of a settled session."""

    outcome: SessionOutcome
    reason: str
    details: Mapping[str, object]


def _details(end: ClaimEnd) -> dict[str, object]:
    """Return the values that an event contains. Amounts are upokt."""
    details: dict[str, object] = {
        "relays": end.relays,
        "compute_units": end.compute_units,
        "claimed_upokt": end.claimed_upokt,
        "settled_upokt": end.settled_upokt,
        "minted_upokt": end.minted_upokt,
        "malformed": sorted(end.malformed) or None,
    }
    if end.outcome is ClaimOutcome.SETTLED:
        paid = bounded(end.by_recipient, _RECIPIENTS)
        details["reward_distribution"] = json.dumps({address: f"{upokt}upokt" for address, upokt in paid.items()})
        details["earned_by"] = bounded(end.supplier_side, _RECIPIENTS)
        details["earned_upokt"] = end.earned_upokt
    return {name: value for name, value in details.items() if value is not None}


def _is_of_another_root(session: TrackedSession, end: ClaimEnd) -> bool:
    """Return True if the settled claim has another root than ours.

    The numbers of relays and compute units in the event decide. If both roots have the same numbers, the confirmed
    evidence of an earlier claim on chain decides.
    """
    if session.conflicting:
        return True
    if session.seal is None:
        return False
    sealed, seen = session.seal.root, session.claimed_root
    shown = session.evidence.confirmed(Fact.CLAIM_CONFLICTING) and seen != sealed
    return not end.may_be_of(sealed) or (shown and end.may_be_of(seen))


def settled_as(
    supplier: str, session: TrackedSession, events: Iterable[Event], shareholders: Collection[str] = ()
) -> SettlementResult | None:
    """Return the outcome in a settlement block's events.

    The result is None if none is of this session.

    `shareholders` are the addresses that share the supplier's revenue, for events that do not name reasons.
    """
    ends = (claim_end(event, shareholders) for event in events)
    end = next((end for end in ends if end is not None and end.concerns(supplier, session.header)), None)
    if end is None:
        return None
    if _is_of_another_root(session, end):
        return SettlementResult(
            SessionOutcome.CLAIM_LOST, "the claim on chain has another root than the seal", _details(end)
        )
    if end.outcome is ClaimOutcome.SETTLED:
        return SettlementResult(SessionOutcome.SETTLED, "paid", _details(end))
    return SettlementResult(_PROOF_OUTCOMES[end.outcome], end.reason[:300], _details(end))
