"""Order the work of a supplier at a block. Pure.

It has stages to report, and groups of sessions to act for.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from pocket_miner.sessions.deadlines import Deadline, deadline_of, earliest
from pocket_miner.sessions.stages import ORDER, SENDS, Action, Decision, in_last_third
from pocket_miner.sessions.tracked_session import TrackedSession

_FENCED: Final = (Action.SEND_CLAIM, Action.SEND_PROOF, Action.CONCLUDE)
"""Actions that cost a fee or record an outcome. The fence is checked first: a former owner that resumes stops there."""


@dataclass(frozen=True, slots=True)
class SessionGroup:
    """Sessions of one end height for which the same is to be done."""

    action: Action
    end: int
    sessions: list[TrackedSession]


@dataclass(frozen=True, slots=True)
class BlockWork:
    """All that a supplier's sessions need at a block."""

    decided: list[tuple[TrackedSession, Decision]]
    """Sessions that could be decided."""
    stages: dict[str, str]
    """The stage by session id."""
    closing: int
    """Number of sessions in the last third of a window."""
    deadline: Deadline | None
    """The earliest deadline of all sessions."""
    groups: list[SessionGroup]
    """In the order in which they are handled: what has a window goes first, and earlier sessions before later ones."""

    @property
    def needs_fence(self) -> bool:
        """Return True if a former owner must not do this work."""
        return any(group.action in _FENCED for group in self.groups)


def work_of(
    decisions: Iterable[tuple[TrackedSession, Decision | None]],
    height: int,
    *,
    sends_only: bool = False,
    sent: Collection[str] = (),
) -> BlockWork:
    """Return the work of a block.

    With `sends_only` nothing but sends are grouped, and otherwise no sends for the session ids of `sent`.
    """
    decided = [(session, decision) for session, decision in decisions if decision is not None]
    closing, deadline = 0, None
    groups: dict[tuple[Action, int], list[TrackedSession]] = defaultdict(list)
    for session, decision in decided:
        closing += in_last_third(session.windows, decision.stage, height)
        deadline = earliest(deadline, deadline_of(session.windows, decision.stage))
        if session.session_id not in sent if decision.action in SENDS else not sends_only:
            groups[decision.action, session.end].append(session)
    ordered = sorted(groups.items(), key=lambda row: (ORDER.index(row[0][0]), row[0][1]))
    return BlockWork(
        decided,
        {session.session_id: decision.stage.value for session, decision in decided},
        closing,
        deadline,
        [SessionGroup(action, end, sessions) for (action, end), sessions in ordered],
    )
