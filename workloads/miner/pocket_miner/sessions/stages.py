"""The stage of a session and what to do: a pure function of height, windows, ledger and chain.

It is computed afresh each block, for any owner, from any state; nothing is remembered.
Heights: H is the last committed block, so what is sent now lands in H+1 at the earliest.
"""

import enum
from dataclasses import dataclass
from typing import Final

from pocket.protocol.claims.proof_requirement import ProofRequirement
from pocket.protocol.sessions.windows import Windows


class Stage(enum.StrEnum):
    """Names as in design.md, section 14."""

    ACTIVE = "ACTIVE"
    GRACE = "GRACE"
    CLAIMABLE = "CLAIMABLE"
    SEALED = "SEALED"
    CLAIMED = "CLAIMED"
    PROOFABLE = "PROOFABLE"
    PROVED = "PROVED"
    SETTLED = "SETTLED"


class Action(enum.Enum):
    """What the owner does now."""

    NOTHING = "nothing"
    SEAL = "seal"
    SEND_CLAIM = "send the claim"
    SEND_PROOF = "send the proof"
    ADOPT = "compare with the claim on chain"
    CONCLUDE = "find out how the session ended"


class ClaimState(enum.Enum):
    """What module state says of our claim."""

    UNKNOWN = "unknown"  # the chain could not be asked, or nobody has confirmed its answer yet
    ABSENT = "absent"
    PENDING = "pending"
    VALIDATED = "validated"
    INVALID = "invalid"
    CONFLICTING = "conflicting"  # a claim with another root than the sealed one


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """One session as seen now; `requirement` is None while it is not decided."""

    windows: Windows
    sealed: bool
    claim: ClaimState
    requirement: ProofRequirement | None
    seal_after_blocks: int = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """Stage and action."""

    stage: Stage
    action: Action


_SEAL_AT_THE_LATEST: Final = 3  # blocks left in the claim window


def seal_height(windows: Windows, seal_after_blocks: int) -> int:
    """Height from which a session is sealed: late, but with at least three blocks left."""
    return max(
        windows.claim_open, min(windows.claim_open + seal_after_blocks, windows.claim_close - _SEAL_AT_THE_LATEST)
    )


def in_last_third(windows: Windows, stage: Stage, height: int) -> bool:
    """Return True if a claim or proof is still owed and at most a third of its window's blocks is left."""
    if stage in (Stage.CLAIMABLE, Stage.SEALED):
        opened, close = windows.claim_open, windows.claim_close
    elif stage is Stage.PROOFABLE:
        opened, close = windows.proof_open, windows.proof_close
    else:
        return False
    return opened <= height < close and 3 * (close - height) <= close - opened


def _before_claim(facts: SessionSnapshot, height: int) -> Decision:
    windows = facts.windows
    if height <= windows.session_end:
        return Decision(Stage.ACTIVE, Action.NOTHING)
    if height < windows.claim_open:
        return Decision(Stage.GRACE, Action.NOTHING)
    if height >= windows.claim_close:
        # Nothing sent now can be included by the close. What became of it is known when it settles.
        return Decision(Stage.SEALED if facts.sealed else Stage.CLAIMABLE, Action.NOTHING)
    if facts.sealed:
        return Decision(Stage.SEALED, Action.SEND_CLAIM)
    due = height >= seal_height(windows, facts.seal_after_blocks)
    return Decision(Stage.CLAIMABLE, Action.SEAL if due else Action.NOTHING)


def decide(facts: SessionSnapshot, height: int) -> Decision:
    """Return stage and action at the last committed height. Nothing ends before its settlement."""
    windows = facts.windows
    if height >= windows.settlement:
        return Decision(Stage.SETTLED, Action.CONCLUDE)
    if facts.claim is ClaimState.CONFLICTING:
        return Decision(Stage.CLAIMED, Action.NOTHING)
    if facts.claim is ClaimState.ABSENT or (facts.claim is ClaimState.UNKNOWN and height < windows.claim_close):
        # Sending the sealed claim once more is harmless; missing the window is not.
        return _before_claim(facts, height)
    if facts.claim is ClaimState.VALIDATED:
        return Decision(Stage.PROVED, Action.NOTHING)
    if not facts.sealed:
        # Claimed by an owner whose seal is lost: never claimed again, and proven only if our leaves have that root.
        adopt = facts.claim is not ClaimState.UNKNOWN
        return Decision(Stage.CLAIMED, Action.ADOPT if adopt else Action.NOTHING)
    if height < windows.proof_open:
        return Decision(Stage.CLAIMED, Action.NOTHING)
    if facts.requirement is ProofRequirement.NOT_REQUIRED:
        return Decision(Stage.PROVED, Action.NOTHING)
    if height >= windows.proof_close:
        return Decision(Stage.PROOFABLE, Action.NOTHING)
    # An undecided requirement is treated as required: an unneeded proof costs a fee, a missing one the penalty. So is
    # an unknown claim: the node refuses a proof without a claim for nothing.
    return Decision(Stage.PROOFABLE, Action.SEND_PROOF)
