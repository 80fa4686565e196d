"""Merge what several miners report, and the operator's books, into one picture."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pocket.api.miner_status import DayTotals, EndedSession, MinedSupplier, OpenSession
from pocket_console.snapshot import ConsoleSnapshot, MinerSnapshot
from pocket_console.views.books import books_by_supplier

Session = OpenSession | EndedSession
Pair = tuple[str, str]
"""Supplier and session id."""
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Merged:
    """The sessions and suppliers of all miners.

    `open` is ordered by the block at which something is due, `ended` with the newest first. `reported_by` names the
    miner of each open session. `today` is the newest day by the chain's clock, empty before the first block.
    """

    height: int
    today: str
    open: tuple[OpenSession, ...]
    ended: tuple[EndedSession, ...]
    reported_by: Mapping[Pair, str]
    suppliers: Mapping[str, MinedSupplier]
    owners: Mapping[str, str]
    days: Mapping[str, Mapping[str, DayTotals]]
    """Totals by supplier and day."""
    earned_by: Mapping[str, Mapping[str, int]]
    """Earnings since the beginning by supplier and recipient, upokt."""
    stale: frozenset[str]
    """Miners whose values are old."""

    def is_stale(self, session: OpenSession) -> bool:
        """Return True if the miner that reported a session does not answer."""
        return self.reported_by.get((session.supplier, session.session_id), "") in self.stale


def merged(snapshot: ConsoleSnapshot, now: float) -> Merged:
    """Return the picture of all miners.

    Of a session or supplier that two miners report, the one that answered last counts. A session with an outcome is
    not open. Earnings of miners that are gone are those of the operator's books.
    """
    miners = sorted(snapshot.miners, key=_answered)
    ended: dict[Pair, EndedSession] = {}
    for miner in miners:
        for outcome in miner.outcomes:
            ended[outcome.supplier, outcome.session_id] = outcome
    opened: dict[Pair, OpenSession] = {}
    reported_by: dict[Pair, str] = {}
    for miner in miners:
        for session in miner.sessions:
            pair = (session.supplier, session.session_id)
            if pair not in ended:
                opened[pair], reported_by[pair] = session, miner.origin.name
    suppliers, owners = _suppliers(miners)
    states = [miner.state for miner in miners if miner.state is not None]
    today = max((state.block_time for state in states), default="")[:10]
    days, earned_by = _days(miners), _earned(miners)
    for address, books in books_by_supplier(snapshot.cluster).items():
        earned_by[address] = books.since_start(earned_by.get(address, {}))
        if today and books.day.date == today:
            of_supplier = days.setdefault(address, {})
            of_supplier[today] = books.of_day(of_supplier.get(today, DayTotals()))
    return Merged(
        height=max((state.height for state in states), default=0),
        today=today,
        open=tuple(sorted(opened.values(), key=_urgency)),
        ended=tuple(sorted(ended.values(), key=lambda row: (-row.height, -row.number))),
        reported_by=reported_by,
        suppliers=suppliers,
        owners=owners,
        days=days,
        earned_by=earned_by,
        stale=frozenset(miner.origin.name for miner in miners if miner.freshness.stale(now)),
    )


def _answered(miner: MinerSnapshot) -> float:
    return _NEVER if miner.freshness.answered_at is None else miner.freshness.answered_at


def _urgency(session: OpenSession) -> tuple[int, int, str, str]:
    later = session.windows.proof_close if session.windows is not None else session.end
    return (0, session.due, "", "") if session.due else (1, later, session.supplier, session.session_id)


def _suppliers(miners: Sequence[MinerSnapshot]) -> tuple[dict[str, MinedSupplier], dict[str, str]]:
    """Return the suppliers and their owners.

    The report of the owner counts before that of another miner.
    """
    owners = {
        address: miner.origin.name for miner in miners if miner.state is not None for address in miner.state.owned
    }
    suppliers: dict[str, MinedSupplier] = {}
    for miner in miners:
        for row in miner.suppliers:
            if row.address not in suppliers or owners.get(row.address) == miner.origin.name:
                suppliers[row.address] = row
    return suppliers, owners


def _days(miners: Sequence[MinerSnapshot]) -> dict[str, dict[str, DayTotals]]:
    days_by_supplier: dict[str, dict[str, DayTotals]] = {}
    for miner in miners:
        for row in miner.suppliers:
            days = days_by_supplier.setdefault(row.address, {})
            for day, totals in row.days.items():
                days[day] = added_days((days[day], totals)) if day in days else totals
    return days_by_supplier


def _earned(miners: Sequence[MinerSnapshot]) -> dict[str, dict[str, int]]:
    earned_by_supplier: dict[str, dict[str, int]] = {}
    for miner in miners:
        for row in miner.suppliers:
            earned_by_supplier[row.address] = summed(earned_by_supplier.get(row.address, {}), row.earned_by)
    return earned_by_supplier


def summed(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    """Return the sums by name."""
    total = dict(first)
    for name, value in second.items():
        total[name] = total.get(name, 0) + value
    return total


class _DaySum:
    """Sums totals of one day without making a model for each of them."""

    _COUNTS: Final = ("sessions", "settled", "lost", "relays", "claimed_upokt", "lost_upokt", "fees_upokt")

    def __init__(self) -> None:
        self._counts = [0] * len(self._COUNTS)
        self._earned_by: dict[str, int] = {}
        self._lost_by: dict[str, int] = {}

    def add(self, totals: DayTotals) -> None:
        """Add the totals of a supplier."""
        for index, name in enumerate(self._COUNTS):
            self._counts[index] += getattr(totals, name)
        for total, more in ((self._earned_by, totals.earned_by), (self._lost_by, totals.lost_by)):
            for name, upokt in more.items():
                total[name] = total.get(name, 0) + upokt

    def totals(self) -> DayTotals:
        """Return the sum."""
        counts: dict[str, Any] = dict(zip(self._COUNTS, self._counts, strict=True))
        return DayTotals(**counts, earned_by=self._earned_by, lost_by=self._lost_by)


def added_days(rows: Iterable[DayTotals]) -> DayTotals:
    """Return the sum of totals."""
    total = _DaySum()
    for row in rows:
        total.add(row)
    return total.totals()


def all_days(picture: Merged) -> dict[str, DayTotals]:
    """Return the totals of all suppliers by day, the oldest first."""
    sums: dict[str, _DaySum] = {}
    for days in picture.days.values():
        for day, totals in days.items():
            sums.setdefault(day, _DaySum()).add(totals)
    return {day: sums[day].totals() for day in sorted(sums)}
