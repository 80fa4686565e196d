"""Write Kubernetes Events, one object with a count per subject and reason."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.status import timestamp
from pocket.kube.api_client import KubeApi, KubeError
from pocket_operator.decide.conditions import EventToEmit
from pocket_operator.resources import names
from pocket_operator.resources.kinds import EVENTS

_LOG: FilteringBoundLogger = structlog.get_logger()
_QUIET_SECONDS = 60.0
_REMEMBERED = 10_000
_LONGEST = 1024
"""Characters that the API server accepts as the message of an Event."""


class EventWriter:
    """Writes Events. One that cannot be written is dropped, since the status has the same information."""

    def __init__(self, api: KubeApi, clock: Callable[[], float], now: Callable[[], datetime], instance: str) -> None:
        self._api = api
        self._clock = clock
        self._now = now
        self._instance = instance
        self._posted: dict[tuple[str, str], float] = {}

    async def post(self, subject: dict[str, Any], event: EventToEmit) -> None:
        """Write an Event or increase its count, at most once a minute per subject and reason."""
        metadata = subject["metadata"]
        place = (str(metadata["uid"]), event.reason)
        if self._clock() - self._posted.get(place, float("-inf")) < _QUIET_SECONDS:
            return
        if len(self._posted) >= _REMEMBERED:
            self._posted.clear()
        self._posted[place] = self._clock()
        digest = hashlib.sha256("/".join(place).encode()).hexdigest()[:16]
        name, namespace = f"{metadata['name']}.{digest}"[-253:], str(metadata["namespace"])
        try:
            await self._write(subject, event, name, namespace)
        except KubeError as error:
            _LOG.warning("cannot write an event", error=error)

    async def _write(self, subject: dict[str, Any], event: EventToEmit, name: str, namespace: str) -> None:
        stamp, message = timestamp(self._now()), event.message[:_LONGEST]
        known = await self._api.get_or_none(EVENTS, namespace, name)
        if known is not None:
            patch = {"count": int(known.get("count") or 1) + 1, "lastTimestamp": stamp, "message": message}
            await self._api.merge(EVENTS, namespace, name, patch)
            return
        metadata = subject["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": subject["apiVersion"], "kind": subject["kind"], "name": metadata["name"],
                "namespace": namespace, "uid": metadata["uid"],
            },
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason,
            "message": message,
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "source": {"component": names.MANAGED_BY},
            "reportingComponent": names.MANAGED_BY,
            "reportingInstance": self._instance,
        }  # fmt: skip
        await self._api.create(EVENTS, namespace, body)
