"""Define what a panel and a row of a dashboard are."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph, or a single number with `stat`.

    `$pods` in queries stands for the matcher of the RelayMiner's pods.
    """

    title: str
    queries: tuple[tuple[str, str], ...]  # expression, legend
    unit: str = "short"
    stat: bool = False
    width: int = 8


@dataclass(frozen=True, slots=True)
class Row:
    """A titled row of panels."""

    title: str
    panels: tuple[Panel, ...]


_QUANTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def quantiles(
    family: str, by: str = "", shares: tuple[tuple[float, str], ...] = _QUANTILES
) -> tuple[tuple[str, str], ...]:
    """Return the queries of a histogram's quantiles, with their legends.

    Over five minutes.
    """
    grouped = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return tuple(
        (f"histogram_quantile({share}, sum by ({grouped}) (rate({family}_bucket{{$pods}}[5m])))", name + legend)
        for share, name in shares
    )
