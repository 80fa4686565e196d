"""Derive the state of a session's claim from answers that may be wrong.

The functions are pure. A claim that was seen exists until it settles, because the chain removes none before. If only
one node returned it once, and no node does later, it is sent again while its window is open. Its absence counts only
after a second answer. Another root than the sealed one counts only at the block at which it was returned.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pocket.protocol.claims.proof_requirement import INVALID, VALIDATED, Claim
from pocket_miner.sessions.evidence import Fact, Statement
from pocket_miner.sessions.stages import ClaimState
from pocket_miner.sessions.tracked_session import TrackedSession


@dataclass(frozen=True, slots=True)
class ClaimsAnswer:
    """The claims of a supplier at a height, as returned by one source."""

    source: str
    height: int
    claims: Mapping[str, Claim]


def surprising(session: TrackedSession, answer: ClaimsAnswer) -> bool:
    """Return True if other nodes should be queried before acting on this answer.

    A session that is sealed later than usual may have been claimed by an owner whose seal is lost.
    """
    claim = answer.claims.get(session.session_id)
    if session.seal is None:
        windows = session.windows
        return claim is None and windows is not None and windows.seal_height(1) < answer.height < windows.claim_close
    if claim is None:
        last = session.claim.sent
        sent = last is not None and last.accepted and answer.height > last.height + 1
        closed = session.windows is not None and answer.height > session.windows.claim_close
        return (session.claim_seen_at > 0 or sent or closed) and not session.evidence.confirmed(Fact.CLAIM_ABSENT)
    unexplained = claim.proof_validation_status == VALIDATED and session.proof.sent is None
    return claim.root_hash != session.seal.root or claim.proof_validation_status == INVALID or unexplained


def learn(session: TrackedSession, answers: list[ClaimsAnswer]) -> ClaimState:
    """Record the answers of one block, and return the claim's state by them.

    `answers` is empty if no node could be queried.
    """
    claims = [(answer, claim) for answer in answers if (claim := answer.claims.get(session.session_id)) is not None]
    if claims:
        session.evidence.retract(Fact.CLAIM_ABSENT)
        answer, claim = _best(session, claims)
        session.claim_confirmed |= len(claims) > 1 or 0 < session.claim_seen_at != answer.height
        session.claim_on_chain, session.claim_seen_at = claim, answer.height
        if session.seal is not None and claim.root_hash != session.seal.root:
            session.use_seal_of(claim.root_hash)
        state = _state_of(session, claim)
        if state is ClaimState.CONFLICTING:
            text = claim.root_hash.hex()
            session.evidence.add(Statement(Fact.CLAIM_CONFLICTING, answer.source, answer.height, text))
        else:
            session.evidence.retract(Fact.CLAIM_CONFLICTING)
        return state
    close = session.windows.claim_close if session.windows is not None else 0
    if session.claim_on_chain is not None:
        later = bool(answers) and all(session.claim_seen_at < answer.height < close for answer in answers)
        ours = session.seal is not None and session.claimed_root == session.seal.root
        if ours and later and not session.claim_confirmed:
            return ClaimState.ABSENT  # one node returned it once: sending the same claim again costs nothing
        # Only settlement removes a claim: a node that does not return it lags or is wrong.
        return _state_of(session, session.claim_on_chain)
    for answer in answers:
        if answer.height <= close:
            return ClaimState.ABSENT  # it may still come
        session.evidence.add(Statement(Fact.CLAIM_ABSENT, answer.source, answer.height))
    return ClaimState.ABSENT if session.evidence.confirmed(Fact.CLAIM_ABSENT) else ClaimState.UNKNOWN


def _best(session: TrackedSession, claims: list[tuple[ClaimsAnswer, Claim]]) -> tuple[ClaimsAnswer, Claim]:
    """Choose among answers: our own root before another one, then a validated proof.

    Without a proof that this process sent, one that is not validated comes before: answers are as of one height, so one
    of them is wrong, and a missing proof costs stake.
    """
    root = session.seal.root if session.seal is not None else b""
    others = {seal.root for seal in session.other_seals}

    def rank(claim: Claim) -> tuple[bool, bool, bool]:
        ours = claim.root_hash == root
        validated = claim.proof_validation_status == VALIDATED
        return ours, claim.root_hash in others, validated == (session.proof.sent is not None)

    return max(claims, key=lambda row: rank(row[1]))


def _state_of(session: TrackedSession, claim: Claim) -> ClaimState:
    # Without a seal, a root that is not that of our leaves may be that of more: a peer may have the others.
    if session.seal is not None and claim.root_hash != session.seal.root:
        return ClaimState.CONFLICTING
    known = {VALIDATED: ClaimState.VALIDATED, INVALID: ClaimState.INVALID}
    return known.get(claim.proof_validation_status, ClaimState.PENDING)
