"""Reports of a pod's workers through a pipe, and their summary for `/report`.

A line each second is a sign of life: a report as JSON, or an empty one while a worker that serves nothing has nothing
new to report. It needs no file, so it works with a full volume.
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
_PIECE: Final = 64 * 1024
_PIECES: Final = 64


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
        if (pipe := self._free_pipe()) is not None:
            pipe.write(encode_report(report))

    def beat(self) -> None:
        """Send a sign of life: the last report is still true. The same exceptions apply."""
        if (pipe := self._free_pipe()) is not None:
            pipe.write(b"\n")

    def _free_pipe(self) -> asyncio.WriteTransport | None:
        pipe = self._transport
        return None if pipe is None or pipe.is_closing() or pipe.get_write_buffer_size() else pipe

    def close(self) -> None:
        """Close the pipe."""
        if self._transport is not None:
            self._transport.abort()


class ReportReader:
    """The supervisor's end of the pipe.

    It is read when a report is needed, and a report wakes no process.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._begun = bytearray()
        """A line whose end has not come."""
        self._line = b""
        """The last whole line, until the report is decoded."""
        self._report: WorkerReport | None = None

    def receive(self) -> bool:
        """Take what has come, a few MiB at most, without blocking.

        Returns False if nothing has.
        """
        for number in range(_PIECES):
            try:
                piece = os.read(self._descriptor, _PIECE)
            except OSError:  # nothing is there
                piece = b""
            if not piece:
                return number > 0
            *lines, begun = piece.split(b"\n")
            for line in lines:
                self._begun += line
                if self._begun:
                    self._line = bytes(self._begun)
                self._begun.clear()
            if len(self._begun) <= LARGEST_LINE:
                self._begun += begun
        return True

    @property
    def is_in_a_line(self) -> bool:
        """Return True if the rest of a line has not come.

        A pipe holds less than the report of many suppliers.
        """
        return bool(self._begun)

    @property
    def report(self) -> WorkerReport | None:
        """Return the last received report that can be decoded."""
        if self._line:
            self._report, self._line = decode_report(self._line) or self._report, b""
        return self._report

    def close(self) -> None:
        """Close the pipe. What has come is kept."""
        self.receive()
        os.close(self._descriptor)
        self._descriptor = -1


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
    alive = [report for report in reports if report.worker not in silent]
    serving = [report for report in alive if not report.starting]
    complete = len(serving) == workers
    digests = {report.keys for report in serving}
    addresses = set.intersection(*(set(report.addresses) for report in serving)) if serving and complete else set()
    leaving = {address for report in serving for address in (*report.addresses, *report.leaving)} - addresses
    names = sorted({name for report in serving for name in report.recent})
    recent = {name: sum(report.recent.get(name, 0) for report in serving) for name in names}
    return {
        "component": "relayer",
        "workers": len(serving),
        "keys": digests.pop() if complete and len(digests) == 1 else "",
        "addresses": sorted(addresses),
        "leaving": sorted(leaving),
        "complete": complete,
        "height": min((report.height for report in serving), default=0),
        "waiting": sum(report.waiting for report in serving),
        "problems": [problem.model_dump() for problem in _problems(alive, workers, silent)],
        "recent": recent,
        "unhealthy": sorted(
            (dict(one) for one in {tuple(one.items()) for report in serving for one in report.unhealthy}),
            key=lambda endpoint: [str(value) for value in endpoint.values()],
        ),
        "budgets": _budgets(serving),
    }


def _budgets(reports: list[WorkerReport]) -> list[dict[str, Any]]:
    """Return each application's smallest limit and its relays above it.

    All workers are counted.
    """
    by_key: dict[tuple[str, str], dict[str, Any]] = {}
    for budget in (one for report in reports for one in report.budgets):
        key = str(budget["service"]), str(budget["application"])
        known = by_key.get(key)
        by_key[key] = budget if known is None else {
            **budget, "limit_upokt": min(known["limit_upokt"], budget["limit_upokt"]),
            "over_budget": known["over_budget"] + budget["over_budget"],
        }  # fmt: skip
    return [by_key[key] for key in sorted(by_key)]


def _problems(reports: list[WorkerReport], workers: int, silent: Mapping[int, Problem]) -> list[Problem]:
    """Return each problem once: those of silent workers first, then by code."""
    distinct = {problem for report in reports for problem in report.problems}
    missing = workers - len(reports) - len(silent)
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
    serving = [report for report in reports if report.worker not in silent]
    listening = [{problem.code for problem in report.problems} for report in serving if not report.starting]
    rejecting = any(codes & OF_ONE_WORKER for codes in listening)
    if silent or rejecting or not any(codes <= OF_ALL_PODS for codes in listening):
        return _problems(serving, workers, silent)
    return []
