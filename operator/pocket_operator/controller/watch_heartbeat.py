"""Whether the watches still bring news: a heartbeat is written and must come back through them."""

from collections.abc import Callable
from typing import Any

from pocket.kube.api_client import KubeApi
from pocket_operator.resources import names
from pocket_operator.resources.kinds import CONFIG_MAPS

NAME = "pocket-operator-canary"
_ANNOTATION = f"{names.FIELD_MANAGER.partition('/')[0]}/heartbeat"


class WatchHeartbeat:
    """`age` is what liveness looks at."""

    def __init__(self, api: KubeApi, namespace: str, identity: str, clock: Callable[[], float]) -> None:
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._sent: dict[str, float] = {}
        self._number = 0
        self._heard_at: float | None = None
        self._started_at: float | None = None

    async def beat(self) -> None:
        """Writes the next heartbeat; raises KubeError."""
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
        await self._api.apply(CONFIG_MAPS, body, f"{names.FIELD_MANAGER}-canary")

    def hear(self, observed: dict[str, Any]) -> None:
        """Any event of any kind; only our own heartbeat counts."""
        metadata = observed["metadata"]
        if observed.get("kind") != CONFIG_MAPS.name or metadata.get("name") != NAME:
            return
        text = (metadata.get("annotations") or {}).get(_ANNOTATION, "")
        if text in self._sent:
            self._heard_at = self._sent[text]
            self._sent = {t: at for t, at in self._sent.items() if at > self._heard_at}

    @property
    def age(self) -> float:
        """Seconds since the latest heartbeat that came back was sent; 0 before the first is sent."""
        since = self._heard_at if self._heard_at is not None else self._started_at
        return 0.0 if since is None else self._clock() - since
