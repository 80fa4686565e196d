"""Charts as columns of numbers, which the page draws and also lists as a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pocket.api.miner_status import DayTotals, EndedSession

_MOST_POINTS: Final = 60
_TABLE_ROWS: Final = 12


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines or bars over one axis. The first column holds the places on the axis.

    `axis` is `blocks`, `days` (as seconds since 1970) or `seconds` (before now). `labels` name the days in the table.
    """

    name: str
    title: str
    axis: str
    series: tuple[str, ...]
    columns: tuple[tuple[float, ...], ...]
    unit: str = "upokt"
    bars: bool = False
    labels: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Return True if there is nothing to draw."""
        return not self.columns or not self.columns[0]

    @property
    def data(self) -> str:
        """Return what the page's script needs, as JSON."""
        return json.dumps(
            {
                "axis": self.axis,
                "series": self.series,
                "columns": self.columns,
                "unit": self.unit,
                "bars": self.bars,
                "labels": self.labels,
            }
        )

    @property
    def table(self) -> Sequence[tuple[str, tuple[float, ...]]]:
        """Return the newest rows as (place, values), the newest first."""
        positions = self.labels or tuple(f"{position:g}" for position in self.columns[0])
        rows = list(zip(positions, zip(*self.columns[1:], strict=True), strict=True))
        return rows[::-1][:_TABLE_ROWS]


def earned_by_block(ended: Sequence[EndedSession], title: str) -> Chart:
    """Return what ended sessions earned and lost, by the block of their end.

    Only the newest blocks are returned.
    """
    earned: dict[int, int] = {}
    lost: dict[int, int] = {}
    for row in ended:
        earned[row.height] = earned.get(row.height, 0) + row.earned_upokt
        lost[row.height] = lost.get(row.height, 0) + (max(0, row.claimed_upokt - row.settled_upokt) if row.lost else 0)
    heights = sorted(earned)[-_MOST_POINTS:]
    columns = (
        tuple(map(float, heights)),
        tuple(float(earned[height]) for height in heights),
        tuple(float(lost[height]) for height in heights),
    )
    return Chart("earned-by-block", title, "blocks", ("earned", "lost"), columns, bars=True)


def earned_by_day(days: Mapping[str, DayTotals], title: str) -> Chart:
    """Return what was earned and lost on each day."""
    labels = tuple(sorted(days))
    columns = (
        tuple(map(float, range(len(labels)))),
        tuple(float(days[day].earned_upokt) for day in labels),
        tuple(float(days[day].lost_upokt) for day in labels),
    )
    return Chart("earned-by-day", title, "days", ("earned", "lost"), columns, bars=True, labels=labels)
