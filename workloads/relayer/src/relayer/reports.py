"""What the workers of a pod report, and how the supervisor sums it up for `/status`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One worker; `keys` is the digest of its public keys, empty without any.

    `leaving` are suppliers without a key whose relays may still be recorded: on their way, or in the local log alone.
    """

    worker: int
    pid: int
    keys: str
    height: int
    waiting: int
    problem: str = ""
    addresses: list[str] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)
    recent: dict[str, float] = field(default_factory=dict)

    def write(self, data_dir: Path) -> None:
        """Replaces the worker's file at once, so that a reader never sees half of it."""
        folder = data_dir / "status"
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".worker-{self.worker}-{self.pid}"
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(folder / f"worker-{self.worker}.json")


def read_reports(data_dir: Path, alive: Mapping[int, int]) -> list[WorkerReport]:
    """Reports of the workers that live, by worker number → pid; a dead predecessor's report is not taken."""
    found = []
    for number, pid in sorted(alive.items()):
        try:
            report = WorkerReport(**json.loads((data_dir / "status" / f"worker-{number}.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if report.pid == pid:
            found.append(report)
    return found


def summary(reports: Iterable[WorkerReport], workers: int) -> dict[str, Any]:
    """The pod's status: a key counts as loaded once every worker has it, and as gone once none may record for it."""
    rows = list(reports)
    complete = len(rows) == workers
    digests = {row.keys for row in rows}
    addresses = set.intersection(*(set(row.addresses) for row in rows)) if rows and complete else set()
    leaving = {address for row in rows for address in (*row.addresses, *row.leaving)} - addresses
    problems = sorted({row.problem for row in rows if row.problem})
    if not complete:
        problems.append(f"{workers - len(rows)} of {workers} workers have not reported yet")
    names = sorted({name for row in rows for name in row.recent})
    recent = {name: sum(row.recent.get(name, 0) for row in rows) for name in names}
    return {
        "component": "relayer",
        "workers": len(rows),
        "keys": digests.pop() if complete and len(digests) == 1 else "",
        "addresses": sorted(addresses),
        "leaving": sorted(leaving),
        "complete": complete,
        "height": min((row.height for row in rows), default=0),
        "waiting": sum(row.waiting for row in rows),
        "problems": problems,
        "recent": recent,
    }
