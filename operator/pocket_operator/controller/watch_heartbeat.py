"""Check that the watches are alive.

A heartbeat is written and must come back through them.
"""

from collections.abc import Callable
from typing import Any

from pocket.kube.api_client import NO_ANSWER, KubeApi, KubeError
from pocket_operator.resources import names
from pocket_operator.resources.kinds import CONFIG_MAPS

NAME = "pocket-operator-canary"
_ANNOTATION = f"{names.FIELD_MANAGER.partition('/')[0]}/heartbeat"


class WatchHeartbeat:
    """Sends and receives heartbeats. The liveness probe checks `overdue_seconds`."""

    def __init__(self, api: KubeApi, namespace: str, identity: str, clock: Callable[[], float]) -> None:
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._sent: dict[str, float] = {}
        self._number = 0
        self._received_at: float | None = None
        self._started_at: float | None = None

    async def send(self) -> None:
        """Write the next heartbeat.

        Raises KubeError.
        """
        if self._started_at is None:
            self._started_at = self._clock()
        self._number += 1
        text = f"{self._identity}:{self._number}"
        self._sent[text] = self._clock()
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": self._namespace,
                "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY},
                "annotations": {_ANNOTATION: text},
            },
        }
        try:
            await self._api.apply(CONFIG_MAPS, body, f"{names.FIELD_MANAGER}-canary")
        except KubeError as error:
            if error.status not in NO_ANSWER:  # refused, by a policy or a quota: that is nothing about the watches
                self._sent.pop(text, None)
            raise

    def receive(self, observed: dict[str, Any]) -> None:
        """Process a watch event of any kind. Only this replica's heartbeat counts."""
        metadata = observed["metadata"]
        if observed.get("kind") != CONFIG_MAPS.name or metadata.get("name") != NAME:
            return
        text = (metadata.get("annotations") or {}).get(_ANNOTATION, "")
        if text in self._sent:
            self._received_at = self._sent[text]
            self._sent = {t: at for t, at in self._sent.items() if at > self._received_at}

    @property
    def overdue_seconds(self) -> float:
        """Return the seconds since the oldest missing heartbeat was sent, 0 without one."""
        return self._clock() - min(self._sent.values()) if self._sent else 0.0

    @property
    def age(self) -> float:
        """Return the seconds since the latest received heartbeat was sent.

        The result is 0 before the first is sent.
        """
        since = self._received_at if self._received_at is not None else self._started_at
        return 0.0 if since is None else self._clock() - since
