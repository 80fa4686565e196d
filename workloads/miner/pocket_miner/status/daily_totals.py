"""Sum outcomes by UTC day of the block at which they were concluded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pocket.api.status import MOST_RECIPIENTS
from pocket_miner.sessions.recipients import added
from pocket_miner.storage.outcomes import LOSSES, SessionOutcome

KEPT_DAYS: Final = 8


@dataclass(slots=True)
class DaySum:
    """What one supplier earned, paid and lost on one day, amounts in upokt."""

    earned_by: dict[str, int] = field(default_factory=dict)
    fees_upokt: int = 0
    settled: int = 0
    lost: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the totals as JSON."""
        return {
            "earned_by": dict(self.earned_by), "fees_upokt": self.fees_upokt, "settled": self.settled,
            "lost": self.lost,
        }  # fmt: skip


@dataclass(slots=True)
class DailyTotals:
    """The totals of the last days with outcomes, by date as in 2026-11-29."""

    days: dict[str, DaySum] = field(default_factory=dict)

    def record(self, outcome: Mapping[str, Any]) -> None:
        """Add an outcome. Those of older versions have no time and are left out."""
        details = outcome.get("details") or {}
        date = str(details.get("time") or "")[:10]
        if not date:
            return
        day = self.days.setdefault(date, DaySum())
        day.earned_by = added(day.earned_by, amounts(details.get("earned_by")), MOST_RECIPIENTS)
        fees = details.get("fees_upokt")
        day.fees_upokt += fees if isinstance(fees, int) else 0
        day.settled += outcome.get("outcome") == SessionOutcome.SETTLED
        day.lost += outcome.get("outcome") in LOSSES
        for old in sorted(self.days)[:-KEPT_DAYS]:
            del self.days[old]

    @property
    def newest(self) -> dict[str, Any] | None:
        """Return the totals of the last day with outcomes and its date, None without any."""
        if not self.days:
            return None
        date = max(self.days)
        return {"date": date, **self.days[date].to_dict()}

    @property
    def fees_per_day_upokt(self) -> int | None:
        """Return the mean fees of the complete days, upokt, None without a complete day."""
        complete = [day.fees_upokt for date, day in self.days.items() if date != max(self.days)]
        return -(-sum(complete) // len(complete)) if complete else None

    def to_dict(self) -> dict[str, Any]:
        """Return the totals as JSON, to be saved."""
        return {date: day.to_dict() for date, day in self.days.items()}

    @classmethod
    def restored(cls, saved: object) -> "DailyTotals":
        """Restore what `to_dict` returned."""
        rows = saved.items() if isinstance(saved, Mapping) else ()
        return cls({
            str(date): DaySum(
                amounts(row.get("earned_by")), int(row.get("fees_upokt", 0)), int(row.get("settled", 0)),
                int(row.get("lost", 0)),
            )
            for date, row in rows
        })  # fmt: skip


def amounts(stored: object) -> dict[str, int]:
    """Return the amounts by address in stored JSON, without anything else."""
    rows = stored.items() if isinstance(stored, Mapping) else ()
    return {str(address): upokt for address, upokt in rows if isinstance(upokt, int)}
