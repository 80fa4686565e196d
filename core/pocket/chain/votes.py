"""Confirm a value that a chain node returns by a second answer.

It is of another node, or of the same node at another block. Stake depends on such values, and any single node may lag,
be rolled back or belong to another network.
"""

import asyncio
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)
_ENOUGH: Final = 2
_MAX_ANSWERS: Final = 64


@dataclass(slots=True)
class Votes(Generic[T]):
    """The returned values, by (source, height at which it was queried).

    `asked_at` is the height of the latest query that was answered, -1 without one.
    """

    answers: dict[tuple[str, int], T] = field(default_factory=dict)
    refuted: dict[T, None] = field(default_factory=dict)
    """Values that the chain has shown to be wrong, the latest last."""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked_at: int = -1

    def add(self, now: int, by_source: Mapping[str, T]) -> None:
        """Add the answers of one query.

        Without any answer the nodes are queried again immediately, otherwise at the next block.
        """
        for source, value in by_source.items():
            self.answers[source, now] = value
        self.asked_at = now if by_source else -1
        while len(self.answers) > _MAX_ANSWERS:
            del self.answers[next(iter(self.answers))]

    def doubt(self, refuted: T | None = None) -> None:
        """Discard all answers.

        Where several values tie, `refuted` is taken last from now on.
        """
        self.answers.clear()
        self.asked_at = -1
        if refuted is not None:
            self.refuted.pop(refuted, None)
            self.refuted[refuted] = None

    def best(self) -> tuple[T, bool] | None:
        """Return the most frequent value and whether it is confirmed.

        If several tie, the latest one is returned as unconfirmed, a refuted one only if all of them are. In the latest
        query as many sources must not contradict a confirmed value as return it, however often it was returned before.
        """
        counts = Counter(self.answers.values())
        if not counts:
            return None
        highest = max(counts.values())
        order = {value: rank for rank, value in enumerate(self.refuted, start=1)}
        tied = (row for row in reversed(self.answers.values()) if counts[row] == highest)
        value = min(tied, key=lambda row: order.get(row, 0))
        latest = Counter(row for (_, at), row in self.answers.items() if at == self.asked_at)
        contradicted = any(number >= latest[value] for other, number in latest.items() if other != value)
        unique = list(counts.values()).count(highest) == 1
        return value, highest >= _ENOUGH and unique and not contradicted
