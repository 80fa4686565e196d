"""Sum what the miners report of a supplier's earnings, fees and funds.

Amounts are in upokt.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from pocket.api.recipients import bounded
from pocket.api.status import MOST_RECIPIENTS, Earning, Funds
from pocket_operator.decide.pod_report import ReportedSupplier

LARGEST: Final = 2**63 - 1
"""The largest integer that the API server accepts."""


def earnings(parts: Iterable[Mapping[str, int]]) -> tuple[Earning, ...]:
    """Return earnings by recipient: the largest first, and the sum of the rest last."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    rows = bounded(total, MOST_RECIPIENTS).items()
    return tuple(Earning(recipient=address, upokt=min(LARGEST, upokt)) for address, upokt in rows)


def funds(row: ReportedSupplier | None, fees_per_day: Iterable[int | None]) -> Funds:
    """Return balance, fees a day and the days for which the balance lasts.

    `row` is the owner's report, None without one. `fees_per_day` are added up, without the unknown ones.
    """
    balance = row.balance_upokt if row is not None else None
    fees = [upokt for upokt in fees_per_day if upokt is not None]
    per_day = min(LARGEST, sum(fees)) if fees else None
    left = balance // per_day if balance is not None and per_day else None
    return Funds(balance_upokt=balance, fees_per_day_upokt=per_day, days_left=left)
