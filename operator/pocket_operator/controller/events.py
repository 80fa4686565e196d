"""Write Kubernetes Events, one object with a count per subject and reason.

They have a queue of their own.
"""

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.status import timestamp
from pocket.kube.api_client import Conflict, KubeApi, KubeError
from pocket_operator.controller import operator_metrics
from pocket_operator.decide.conditions import EventToEmit
from pocket_operator.resources import names
from pocket_operator.resources.kinds import EVENTS

_LOG: FilteringBoundLogger = structlog.get_logger()
_QUIET_SECONDS = 60.0
_REMEMBERED = 10_000
_WRITERS = 4
_WAITING = 2_000
"""Events that may wait. Those that are no warnings use the first half only."""
_LONGEST = 1024
"""Characters that the API server accepts as the message of an Event."""
_LONGEST_PREFIX = 253 - 17
"""Characters of the subject's name in an Event's name of at most 253. A dot and 16 hex digits follow."""


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """An Event to write: warnings first, then in their order."""

    rank: int
    number: int
    event: EventToEmit = field(compare=False)
    subject: dict[str, str] = field(compare=False)
    known: bool = field(compare=False)


class EventWriter:
    """Writes Events later, so that they delay nothing.

    One that finds the queue full, or that cannot be written, is dropped and counted: the status has the same
    information.
    """

    def __init__(self, api: KubeApi, clock: Callable[[], float], now: Callable[[], datetime], instance: str) -> None:
        self._api = api
        self._clock = clock
        self._now = now
        self._instance = instance
        self._posted: dict[tuple[str, str], float] = {}
        self._numbers = itertools.count()
        self._queue: asyncio.PriorityQueue[_Entry] = asyncio.PriorityQueue(_WAITING)

    def post(self, subject: dict[str, Any], event: EventToEmit) -> None:
        """Queue an Event, at most one a minute per subject and reason."""
        metadata = subject["metadata"]
        event_key = (str(metadata["uid"]), event.reason)
        posted_at = self._posted.get(event_key)
        if posted_at is not None and self._clock() - posted_at < _QUIET_SECONDS:
            return
        if self._queue.qsize() >= (_WAITING if event.warning else _WAITING // 2):
            operator_metrics.EVENTS_DROPPED.inc()
            return
        if len(self._posted) >= _REMEMBERED:
            self._posted.clear()
        self._posted[event_key] = self._clock()
        reference = {
            "apiVersion": str(subject["apiVersion"]), "kind": str(subject["kind"]), "name": str(metadata["name"]),
            "namespace": str(metadata["namespace"]), "uid": str(metadata["uid"]),
        }  # fmt: skip
        rank = 0 if event.warning else 1
        self._queue.put_nowait(_Entry(rank, next(self._numbers), event, reference, posted_at is not None))

    async def run(self) -> None:
        """Write what is queued until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WRITERS):
                group.create_task(self._write_queued())

    async def _write_queued(self) -> None:
        while True:
            entry = await self._queue.get()
            try:
                await self._write(entry)
            except KubeError as error:
                operator_metrics.EVENTS_DROPPED.inc()
                _LOG.warning("cannot write an event", error=error)
            finally:
                self._queue.task_done()

    async def join(self) -> None:
        """Wait until everything that is queued is written or dropped."""
        await self._queue.join()

    async def _write(self, entry: _Entry) -> None:
        """Create the Event, or increase its count. Raises KubeError."""
        subject, event = entry.subject, entry.event
        digest = hashlib.sha256("/".join((subject["uid"], event.reason)).encode()).hexdigest()[:16]
        # A name is cut from the end, and no part of a name may end in a hyphen.
        name, namespace = f"{subject['name'][:_LONGEST_PREFIX].rstrip('-.')}.{digest}", subject["namespace"]
        if not entry.known:
            try:
                await self._api.create(EVENTS, namespace, self._body(entry, name))
            except Conflict:
                pass  # of an earlier life of the operator
            else:
                return
        known = await self._api.get_or_none(EVENTS, namespace, name)
        if known is None:
            await self._api.create(EVENTS, namespace, self._body(entry, name))
            return
        patch = {
            "count": int(known.get("count") or 1) + 1, "lastTimestamp": timestamp(self._now()),
            "message": event.message[:_LONGEST],
        }  # fmt: skip
        await self._api.merge(EVENTS, namespace, name, patch)

    def _body(self, entry: _Entry, name: str) -> dict[str, Any]:
        stamp = timestamp(self._now())
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": entry.subject["namespace"]},
            "involvedObject": entry.subject,
            "type": "Warning" if entry.event.warning else "Normal",
            "reason": entry.event.reason,
            "message": entry.event.message[:_LONGEST],
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "source": {"component": names.MANAGED_BY},
            "reportingComponent": names.MANAGED_BY,
            "reportingInstance": self._instance,
        }
