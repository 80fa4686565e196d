"""Count each outcome of a supplier's sessions once.

Any miner's audit trail may have it. A trail belongs to a volume. What it contributed stays counted when its miner is
scaled away or its volume is lost. Amounts are in upokt.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from pydantic import ValidationError
from structlog.typing import FilteringBoundLogger

from pocket.api.base import problem_of
from pocket.api.lenient import read_known
from pocket.api.miner_status import EndedSession
from pocket.api.recipients import added
from pocket.api.status import (
    MOST_RECIPIENTS,
    BooksStatus,
    CountedFees,
    CountedSessions,
    CountedTrail,
    DayStatus,
    Earning,
    LastEvents,
)
from pocket_operator.decide.earned import LARGEST, earnings
from pocket_operator.decide.packed_books import unpacked
from pocket_operator.decide.pod_report import ReportedSupplier

_LOG: FilteringBoundLogger = structlog.get_logger()
WINDOW_BLOCKS: Final = 500
"""Blocks for which sessions are remembered. Miners remember ended ones as long and conclude no older ones."""
MOST_TRAILS: Final = 64
_MOST_SESSIONS: Final = 1024
_FEE_DAYS: Final = 8
_SHORT: Final = 16
_DATE: Final = len("2026-11-29")


@dataclass(frozen=True, slots=True)
class Day:
    """Totals of the last UTC day with outcomes."""

    date: str = ""
    earned_by: Mapping[str, int] = field(default_factory=dict)
    fees_upokt: int = 0
    settled: int = 0
    lost: int = 0

    def plus(self, other: "Day") -> "Day":
        """Return the later day, or the sum if both are the same day."""
        if other.date != self.date:
            return max(self, other, key=lambda day: day.date)
        return Day(
            self.date, _sum(self.earned_by, other.earned_by), self.fees_upokt + other.fees_upokt,
            self.settled + other.settled, self.lost + other.lost,
        )  # fmt: skip

    def to_status(self) -> DayStatus:
        """Return the day as it is shown."""
        return DayStatus(
            date=self.date,
            earned=earnings((self.earned_by,)),
            earned_upokt=min(LARGEST, sum(self.earned_by.values())),
            fees_upokt=min(LARGEST, self.fees_upokt),
            settled=self.settled,
            lost=self.lost,
        )


def day_of(row: ReportedSupplier) -> Day:
    """Return the last day that a miner reports of a supplier."""
    day = row.day
    return Day() if day is None else Day(day.date, day.earned_by, day.fees_upokt, day.settled, day.lost)


@dataclass(frozen=True, slots=True)
class Books:
    """The counted outcomes of one supplier.

    `trails`: trail → number up to which it is counted, the one that went on last is the last.
    `sessions`: end height → shortened ids of the counted sessions that another miner may conclude, too, as one text.
    `fees`: date → fees.
    """

    earned_by: Mapping[str, int] = field(default_factory=dict)
    day: Day = field(default_factory=Day)
    fees: Mapping[str, int] = field(default_factory=dict)
    last: LastEvents = field(default_factory=LastEvents)
    trails: Mapping[str, int] = field(default_factory=dict)
    sessions: Mapping[int, str] = field(default_factory=dict)

    def adopted(self, trail: str, number: int, row: ReportedSupplier | None, live: Collection[str] = ()) -> "Books":
        """Return the books with the totals of a new trail, up to an outcome's number.

        Of too many trails one is dropped that did not go on for the longest time, never one of `live` miners. Where all
        are live, the books stay as they are: a trail that is dropped and adopted again would count twice.
        """
        trails = _with_trail(self.trails, trail, number, live)
        if trails is None:
            return self
        if row is None:
            return replace(self, trails=trails)
        fees = dict(self.fees)
        for date, upokt in row.fees_by_day.items():
            fees[date] = fees.get(date, 0) + upokt
        return replace(
            self,
            earned_by=_sum(self.earned_by, row.earned_by),
            day=self.day.plus(day_of(row)),
            fees=_last_days(fees),
            last=latest((self.last, row.last)),
            trails=trails,
        )

    def counted(self, trail: str, rows: Iterable[EndedSession]) -> "Books":
        """Return the books with the outcomes of this supplier in a trail that are new."""
        books = self
        for row in rows:
            if row.number > books.trails.get(trail, 0):
                books = books._with(trail, row)
        return books

    def through(self, trail: str, number: int) -> "Books":
        """Return the books with a known trail counted up to this number.

        A smaller number than before is a trail that was restored from a backup: what follows it there is new.
        """
        return replace(self, trails=_at_end(self.trails, trail, number))

    def _with(self, trail: str, row: EndedSession) -> "Books":
        trails = _at_end(self.trails, trail, row.number)
        short = row.session_id[:_SHORT]
        if row.end is not None and short in self.sessions.get(row.end, "").split():
            return replace(self, trails=trails)
        date, fees = row.time[:_DATE], dict(self.fees)
        day = self.day
        if date:
            fees[date] = fees.get(date, 0) + row.fees_upokt
            earned_on = Day(date, row.earned_by, row.fees_upokt, int(row.paid), int(row.lost))
            day = day.plus(earned_on)
        mark = f"{short} at {row.height}"
        event = LastEvents(
            settlement=mark if row.paid else "", loss=f"{mark}: {row.outcome}: {row.reason}" if row.lost else ""
        )
        return Books(
            _sum(self.earned_by, row.earned_by), day, _last_days(fees), latest((self.last, event)), trails,
            self.sessions if row.end is None else _remembered(self.sessions, row.end, short),
        )  # fmt: skip

    @property
    def fees_per_day_upokt(self) -> int | None:
        """Return the mean fees of the newest complete days, None without a complete day."""
        complete = [self.fees[date] for date in sorted(self.fees)[:-1]]
        return -(-sum(complete) // len(complete)) if complete else None

    def to_status(self) -> BooksStatus:
        """Return what is to be restored from the status."""
        return BooksStatus(
            trails=tuple(CountedTrail(trail=trail, number=number) for trail, number in self.trails.items()),
            sessions=tuple(
                CountedSessions(end=end, sessions=tuple(ids.split())) for end, ids in sorted(self.sessions.items())
            ),
            fees=tuple(CountedFees(date=date, upokt=min(LARGEST, upokt)) for date, upokt in sorted(self.fees.items())),
        )


def books_in(status: Mapping[str, Any]) -> Books:
    """Return the books in a Supplier's status.

    They are empty if it has none, or if they are not readable. Fields of a newer version are left out.
    """
    try:
        saved, _ = read_known(BooksStatus, unpacked(status.get("books") or {}))
        if not saved.trails:
            return Books()
        day, _ = read_known(DayStatus, status.get("day") or {})
        last, _ = read_known(LastEvents, status.get("last") or {})
        earned = [read_known(Earning, row)[0] for row in status.get("earned") or ()]
    except ValidationError as error:
        _LOG.error("books of a Supplier not readable, counting from the miners' trails", problem=problem_of(error))
        return Books()
    return Books(
        earned_by={row.recipient: row.upokt for row in earned},
        day=Day(
            day.date, {row.recipient: row.upokt for row in day.earned}, day.fees_upokt, day.settled, day.lost
        ),
        fees={row.date: row.upokt for row in saved.fees},
        last=last,
        trails={row.trail: row.number for row in saved.trails},
        sessions={row.end: _one_text(row.sessions) for row in saved.sessions},
    )  # fmt: skip


def latest(events: Collection[LastEvents]) -> LastEvents:
    """Return the latest mark of each event, where a mark reads `session at height`."""
    marks = {
        event: max((getattr(row, event) for row in events), key=_height, default="")
        for event in LastEvents.model_fields
    }
    return LastEvents(**marks)


def _height(mark: str) -> int:
    digits = mark.partition(" at ")[2].partition(":")[0]
    return int(digits) if digits.isdecimal() else -1


def _sum(amounts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return added(amounts, more, MOST_RECIPIENTS)


def _at_end(trails: Mapping[str, int], trail: str, number: int) -> dict[str, int]:
    """Return the trails with this one at the end, as the one that went on last."""
    return {**{known: at for known, at in trails.items() if known != trail}, trail: number}


def _with_trail(trails: Mapping[str, int], trail: str, number: int, live: Collection[str]) -> dict[str, int] | None:
    """Return the trails with one more, None if too many miners are live."""
    kept = _at_end(trails, trail, number)
    while len(kept) > MOST_TRAILS:
        gone = next((known for known in kept if known != trail and known not in live), None)
        if gone is None:
            return None
        del kept[gone]
    return kept


def _last_days(fees: Mapping[str, int]) -> dict[str, int]:
    return {date: fees[date] for date in sorted(fees)[-_FEE_DAYS:]}


def _one_text(ids: Iterable[str]) -> str:
    """Return ids as one text.

    A thousand texts of 16 characters take four times its memory.
    """
    return " ".join(sorted(set(ids)))


def _remembered(sessions: Mapping[int, str], end: int, short: str) -> dict[int, str]:
    """Return the sessions with one more, without those that are too old or too many."""
    by_height = {**sessions, end: _one_text([*sessions.get(end, "").split(), short])}
    kept: dict[int, str] = {}
    left, newest = _MOST_SESSIONS, max(by_height)
    for height in sorted(by_height, reverse=True):
        if height < newest - WINDOW_BLOCKS or left <= 0:
            break
        number = by_height[height].count(" ") + 1
        kept[height] = by_height[height] if number <= left else " ".join(by_height[height].split()[:left])
        left -= number
    return kept
