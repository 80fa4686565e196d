"""Which faults a sweep tries, how they are lived by several processes, and the table of what came of them."""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path

from pocket.redis_store.connection import connect
from servers import running_redis
from sweep_faults import KINDS, Call, Fault, writes
from sweep_life import FIRST, STAGES, Life, Script

HARDENING = Path(__file__).parents[2] / "docs" / "hardening.md"
RESTARTS = (0, 13, 15)
FEW = 100  # so few lives are lived in this process
_EQUAL_CALLS = 2  # of a block that differ in nothing but the session


@dataclass(frozen=True)
class Point:
    """One fault of one life.

    `restart` is the height at which the miner also restarts, or 0.
    """

    restart: int
    boundary: str
    kind: str
    at: int
    height: int


def stage_at(height: int) -> str:
    return next(stage for stage, (first, last) in STAGES.items() if first <= height <= last)


def different(calls: Sequence[Call]) -> list[Call]:
    """Return the calls of a life without those at which a fault can do nothing that it does not do at another.

    What is left out: the second supplier's, where the first one does the same in that stage; the third and further
    calls of a block that are alike; a block in which the same is asked as in the block before, in the same stage.
    """
    by_height: dict[int, list[Call]] = {}
    first = {(stage_at(max(FIRST, call.height)), call.boundary, call.name) for call in calls if call.supplier < 1}
    for call in calls:
        if call.supplier < 1 or (stage_at(max(FIRST, call.height)), call.boundary, call.name) not in first:
            by_height.setdefault(call.height, []).append(call)
    kept: list[Call] = []
    before: tuple[str, list[tuple[str, str]]] = ("", [])
    for height, rows in sorted(by_height.items()):
        stage = stage_at(max(FIRST, height))
        this = (stage, [(call.boundary, call.name) for call in rows])
        if this != before:
            seen = Counter[tuple[str, str]]()
            for call in rows:
                seen[call.boundary, call.name] += 1
                if seen[call.boundary, call.name] <= _EQUAL_CALLS:
                    kept.append(call)
        before = this
    return kept


def can_fail(call: Call, kind: str) -> bool:
    return kind != "full" or call.boundary != "sqlite" or writes(call.name)


def points_of(restart: int, calls: Sequence[Call]) -> list[Point]:
    """Return every kind of fault at every distinct call.

    Before a restart a life equals one without it.
    """
    return [
        Point(restart, call.boundary, kind, call.number, max(FIRST, call.height))
        for call in different(calls) if call.height >= restart
        for kind in KINDS[call.boundary] if can_fail(call, kind)
    ]  # fmt: skip


async def every_point(script: Script, redis: object) -> list[Point]:
    """Return the points of all lives.

    Raises AssertionError if a life loses something without a fault.
    """
    found = []
    for restart in RESTARTS:
        counted = Fault()
        losses = await Life(script, redis, counted, restart).run()
        assert losses == [], losses
        found += points_of(restart, counted.calls)
    return found


def chosen_points(every: Sequence[Point], wanted: str) -> list[Point]:
    """Return the points that are wanted: `all`, a sample of so many, or those of kinds and boundaries by name."""
    if wanted.isdecimal():
        return random.sample(every, min(len(every), int(wanted)))
    names = set(wanted.split(","))
    if unknown := names - {"all", *KINDS, *(kind for kinds in KINDS.values() for kind in kinds)}:
        raise ValueError(f"neither a boundary nor a kind of fault: {', '.join(sorted(unknown))}")
    return [point for point in every if names & {"all", point.boundary, point.kind}]


async def live(script: Script, redis: object, point: Point) -> list[str]:
    """Return the losses from the fault of a point."""
    fault = Fault(point.boundary, point.kind, point.at)
    return await guarded(Life(script, redis, fault, point.restart).run())


