"""Poll /report of the pods, which therefore need no API token."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import aiohttp
import structlog
from pydantic import ValidationError
from structlog.typing import FilteringBoundLogger

from pocket.api.base import problem_of
from pocket.api.miner_status import OPERATOR_READER, OUTCOMES_PATH, OutcomePage
from pocket_operator.controller.books_keeper import BooksKeeper
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.pod_report import Report
from pocket_operator.resources import names
from pocket_operator.resources.config import ADMIN_PORT

_LOG: FilteringBoundLogger = structlog.get_logger()
_CONCURRENCY = 16
_SECONDS = 2.0
_LARGEST = 16 * 1024 * 1024
_STALE_SECONDS = 10.0
_PASSING = frozenset({"height", "waiting", "recent", "looked", "budgets"})


class PodReportCache:
    """The latest report of every pod.

    A report that is not renewed is dropped after some seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reports: dict[tuple[str, str], Report] = {}
        self._digests: dict[tuple[str, str], str] = {}
        self._unreadable: set[tuple[str, str]] = set()

    def of(self, namespace: str, pods: Iterable[str]) -> tuple[Report, ...]:
        """Return the reports of some pods."""
        reports = (self._reports.get((namespace, pod)) for pod in pods)
        return tuple(report for report in reports if report is not None)

    def update(self, namespace: str, pod: str, body: dict[str, Any] | None) -> bool:
        """Store a pod's report (None if the request failed).

        Returns True if something relevant changed.
        """
        pod_name = (namespace, pod)
        report = None if body is None else self._read(pod_name, body)
        if body is None or report is None:
            known = self._reports.get(pod_name)
            if known is None or self._clock() - known.at < _STALE_SECONDS:
                return False
            del self._reports[pod_name]
            self._digests.pop(pod_name, None)
            return True
        self._reports[pod_name] = report
        weighty = {key: value for key, value in body.items() if key not in _PASSING}
        digest = hashlib.sha256(json.dumps(weighty, sort_keys=True).encode()).hexdigest()
        changed = self._digests.get(pod_name) != digest
        self._digests[pod_name] = digest
        return changed

    def _read(self, pod_name: tuple[str, str], body: Mapping[str, Any]) -> Report | None:
        """Parse a report. Returns None if it is invalid, which counts as no answer."""
        try:
            report = Report.of(pod_name[1], body, self._clock())
        except ValidationError as error:
            if pod_name not in self._unreadable:
                _LOG.warning(
                    "cannot read the report of a pod", namespace=pod_name[0], pod=pod_name[1], problem=problem_of(error)
                )
            self._unreadable.add(pod_name)
            return None
        self._unreadable.discard(pod_name)
        return report

    def forget_except(self, polled: set[tuple[str, str]]) -> None:
        """Drop the reports of all other pods."""
        for pod_name in [pod_name for pod_name in self._reports if pod_name not in polled]:
            del self._reports[pod_name]
            self._digests.pop(pod_name, None)
        self._unreadable &= polled


class Poller:
    """Polls all pods every few seconds.

    Calls `changed` with the key of a changed report.
    """

    def __init__(
        self,
        cache: ObjectCache,
        reports: PodReportCache,
        books: BooksKeeper,
        changed: Callable[[ReconcileKey], None],
        *,
        seconds: float = _SECONDS,
    ) -> None:
        self._cache = cache
        self._reports = reports
        self._books = books
        self._changed = changed
        self._seconds = seconds
        self._limit = asyncio.Semaphore(_CONCURRENCY)

    async def run(self) -> None:
        """Poll until cancelled. A pod that does not answer delays no other."""
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            while True:
                await self.once(http)
                await asyncio.sleep(self._seconds)

    async def once(self, http: aiohttp.ClientSession) -> None:
        """Poll all pods once."""
        polled: set[tuple[str, str]] = set()
        async with asyncio.TaskGroup() as group:
            for pod in self._cache.pods():
                labels, status = pod["metadata"].get("labels") or {}, pod.get("status") or {}
                if labels.get(names.LABEL_COMPONENT) not in (names.RELAYER, names.MINER) or not status.get("podIP"):
                    continue
                namespace, name = str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"])
                polled.add((namespace, name))
                key = ReconcileKey(namespace, str(labels[names.LABEL_RELAY_MINER]))
                group.create_task(self._poll(http, key, name, str(status["podIP"])))
        self._reports.forget_except(polled)
        self._books.forget_except(polled)

    async def _poll(self, http: aiohttp.ClientSession, key: ReconcileKey, pod: str, address: str) -> None:
        host = f"[{address}]" if ":" in address else address
        base = f"http://{host}:{ADMIN_PORT}"
        async with self._limit:
            body = await _json(http, f"{base}/report")
            changed = self._reports.update(key.namespace, pod, body)
            report = next(iter(self._reports.of(key.namespace, [pod])), None) if body is not None else None
            if report is not None and report.component == names.MINER:
                changed |= await self._books.count(key, report, lambda after: _outcomes(http, base, after))
        if changed:
            self._changed(key)


async def _outcomes(http: aiohttp.ClientSession, base: str, after: int) -> OutcomePage | None:
    """Read the page of outcomes after a number.

    Returns None if the miner does not answer.
    """
    body = await _json(http, f"{base}{OUTCOMES_PATH}?after={after}&reader={OPERATOR_READER}")
    try:
        return None if body is None else OutcomePage.model_validate(body)
    except ValidationError as error:
        _LOG.warning("cannot read the outcomes of a miner", address=base, problem=problem_of(error))
        return None


async def _json(http: aiohttp.ClientSession, url: str) -> dict[str, Any] | None:
    """Read a JSON object. Returns None for any other answer and for none."""
    try:
        async with http.get(url) as answer:
            if answer.status == 200 and 0 < (answer.content_length or 0) <= _LARGEST:
                body = await answer.json()
                return body if isinstance(body, dict) else None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError):
        return None
    return None
