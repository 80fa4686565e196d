"""Read the books that the operator keeps in the status of each Supplier.

They include miners that are gone, which a sum over the miners that answer does not. On the other hand they are some
seconds late, or older while the operator is away. Both only grow, so the larger one is newer.
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
    """Earnings by recipient since the beginning, in upokt.

    `day` is the last UTC day that had any outcome.
    """

    earned_by: Mapping[str, int]
    day: DayStatus

    def since_start(self, earned_by: Mapping[str, int]) -> dict[str, int]:
        """Return the larger one of these earnings and the miners' sums."""
        return dict(_larger(self.earned_by, earned_by))

    def of_day(self, totals: DayTotals) -> DayTotals:
        """Return the miners' totals of the same day, with what the books know in addition."""
        earned_by = {row.recipient: row.upokt for row in self.day.earned}
        return totals.model_copy(update={
            "earned_by": _larger(earned_by, totals.earned_by),
            "fees_upokt": max(self.day.fees_upokt, totals.fees_upokt),
            "settled": max(self.day.settled, totals.settled),
            "lost": max(self.day.lost, totals.lost),
        })  # fmt: skip


def _larger(first: Mapping[str, int], second: Mapping[str, int]) -> Mapping[str, int]:
    return first if sum(first.values()) >= sum(second.values()) else second


def books_by_supplier(cluster: ClusterSnapshot | None) -> dict[str, SupplierBooks]:
    """Return the readable books by operator address, none outside of a cluster."""
    if cluster is None:
        return {}
    by_supplier = {}
    for resource in cluster.suppliers:
        address = str((resource.get("spec") or {}).get("operatorAddress", ""))
        books = _books_of(resource.get("status") or {})
        if address and books is not None:
            by_supplier[address] = books
    return by_supplier


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
