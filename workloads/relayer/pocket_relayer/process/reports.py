"""Reports of a pod's workers through a pipe, and their summary for `/report`.

A line of JSON each second is report and heartbeat at once. It needs no file, so it works with a full volume.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pocket.api.problems import Problem, ProblemCode
from pocket_relayer.process.worker_problems import OF_ALL_PODS, OF_ONE_WORKER

LARGEST_LINE: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="ignore"))
class WorkerReport:
    """Report of one worker.

    `keys` is the digest of its public keys, empty without any. `leaving` are suppliers without a key whose relays may
    still be recorded: in flight, or only in the write-ahead log. A `starting` worker has not read its keys and its log
    yet, so its report does not cover them.
    """

    worker: int
    pid: int
    keys: str
    height: int
    waiting: int
    problems: tuple[Problem, ...] = ()
    addresses: list[str] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)
    recent: dict[str, float] = field(default_factory=dict)
    starting: bool = False
    unhealthy: list[dict[str, Any]] = field(default_factory=list)
    """Unavailable endpoints, see `ServiceBackends.endpoints`."""
    budgets: list[dict[str, Any]] = field(default_factory=list)
    """Budgets by application, see `RecentBudgets.rows`."""


_ADAPTER: Final = TypeAdapter(WorkerReport)


def encode_report(report: WorkerReport) -> bytes:
    """Return the line of a report."""
    return _ADAPTER.dump_json(report) + b"\n"


def decode_report(line: bytes) -> WorkerReport | None:
    """Return the report of a line, or None if it is invalid."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None


class ReportWriter:
    """The worker's end of the pipe.

    It never blocks: reports that the supervisor does not read are dropped.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._transport: asyncio.WriteTransport | None = None

    async def open(self) -> None:
        """Take over the pipe. Without one, reports are dropped."""
        if self._descriptor is None:
            return
        pipe = os.fdopen(self._descriptor, "wb", buffering=0)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, pipe)

    def write(self, report: WorkerReport) -> None:
        """Send a report, unless an earlier one is still unsent or the supervisor is gone."""
        pipe = self._transport
        if pipe is not None and not pipe.is_closing() and not pipe.get_write_buffer_size():
            pipe.write(encode_report(report))

    def close(self) -> None:
        """Close the pipe."""
        if self._transport is not None:
            self._transport.abort()


def silent_problem(number: int, pid: int, hung_seconds: float) -> Problem:
    """Return the problem of a silent worker. Its text does not change while it lasts."""
    return Problem(
        code=ProblemCode.WORKER_HUNG,
        message=f"worker {number} (process {pid}) does not respond: relays on its connections hang. It is killed and "
        f"restarted after {hung_seconds:g} s",
    )


def summary(
    reports: Iterable[WorkerReport], workers: int, silent: Mapping[int, Problem] | None = None
) -> dict[str, Any]:
    """Return the pod's report.

    A key counts as loaded once every worker has it, and as gone once no worker may record for it. `silent` holds the
    problems of silent workers by number. Their earlier reports do not count, so the pod's report is incomplete.
    """
    silent = silent or {}
    alive = [row for row in reports if row.worker not in silent]
    rows = [row for row in alive if not row.starting]
    complete = len(rows) == workers
    digests = {row.keys for row in rows}
    addresses = set.intersection(*(set(row.addresses) for row in rows)) if rows and complete else set()
    leaving = {address for row in rows for address in (*row.addresses, *row.leaving)} - addresses
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
        "problems": [problem.model_dump() for problem in _problems(alive, workers, silent)],
        "recent": recent,
        "unhealthy": sorted(
            (dict(row) for row in {tuple(row.items()) for report in rows for row in report.unhealthy}),
            key=lambda row: [str(value) for value in row.values()],
        ),
        "budgets": _budgets(rows),
    }


def _budgets(rows: list[WorkerReport]) -> list[dict[str, Any]]:
    """Return each application's smallest limit and its relays above it over all workers."""
    by_key: dict[tuple[str, str], dict[str, Any]] = {}
    for row in (budget for report in rows for budget in report.budgets):
        key = str(row["service"]), str(row["application"])
        known = by_key.get(key)
        by_key[key] = row if known is None else {
            **row, "limit_upokt": min(known["limit_upokt"], row["limit_upokt"]),
            "over_budget": known["over_budget"] + row["over_budget"],
        }  # fmt: skip
    return [by_key[key] for key in sorted(by_key)]


def _problems(rows: list[WorkerReport], workers: int, silent: Mapping[int, Problem]) -> list[Problem]:
    """Return each problem once, the most severe first."""
    distinct = {problem for row in rows for problem in row.problems}
    missing = workers - len(rows) - len(silent)
    if missing:
        message = f"{missing} of {workers} workers have not reported yet"
        distinct.add(Problem(code=ProblemCode.WORKER_MISSING, message=message))
    others = sorted(distinct, key=lambda problem: (problem.code, problem.message))
    return [*(silent[number] for number in sorted(silent)), *others]


def not_ready(reports: Iterable[WorkerReport], workers: int, silent: Mapping[int, Problem]) -> list[Problem]:
    """Return why the pod should get no relays, empty if it should get them.

    The kernel distributes connections to every listening worker. A starting worker does not listen yet. A hanging one,
    or one that rejects every relay, gets its share, so the pod is not ready until it serves or is gone. A problem of
    what all pods share does not take a serving pod out.
    """
    rows = [row for row in reports if row.worker not in silent]
    listening = [{problem.code for problem in row.problems} for row in rows if not row.starting]
    rejecting = any(codes & OF_ONE_WORKER for codes in listening)
    if silent or rejecting or not any(codes <= OF_ALL_PODS for codes in listening):
        return _problems(rows, workers, silent)
    return []
