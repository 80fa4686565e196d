"""Keep totals of ended sessions per day, by the chain's clock."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from pocket.api.miner_status import DayTotals
from pocket.api.recipients import added
from pocket.api.status import MOST_RECIPIENTS
from pocket_miner.storage.outcomes import LOSSES, SessionOutcome

DAYS: Final = 35
"""Days that are kept per supplier."""
_FEE_DAYS: Final = 7
_DATE: Final = len("2026-11-29")


def with_outcome(days: Mapping[str, DayTotals], outcome: Mapping[str, Any]) -> dict[str, DayTotals]:
    """Return the days with one more outcome, the newest days only.

    An outcome without a time, which an older version recorded, counts for no day.
    """
    details = outcome.get("details") or {}
    day = str(details.get("time") or "")[:_DATE]
    if not day:
        return dict(days)
    before, name = days.get(day, DayTotals()), str(outcome.get("outcome", ""))
    claimed, settled = _amount(details.get("claimed_upokt")), _amount(details.get("settled_upokt"))
    missed = max(0, claimed - settled) if name != SessionOutcome.UNSEEN else 0
    lost = {name: missed} if missed else {}
    totals = DayTotals(
        sessions=before.sessions + 1,
        settled=before.settled + (name == SessionOutcome.SETTLED),
        lost=before.lost + (name in LOSSES),
        relays=before.relays + _amount(details.get("relays")),
        claimed_upokt=before.claimed_upokt + claimed,
        lost_upokt=before.lost_upokt + missed,
        fees_upokt=before.fees_upokt + _amount(details.get("fees_upokt")),
        earned_by=added(before.earned_by, amounts(details.get("earned_by")), MOST_RECIPIENTS),
        lost_by=added(before.lost_by, lost, len(SessionOutcome) + 1),
    )
    kept = {**days, day: totals}
    return {date: kept[date] for date in sorted(kept)[-DAYS:]}


def restored_days(saved: object) -> dict[str, DayTotals]:
    """Return the saved days, without unreadable ones."""
    days = {}
    for day, totals in saved.items() if isinstance(saved, Mapping) else ():
        try:
            days[str(day)] = DayTotals.model_validate(totals)
        except ValidationError:
            continue
    return days


def newest_day(days: Mapping[str, DayTotals]) -> dict[str, Any] | None:
    """Return the totals of the last day with outcomes and its date, None without any."""
    if not days:
        return None
    date = max(days)
    return {"date": date, **days[date].model_dump(include={"earned_by", "fees_upokt", "settled", "lost"})}


def fees_by_day(days: Mapping[str, DayTotals]) -> dict[str, int]:
    """Return the fees of the newest days with outcomes by date, upokt."""
    return {date: days[date].fees_upokt for date in sorted(days)[-_FEE_DAYS - 1 :]}


def fees_per_day_upokt(days: Mapping[str, DayTotals]) -> int | None:
    """Return the mean fees of the newest complete days, upokt.

    The result is None without a complete day.
    """
    complete = [days[date].fees_upokt for date in sorted(days)[:-1]][-_FEE_DAYS:]
    return -(-sum(complete) // len(complete)) if complete else None


def amounts(stored: object) -> dict[str, int]:
    """Return the amounts by address in stored JSON, without anything else."""
    rows = stored.items() if isinstance(stored, Mapping) else ()
    return {str(address): upokt for address, upokt in rows if isinstance(upokt, int)}


def _amount(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0
