"""Read the books that the operator keeps in the status of each Supplier.

They count each outcome once, those of miners that are gone included, which a sum over the miners that answer does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pocket.api.lenient import read_known
from pocket.api.miner_status import DayTotals
from pocket.api.status import CountedTrail, DayStatus, Earning
from pocket_console.snapshot import ClusterSnapshot


@dataclass(frozen=True, slots=True)
class SupplierBooks:
    """Earnings since the beginning by recipient (upokt), and the last UTC day with any outcome."""

    earned_by: Mapping[str, int]
    day: DayStatus

    def corrected(self, totals: DayTotals) -> DayTotals:
        """Return the miners' totals of the same day with the earnings, fees and outcomes that the books have."""
        return totals.model_copy(update={
            "earned_by": {row.recipient: row.upokt for row in self.day.earned},
            "fees_upokt": self.day.fees_upokt, "settled": self.day.settled, "lost": self.day.lost,
        })  # fmt: skip


def books_by_supplier(cluster: ClusterSnapshot | None) -> dict[str, SupplierBooks]:
    """Return the readable books by operator address, none outside of a cluster."""
    if cluster is None:
        return {}
    found = {}
    for resource in cluster.suppliers:
        address = str((resource.get("spec") or {}).get("operatorAddress", ""))
        books = _books_of(resource.get("status") or {})
        if address and books is not None:
            found[address] = books
    return found


def _books_of(status: Mapping[str, Any]) -> SupplierBooks | None:
    try:
        trails = [read_known(CountedTrail, row)[0] for row in (status.get("books") or {}).get("trails") or ()]
        day, _ = read_known(DayStatus, status.get("day") or {})
        earned = [read_known(Earning, row)[0] for row in status.get("earned") or ()]
    except ValidationError:
        return None
    if not trails:
        return None
    return SupplierBooks({row.recipient: row.upokt for row in earned}, day)
