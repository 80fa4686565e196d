"""Find the block before which a session's next claim or proof must be on chain."""

from dataclasses import dataclass

from pocket.protocol.sessions.windows import Windows
from pocket_miner.sessions.stages import Stage

_CLAIM_DUE = frozenset({Stage.ACTIVE, Stage.GRACE, Stage.CLAIMABLE, Stage.SEALED})
_PROOF_DUE = frozenset({Stage.CLAIMED, Stage.PROOFABLE})


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """The close of a window.

    `kind` is claim or proof, `sessions` how many must meet it.
    """

    height: int
    kind: str
    sessions: int = 1


def deadline_of(windows: Windows | None, stage: Stage) -> Deadline | None:
    """Return the deadline of a session, None without one."""
    if windows is None:
        return None
    if stage in _CLAIM_DUE:
        return Deadline(windows.claim_close, "claim")
    return Deadline(windows.proof_close, "proof") if stage in _PROOF_DUE else None


def earliest(first: Deadline | None, second: Deadline | None) -> Deadline | None:
    """Return the earlier of two deadlines, with the sessions of both if they are one."""
    if first is None or second is None:
        return first or second
    if (first.height, first.kind) == (second.height, second.kind):
        return Deadline(first.height, first.kind, first.sessions + second.sessions)
    return min(first, second)
