"""Sum outcomes by recipient and session, day or service. Amounts are in upokt."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pocket_miner.console.exports import table_lines
from pocket_miner.status.daily_totals import amounts

GROUPINGS: Final = ("session", "day", "service", "supplier")
_KEYS: Final = {
    "session": ("supplier", "day", "service_id", "session_id"),
    "day": ("supplier", "day", "service_id"),
    "service": ("supplier", "service_id"),
    "supplier": ("supplier",),
}
_FEES: Final = "(fees)"
"""The recipient of the rows that sum up transaction fees, which the operator's account paid."""


@dataclass(slots=True)
class _Sum:
    upokt: int = 0
    sessions: set[str] = field(default_factory=set)


def earnings_rows(
    outcomes: Iterable[Mapping[str, Any]], by: str, *, supplier: str = "", since: str = ""
) -> list[dict[str, Any]]:
    """Return one row for each group and recipient, in the order of the groups.

    Fees are negative amounts of the recipient `(fees)`. `since` is a date as in 2026-11-29: outcomes of versions that
    recorded no time are then left out.
    """
    keys = _KEYS[by]
    sums: dict[tuple[str, ...], _Sum] = {}
    for outcome in outcomes:
        details = outcome.get("details") or {}
        day = str(details.get("time") or "")[:10]
        if (supplier and outcome.get("supplier") != supplier) or (since and day < since):
            continue
        known = {
            "supplier": str(outcome.get("supplier", "")), "day": day, "service_id": str(details.get("service_id", "")),
            "session_id": str(outcome.get("session_id", "")),
        }  # fmt: skip
        paid = amounts(details.get("earned_by"))
        if fees := amounts({_FEES: details.get("fees_upokt")}).get(_FEES):
            paid[_FEES] = -fees
        for recipient, upokt in paid.items():
            row = sums.setdefault((*(known[key] for key in keys), recipient), _Sum())
            row.upokt += upokt
            row.sessions.add(f"{known['supplier']}/{known['session_id']}")
    return [
        {**dict(zip((*keys, "recipient"), group, strict=True)), "upokt": row.upokt, "sessions": len(row.sessions)}
        for group, row in sorted(sums.items())
    ]


def earnings_csv(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a header and one line per row, nothing without rows."""
    return table_lines(list(rows[0]), rows) if rows else iter(())
