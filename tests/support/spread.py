"""Order tests so that the processes of pytest-xdist are busy to the end.

With `--dist=worksteal` each process gets one span of the tests and later takes from the end of another's.
A long test at the end of a run leaves the others idle, so each span begins with long tests and ends with short ones.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

T = TypeVar("T")


def spread(items: Sequence[T], workers: int, module: Callable[[T], str], seconds: Callable[[T], float]) -> list[T]:
    """Return the tests in an order whose equal spans take about as long, the longest modules first.

    Long modules stay together, because their tests share fixtures. `seconds` estimates a test, 0 for a short one.
    """
    groups = [list(rows) for _, rows in groupby(items, module)]
    long = sorted((rows for rows in groups if any(map(seconds, rows))), key=lambda rows: -sum(map(seconds, rows)))
    short = [row for rows in groups if not any(map(seconds, rows)) for row in rows]
    sizes = [(len(items) + at) // workers for at in range(workers)]
    spans: list[list[T]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    for rows in long:
        at = min(range(workers), key=lambda n: (len(spans[n]) + len(rows) > sizes[n], loads[n]))
        spans[at] += rows
        loads[at] += sum(map(seconds, rows))
    for at in range(workers):
        missing = max(0, sizes[at] - len(spans[at]))
        spans[at] += short[:missing]
        short = short[missing:]
    return [row for span in spans for row in span] + short
