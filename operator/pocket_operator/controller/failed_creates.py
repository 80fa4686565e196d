"""Read why a StatefulSet's pods cannot be created.

Its status does not contain that.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.kube.api_client import NO_ANSWER, KubeApi, KubeError
from pocket_operator.decide.object_cache import ReconcileKey
from pocket_operator.decide.snapshot import ChildKey
from pocket_operator.decide.workloads import wanted_replicas
from pocket_operator.resources.kinds import EVENTS

_LOG: FilteringBoundLogger = structlog.get_logger()
_SECONDS: Final = 10.0
Object = dict[str, Any]


class FailedCreates:
    """Reads the controller's Events while pods of a StatefulSet are missing.

    At most every ten seconds.
    """

    def __init__(self, api: KubeApi, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._known: dict[tuple[ReconcileKey, str], tuple[float, str]] = {}

    async def read(self, key: ReconcileKey, children: Mapping[ChildKey, Object]) -> Mapping[ChildKey, str]:
        """Return the API server's message by StatefulSet with missing pods.

        Raises KubeError if the API server does not answer.
        """
        result: dict[ChildKey, str] = {}
        for (kind, name), observed in children.items():
            if kind != "StatefulSet":
                continue
            if int((observed.get("status") or {}).get("replicas") or 0) >= wanted_replicas(observed):
                self._known.pop((key, name), None)
                continue
            if message := await self._message(key, name, str(observed["metadata"].get("uid", ""))):
                result[kind, name] = message
        return result

    async def _message(self, key: ReconcileKey, name: str, uid: str) -> str:
        read_at, message = self._known.get((key, name), (float("-inf"), ""))
        if self._clock() - read_at < _SECONDS:
            return message
        try:
            events = await self._api.list(EVENTS, key.namespace, fields=f"involvedObject.uid={uid},reason=FailedCreate")
        except KubeError as error:
            if error.status in NO_ANSWER:
                raise
            _LOG.warning(
                "cannot read the events of a StatefulSet, keeping what is known", stateful_set=name, error=error
            )
        else:
            latest = max(
                events, key=lambda row: str(row.get("lastTimestamp") or row.get("eventTime") or ""), default={}
            )
            message = str(latest.get("message", ""))
        self._known[key, name] = (self._clock(), message)
        return message