async def guarded(life: Awaitable[list[str]]) -> list[str]:
    """Return the losses of a life.

    An error that ends it counts as a loss.
    """
    try:
        return await life
    except Exception as error:  # noqa: BLE001 - whatever it is, the miner would have ended
        return [f"the miner ended: {type(error).__name__}: {error}"[:200]]


Work = Callable[[Script, object, object], Awaitable[list[str]]]
_here: dict[str, object] = {}


def _begin() -> None:
    stack = contextlib.ExitStack()
    _here.update(redis=stack.enter_context(running_redis()), script=Script())
    Finalize(None, stack.close, exitpriority=1)  # a process of a pool runs no atexit


def _live_here(work: Work, item: object) -> list[str]:
    async def run() -> list[str]:
        redis = connect(_here["redis"].url)  # type: ignore[attr-defined]
        try:
            return await work(_here["script"], redis, item)  # type: ignore[arg-type]
        finally:
            await redis.aclose()

    return asyncio.run(run())


def processes() -> int:
    return int(os.environ.get("JOBS") or os.cpu_count() or 1)


def lived(work: Work, items: Sequence[object], number: int) -> Iterator[tuple[object, list[str]]]:
    """Live all items in processes, each with a Redis of its own."""
    with ProcessPoolExecutor(number, get_context("spawn"), _begin) as pool:
        found = pool.map(_live_here, [work] * len(items), items, chunksize=8)
        yield from zip(items, found, strict=True)


# Tables.


def sweep_columns() -> list[str]:
    return [*STAGES, *(f"restart at {restart}" for restart in RESTARTS if restart)]


def sweep_rows() -> list[tuple[str, str]]:
    return [(boundary, kind) for boundary, kinds in KINDS.items() for kind in kinds]


def column_of(point: Point) -> str:
    return f"restart at {point.restart}" if point.restart else stage_at(point.height)


def sweep_table(tried: Collection[Point], lost: Iterable[Point], former: str = "") -> str:
    """Return the table of docs/hardening.md. Rows of which nothing was tried are those of the former table."""
    kept = {tuple(cell.strip() for cell in line.split("|")[1:3]): line for line in former.splitlines()}
    made = _sweep_table(tried, lost).splitlines()
    new = {(point.boundary, point.kind) for point in tried}
    rows = (line if name in new else kept.get(name, line) for name, line in zip(sweep_rows(), made[2:], strict=True))
    return "\n".join([*made[:2], *rows]) + "\n"


def _sweep_table(tried: Iterable[Point], lost: Iterable[Point]) -> str:
    count = Counter(((p.boundary, p.kind), column_of(p)) for p in tried)
    bad = Counter(((p.boundary, p.kind), column_of(p)) for p in lost)
    return table(["boundary", "fault"], sweep_rows(), sweep_columns(), count, bad)


def table(
    heads: Sequence[str], rows: Sequence[tuple[str, ...]], columns: Sequence[str], count: Counter, bad: Counter
) -> str:
    """Each cell: how many were tried, and in how many of them something was lost."""

    def cell(row: tuple[str, ...], column: str) -> str:
        if not count[row, column]:
            return "–"
        return f"{count[row, column]}, **{bad[row, column]} lost**" if bad[row, column] else f"{count[row, column]}"

    lines = ["| " + " | ".join([*heads, *columns]) + " |", "|" + "--|" * (len(heads) + len(columns))]
    lines += ["| " + " | ".join([*row, *(cell(row, column) for column in columns)]) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def put_table(path: Path, name: str, text: str) -> None:
    """Write a table between its markers in a Markdown file."""
    content = path.read_text(encoding="utf-8")
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    before, _, rest = content.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{path} has no markers of {name}")
    path.write_text(before + begin + text + end + after, encoding="utf-8")


def between_markers(path: Path, name: str) -> str:
    """Return the table between the markers."""
    content = path.read_text(encoding="utf-8")
    return content.partition(f"<!-- begin {name} -->\n")[2].partition(f"<!-- end {name} -->")[0]
