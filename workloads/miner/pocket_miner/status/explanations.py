"""Explain the state or the outcome of a session in words."""

from collections.abc import Mapping
from typing import Any

from pocket.chain.model import Event
from pocket.chain.settlement_event import CLAIM_SETTLED, claim_end
from pocket.protocol.smst.digest import Root
from pocket.redis_store.seals import SessionSeal
from pocket_miner.storage.outcomes import SessionOutcome

# docs/troubleshoot.md has the remedy of each outcome.
MEANINGS: Mapping[str, str] = {
    SessionOutcome.SETTLED: "The claim was paid.",
    SessionOutcome.UNPROFITABLE: "Not claimed: fees and the proof's cost exceed what it would have earned.",
    SessionOutcome.EMPTY: "Not claimed: no valid relay of it was recorded.",
    SessionOutcome.CLAIM_MISSED: "No claim was on chain in time. Check nodes, Redis, the miner and its balance.",
    SessionOutcome.CLAIM_LOST: "The claim on chain has another root: another miner used this key.",
    SessionOutcome.PROOF_MISSED: "A proof was required and not on chain in time: the supplier was penalised.",
    SessionOutcome.PROOF_INVALID: "The chain found the proof invalid: the supplier was penalised. Please report it.",
    SessionOutcome.UNSEEN: "Claimed, but no chain node retains how it was settled: see the reason.",
    SessionOutcome.EXPIRED: "The chain discarded the claim or let it expire, not because of its proof: see the reason.",
    SessionOutcome.FORFEITED: "Not claimed, because the claim would have been rejected or penalised.",
}


def facts_of(outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of an ended session as (label, text)."""
    details = outcome.get("details") or {}
    rows = [
        ("supplier", str(outcome["supplier"])),
        ("service", f"{details.get('service_id', '?')}, application {details.get('application_address', '?')}"),
        ("ended as", f"{outcome['outcome']} at stage {outcome['stage']}, height {outcome['height']}"),
        ("meaning", MEANINGS.get(str(outcome["outcome"]), "")),
    ]
    if outcome.get("reason"):
        rows.append(("reason", str(outcome["reason"])))
    for name, label in (
        ("time", "time"), ("relays", "relays"), ("claimed_upokt", "claimed"), ("settled_upokt", "paid"),
        ("earned_upokt", "earned"), ("fees_upokt", "fees"), ("expected_earnings_upokt", "expected"),
        ("expected_fees_upokt", "expected fee"), ("proof_cost_upokt", "proof cost"), ("refusal", "refusal"),
        ("proof_refusal", "refusal"), ("proof_problem", "problem"), ("root", "root"), ("foreign_root", "their root"),
        ("claim_transactions", "claimed in"), ("proof_transactions", "proven in"),
    ):  # fmt: skip
        if details.get(name) not in (None, ""):
            unit = " upokt" if name.endswith("_upokt") else ""
            rows.append((label, f"{flat(details[name])}{unit}"))
    rows += [("evidence", evidence_text(row)) for row in details.get("evidence") or []]
    rows += [("to", f"{address}: {upokt} upokt") for address, upokt in sorted(paid_to(details).items())]
    return rows


def evidence_text(row: Mapping[str, Any]) -> str:
    """Return one statement of a session's evidence in words."""
    text = f": {row['text']}" if row.get("text") else ""
    return f"{row.get('finding')} by {row.get('source')} at height {row.get('height')}{text}"


def explained(outcome: Mapping[str, Any]) -> list[str]:
    """Return the lines that explain an ended session."""
    return [f"session {outcome['session_id']}", *(f"  {label:12} {text}" for label, text in facts_of(outcome))]


def flat(value: Any) -> Any:
    """Return a list as one text, other values unchanged."""
    return " ".join(map(str, value)) if isinstance(value, list) else value


def paid_to(details: Mapping[str, Any]) -> dict[str, int]:
    """Return the upokt that a settled claim paid, by address.

    The result is empty if unknown.
    """
    event = Event(CLAIM_SETTLED, {"reward_distribution": str(details.get("reward_distribution") or "")})
    end = claim_end(event)
    return dict(end.by_recipient) if end is not None else {}


def explained_open(
    supplier: str, session_id: str, end: int, count: int, seal: tuple[int, SessionSeal] | None
) -> list[str]:
    """Return the lines that explain an open session."""
    lines = [f"session {session_id}", f"  supplier     {supplier}"]
    lines.append(f"  open         ends at {end}, {count} relays here")
    if seal is not None:
        root = Root(seal[1].root)
        lines.append(f"  sealed       at height {seal[1].height}: {root.count} relays, root {seal[1].root.hex()}")
    return lines
