"""Collect statements about a session with their source and height.

Nothing final is concluded from a single statement. It is confirmed by a second one, from another source or from the
same source at another height. A contradicting statement retracts it. The evidence is stored with the outcome
(docs/fragile/evidence.md).
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class Fact(StrEnum):
    """The fact that a statement asserts."""

    SESSION_REJECTED = "session_rejected"  # the chain has no such session
    HEADER_DIFFERS = "header_differs"  # the chain's session has another header
    NOT_IN_SESSION = "supplier_not_in_session"
    CLAIM_ABSENT = "claim_absent"
    CLAIM_CONFLICTING = "claim_conflicting"  # a claim with another root is on chain
    NO_SETTLEMENT_EVENT = "no_settlement_event"
    EVENTS_PRUNED = "events_pruned"  # no node keeps the events of the settlement block
    SETTLEMENT_EVENT = "settlement_event"
    ENDED_ELSEWHERE = "ended_elsewhere"  # another owner has recorded the outcome


REJECTIONS: Final = (Fact.SESSION_REJECTED, Fact.HEADER_DIFFERS, Fact.NOT_IN_SESSION)
"""Facts that make it impossible to claim a session."""
_ENOUGH: Final = 2
_MAX_STATEMENTS: Final = 8


@dataclass(frozen=True, slots=True)
class Statement:
    """One answer about a fact, given as of a height."""

    fact: Fact
    source: str
    height: int
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the statement as JSON, for the outcome."""
        row: dict[str, Any] = {"finding": self.fact.value, "source": self.source, "height": self.height}
        return row | ({"text": self.text[:200]} if self.text else {})


@dataclass(slots=True)
class Evidence:
    """The statements about one session.

    Only the first ones of each fact are kept, one per source and height.
    """

    _statements: dict[Fact, dict[tuple[str, int], Statement]] = field(default_factory=dict)

    def add(self, statement: Statement) -> None:
        """Add a statement."""
        rows = self._statements.setdefault(statement.fact, {})
        if len(rows) < _MAX_STATEMENTS:
            rows.setdefault((statement.source, statement.height), statement)

    def retract(self, *facts: Fact) -> None:
        """Remove all statements of facts that were contradicted."""
        for fact in facts:
            self._statements.pop(fact, None)

    def of(self, fact: Fact) -> list[Statement]:
        """Return the statements of a fact, oldest first."""
        return list(self._statements.get(fact, {}).values())

    def confirmed(self, fact: Fact) -> bool:
        """Return whether a second source, or the same one at another height, said so too."""
        return len(self._statements.get(fact, {})) >= _ENOUGH

    def rejection(self) -> Statement | None:
        """Return a confirmed reason why the session cannot be claimed, if there is one."""
        return next((self.of(fact)[0] for fact in REJECTIONS if self.confirmed(fact)), None)

    def to_list(self) -> list[dict[str, Any]]:
        """Return all statements as JSON, for the outcome."""
        return [row.to_dict() for rows in self._statements.values() for row in rows.values()]
