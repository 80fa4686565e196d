"""Decide the stage of a session and the next action.

The functions are pure. The decision depends on height, windows, seal and claim alone. It is computed again at each
block, so that any owner can continue from any state. H is the last committed block: what is sent now is included in H+1
at the earliest.
"""

import enum
from dataclasses import dataclass
from typing import Final

from pocket.protocol.claims.proof_requirement import ProofRequirement
from pocket.protocol.sessions.windows import Windows


class Stage(enum.StrEnum):
    """The stage of a session, in the order of its life."""

    ACTIVE = "ACTIVE"
    GRACE = "GRACE"
    CLAIMABLE = "CLAIMABLE"
    SEALED = "SEALED"
    CLAIMED = "CLAIMED"
    PROOFABLE = "PROOFABLE"
    PROVEN = "PROVEN"
    PROOF_NOT_REQUIRED = "PROOF_NOT_REQUIRED"
    SETTLED = "SETTLED"


class Action(enum.Enum):
    """The action that the owner takes now."""

    NOTHING = "nothing"
    SEAL = "seal"
    SEND_CLAIM = "send the claim"
    SEND_PROOF = "send the proof"
    ADOPT = "compare with the claim on chain"
    CONCLUDE = "find out how the session ended"


SENDS: Final = (Action.SEND_CLAIM, Action.SEND_PROOF)
"""Actions that need only the key and the chain."""
ORDER: Final = (*SENDS, Action.SEAL, Action.ADOPT, Action.NOTHING, Action.CONCLUDE)
"""What is sealed waits for no peer, and nothing with a deadline for what is over."""


class ClaimState(enum.Enum):
    """The state of our claim on chain."""

    UNKNOWN = "unknown"  # the chain could not be queried, or its answer is not confirmed yet
    ABSENT = "absent"
    PENDING = "pending"
    VALIDATED = "validated"
    INVALID = "invalid"
    CONFLICTING = "conflicting"  # a claim with another root than the sealed one


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """One session as seen now.

    `requirement` is None while undecided.
    """

    windows: Windows
    sealed: bool
    claim: ClaimState
    requirement: ProofRequirement | None
    seal_after_blocks: int = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """The stage of a session and the action to take."""

    stage: Stage
    action: Action


def is_late_to_seal(windows: Windows, height: int) -> bool:
    """Return True if no more than a third of the claim window, or one block, is left."""
    left = windows.claim_close - height
    return left <= 1 or 3 * left <= windows.claim_close - windows.claim_open


def is_early_to_seal(windows: Windows, height: int) -> bool:
    """Return True if over half of the claim window, and over two blocks, are left."""
    left = windows.claim_close - height
    return left > 2 and 2 * left > windows.claim_close - windows.claim_open


def in_last_third(windows: Windows | None, stage: Stage, height: int) -> bool:
    """Return True in the last third of the window of a claim or proof that is owed."""
    if windows is None:
        return False
    if stage in (Stage.CLAIMABLE, Stage.SEALED):
        opened, close = windows.claim_open, windows.claim_close
    elif stage is Stage.PROOFABLE:
        opened, close = windows.proof_open, windows.proof_close
    else:
        return False
    return height < close and 3 * (close - height) <= close - opened


def _before_claim(snapshot: SessionSnapshot, height: int) -> Decision:
    windows = snapshot.windows
    if height <= windows.session_end:
        return Decision(Stage.ACTIVE, Action.NOTHING)
    if height < windows.claim_open:
        return Decision(Stage.GRACE, Action.NOTHING)
    if height >= windows.claim_close:
        # Nothing sent now can be included before the close. The outcome is known at settlement.
        return Decision(Stage.SEALED if snapshot.sealed else Stage.CLAIMABLE, Action.NOTHING)
    if snapshot.sealed:
        return Decision(Stage.SEALED, Action.SEND_CLAIM)
    due = height >= windows.seal_height(snapshot.seal_after_blocks)
    return Decision(Stage.CLAIMABLE, Action.SEAL if due else Action.NOTHING)


def decide(snapshot: SessionSnapshot, height: int) -> Decision:
    """Return stage and action at the last committed height.

    No session ends before its settlement.
    """
    windows = snapshot.windows
    if height >= windows.settlement:
        return Decision(Stage.SETTLED, Action.CONCLUDE)
    if snapshot.claim is ClaimState.CONFLICTING:
        return Decision(Stage.CLAIMED, Action.NOTHING)
    if snapshot.claim is ClaimState.ABSENT or (snapshot.claim is ClaimState.UNKNOWN and height < windows.claim_close):
        # Sending the sealed claim once more is harmless; missing the window is not.
        return _before_claim(snapshot, height)
    if snapshot.claim is ClaimState.VALIDATED:
        return Decision(Stage.PROVEN, Action.NOTHING)
    if not snapshot.sealed:
        # Claimed by an owner whose seal is lost: never claimed again, and proven only if our leaves have its root.
        adopt = snapshot.claim is not ClaimState.UNKNOWN
        return Decision(Stage.CLAIMED, Action.ADOPT if adopt else Action.NOTHING)
    if height < windows.proof_open:
        return Decision(Stage.CLAIMED, Action.NOTHING)
    if snapshot.requirement is ProofRequirement.NOT_REQUIRED:
        return Decision(Stage.PROOF_NOT_REQUIRED, Action.NOTHING)
    # An undecided requirement is treated as required: an unneeded proof costs a fee, a missing one the penalty. An
    # unknown claim is treated as present: a node rejects a proof without a claim at no cost.
    return Decision(Stage.PROOFABLE, Action.SEND_PROOF)
