"""How a session ended, from the events of its settlement block."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from miner.sessions import TrackedSession
from shannon.chain.model import Event

_SETTLED = "pocket.tokenomics.EventClaimSettled"
_EXPIRED = "pocket.tokenomics.EventClaimExpired"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome name, reason and amounts."""

    outcome: str
    reason: str
    details: Mapping[str, object]


def upokt(text: str) -> int:
    """Amount of a coin text such as `12upokt`; 0 where it cannot be read."""
    digits = text.removesuffix("upokt")
    return int(digits) if digits.isdecimal() else 0


def _is_ours(event: Event, supplier: str, session: TrackedSession) -> bool:
    a, header = event.attributes, session.header
    if a.get("supplier_operator_address") != supplier:
        return False
    if "session_id" in a:
        return a["session_id"] == header.session_id
    return (
        a.get("application_address") == header.application_address
        and a.get("service_id") == header.service_id
        and a.get("session_end_block_height") == str(header.session_end_block_height)
    )


def settled_as(supplier: str, session: TrackedSession, events: Iterable[Event]) -> Verdict | None:
    """Return the outcome that the settlement block's events tell; None where none of them is of this session."""
    for event in events:
        if not _is_ours(event, supplier, session):
            continue
        a = event.attributes
        if event.type == _SETTLED:
            details = {
                "relays": int(a.get("num_relays") or 0),
                "claimed_upokt": upokt(a.get("claimed_upokt", "")),
                "settled_upokt": upokt(a.get("settled_upokt", "")),
                "minted_upokt": upokt(a.get("minted_upokt", "")),
                "reward_distribution": a.get("reward_distribution", "{}"),
            }
            return Verdict("settled", "paid", details)
        if event.type == _EXPIRED:
            invalid = a.get("expiration_reason") == "PROOF_INVALID"
            details = {"claimed_upokt": upokt(a.get("claimed_upokt", ""))}
            return Verdict("proof_invalid" if invalid else "proof_missed", a.get("expiration_reason", ""), details)
    return None
