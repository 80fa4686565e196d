"""Make the pages of the status API from sessions and outcomes.

See `pocket.api.miner_status`. The functions are pure: what lies on the volume is an argument.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pocket.api.miner_status import EndedSession, Explanation, OpenSession, SessionWindows
from pocket.errors import DecodingError
from pocket.protocol.claims.amounts import Price, claimed_upokt
from pocket.protocol.claims.proof_requirement import ProofRequirement
from pocket.protocol.smst.digest import Root
from pocket_miner.sessions.stages import Stage, in_last_third
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.status.explanations import evidence_text, facts_of
from pocket_miner.storage.outcomes import LOSSES, SessionOutcome

_NO_HASH: Final = bytes(32)
_SEPARATOR: Final = "/"


@dataclass(frozen=True, slots=True)
class SessionAt:
    """A tracked session of a supplier with the stage of its latest decision."""

    supplier: str
    session: TrackedSession
    stage: str


def page_of(
    suppliers: Mapping[str, Mapping[str, TrackedSession]], after: str, limit: int
) -> tuple[list[tuple[str, TrackedSession]], str]:
    """Return at most `limit` sessions after a position, and the next position.

    The order is that of suppliers and session ids. The next position is empty at the end.
    """
    chosen: list[tuple[str, TrackedSession]] = []
    for row in _following(suppliers, after):
        if len(chosen) == limit:
            supplier, session = chosen[-1]
            return chosen, f"{supplier}{_SEPARATOR}{session.session_id}"
        chosen.append(row)
    return chosen, ""


def _following(
    suppliers: Mapping[str, Mapping[str, TrackedSession]], after: str
) -> Iterator[tuple[str, TrackedSession]]:
    begin, _, passed = after.partition(_SEPARATOR)
    for address in sorted(address for address in suppliers if address >= begin):
        sessions = suppliers[address]
        wanted = (i for i in sessions if i > passed) if address == begin else iter(sessions)
        yield from ((address, sessions[session_id]) for session_id in sorted(wanted))


def open_session(row: SessionAt, leaves: int, height: int) -> OpenSession:
    """Return a tracked session as a row.

    `leaves` is the number of relays on the volume.
    """
    session, header = row.session, row.session.header
    root = _root_of(session, leaves)
    stage = Stage(row.stage) if row.stage else None
    owes, due = _owed(session, stage, height)
    return OpenSession(
        supplier=row.supplier,
        session_id=session.session_id,
        service_id=header.service_id,
        application=header.application_address,
        start=header.session_start_block_height,
        end=session.end,
        stage=row.stage,
        windows=_windows(session),
        relays=root.count if root is not None else leaves,
        compute_units=root.total if root is not None else 0,
        value_upokt=_value(session, root),
        earning_upokt=session.details.expected_earnings_upokt,
        cost_upokt=_cost(session),
        sealed_height=session.seal.height if session.seal is not None else None,
        claimed_height=session.first_seen.get("claim"),
        proven_height=session.first_seen.get("proof"),
        proof_required=_proof_required(session),
        owes=owes,
        due=due,
        closing=stage is not None and in_last_third(session.windows, stage, height),
        problem=_problem(session),
        skipped=session.skip.value if session.skip is not None else "",
    )


def _windows(session: TrackedSession) -> SessionWindows | None:
    windows = session.windows
    if windows is None:
        return None
    return SessionWindows(
        grace_end=windows.grace_end,
        claim_open=windows.claim_open,
        claim_close=windows.claim_close,
        proof_open=windows.proof_open,
        proof_close=windows.proof_close,
    )


def _root_of(session: TrackedSession, leaves: int) -> Root | None:
    """Return the sealed root, or one with the sum and count of the leaves.

    The result is None while unknown.
    """
    if session.seal is not None:
        return Root(session.seal.root)
    if session.terms is None:
        return None
    units = leaves * session.terms.compute_units_per_relay
    return Root(_NO_HASH + units.to_bytes(8, "big") + leaves.to_bytes(8, "big"))


def _value(session: TrackedSession, root: Root | None) -> int | None:
    if root is None or session.terms is None or session.params is None:
        return None
    return claimed_upokt(root, session.terms.target_hash, Price.of(session.params)) if root.count else 0


def _cost(session: TrackedSession) -> int | None:
    details = session.details
    if details.expected_fees_upokt is None:
        return None
    return round(details.expected_fees_upokt + (details.proof_cost_upokt or 0.0))


def _proof_required(session: TrackedSession) -> bool | None:
    if session.requirement is None:
        return None
    return session.requirement is not ProofRequirement.NOT_REQUIRED


def _owed(session: TrackedSession, stage: Stage | None, height: int) -> tuple[str, int | None]:
    """Return the message that must still be on chain and the last block for it."""
    windows = session.windows
    if windows is None or stage is None or session.skip is not None:
        return "", None
    if stage in (Stage.ACTIVE, Stage.GRACE, Stage.CLAIMABLE, Stage.SEALED):
        return ("claim", windows.claim_close) if height < windows.claim_close else ("", None)
    proof = stage in (Stage.CLAIMED, Stage.PROOFABLE) and session.requirement is not ProofRequirement.NOT_REQUIRED
    return ("proof", windows.proof_close) if proof and height < windows.proof_close else ("", None)


def _problem(session: TrackedSession) -> str:
    """Return what is wrong with a session, the gravest first, empty without a problem."""
    details = session.details
    if session.conflicting or details.foreign_root:
        return f"the claim on chain has another root: {details.foreign_root or ''}".rstrip(": ")
    rejection = session.evidence.rejection()
    if rejection is not None and session.terms is None:
        return f"{rejection.fact.value}: {rejection.text}".rstrip(": ")
    for text in (details.refusal, details.proof_refusal, details.proof_problem):
        if text:
            return text
    return ""


def ended_session(number: int, outcome: Mapping[str, Any]) -> EndedSession:
    """Return a recorded outcome as a row."""
    details = outcome.get("details") or {}
    name = str(outcome.get("outcome", ""))
    windows = details.get("windows")
    return EndedSession(
        number=number,
        supplier=str(outcome.get("supplier", "")),
        session_id=str(outcome.get("session_id", "")),
        outcome=name,
        stage=str(outcome.get("stage", "")),
        reason=str(outcome.get("reason", "")),
        height=int(outcome.get("height", 0)),
        time=str(details.get("time") or ""),
        service_id=str(details.get("service_id") or ""),
        application=str(details.get("application_address") or ""),
        start=details.get("session_start_height"),
        end=details.get("session_end_height"),
        windows=SessionWindows.model_validate(windows) if windows else None,
        relays=int(details.get("relays") or 0),
        compute_units=int(details.get("compute_units") or 0),
        claimed_upokt=int(details.get("claimed_upokt") or 0),
        settled_upokt=int(details.get("settled_upokt") or 0),
        earned_upokt=int(details.get("earned_upokt") or 0),
        expected_earnings_upokt=details.get("expected_earnings_upokt"),
        fees_upokt=int(details.get("fees_upokt") or 0),
        earned_by=dict(details.get("earned_by") or {}),
        paid=name == SessionOutcome.SETTLED,
        lost=name in LOSSES,
    )


def explain_ended(number: int, outcome: Mapping[str, Any]) -> Explanation:
    """Return everything that is known of an ended session."""
    details = outcome.get("details") or {}
    return Explanation(
        supplier=str(outcome["supplier"]),
        session_id=str(outcome["session_id"]),
        ended=ended_session(number, outcome),
        facts=tuple(facts_of(outcome)),
        transactions=tuple(
            (kind, str(tx_hash)) for kind in ("claim", "proof") for tx_hash in details.get(f"{kind}_transactions") or ()
        ),
    )


def explain_open(row: SessionAt, leaves: int, height: int, payments: Iterable[tuple[str, str]]) -> Explanation:
    """Return everything that is known of an open session.

    `payments` are (kind, hash) of included transactions.
    """
    session = row.session
    facts = [("stream position", f"{session.position} of {session.origin or 'no Redis yet'}")]
    if session.terms is not None:
        confirmed = "confirmed by a second answer" if session.terms_confirmed else "one answer so far"
        facts.append(("terms", f"{session.terms.compute_units_per_relay} compute units per relay, {confirmed}"))
        facts.append(("difficulty", session.terms.target_hash.hex()))
    if session.seal is not None:
        facts += [
            ("sealed", f"at height {session.seal.height} under epoch {session.seal.epoch}"),
            ("root", session.seal.root.hex()),
        ]
    if session.claim_seen_at:
        facts.append(("claim on chain", f"last seen at height {session.claim_seen_at}"))
    for label, attempts in (("claim attempts", session.claim.attempts), ("proof attempts", session.proof.attempts)):
        if attempts.number:
            facts.append((label, f"signed again {attempts.number} times: {attempts.failed or 'not included'}"))
    facts += [("evidence", evidence_text(statement)) for statement in session.evidence.to_list()]
    sent = [(kind, sub.tx_hash) for kind, sub in (("claim", session.claim.sent), ("proof", session.proof.sent)) if sub]
    return Explanation(
        supplier=row.supplier,
        session_id=session.session_id,
        open=open_session(row, leaves, height),
        facts=tuple(facts),
        transactions=tuple(dict.fromkeys((*payments, *sent))),
    )


def position_of(text: str) -> int:
    """Return the number of an outcome given in a query.

    Raises DecodingError.
    """
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise DecodingError(f"{text[:20]!r} is not the number of an outcome")
    return int(text)
