"""The API server as far as Leases go: one namespace of objects with versions, each call under the network's whims."""

import itertools
from collections.abc import Mapping
from typing import Any

from pocket.kube.api_client import Conflict, KubeApi, KubeError, ObjectNotFound
from simulated.loop import PROCESS
from simulated.network import Network
from simulated.plan import Kind


class LeaseServer:
    """All Leases by name."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.rows: dict[str, dict[str, Any]] = {}
        self.versions = itertools.count(1)

    def api(self) -> "LeaseApi":
        return LeaseApi(self)


class LeaseApi(KubeApi):
    """What one process asks."""

    def __init__(self, server: LeaseServer) -> None:
        self._server = server

    async def __aenter__(self) -> "LeaseApi":
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def call(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, str] | None = None,
        content_type: str = "", timeout_seconds: float | None = None,
    ) -> Any:  # fmt: skip
        network = self._server.network
        network.loop.note(PROCESS.get(), "leases", method)
        await network.pause("leases")
        self._away(method)
        found = self._answer(method, path, body)
        await network.pause("leases")
        self._away(method)
        return found

    def _away(self, method: str) -> None:
        if self._server.network.of(Kind.LEASES_AWAY, target=PROCESS.get().name):
            raise KubeError(f"{method}: no answer")

    def _answer(self, method: str, path: str, body: Any) -> Any:
        rows, name = self._server.rows, path.rsplit("/", 1)[-1]
        if method == "GET":
            return {"items": [{**row} for row in rows.values()]}
        if method == "POST":
            name = body["metadata"]["name"]
            if name in rows:
                raise Conflict(f"{name} exists", 409)
        elif name not in rows:
            raise ObjectNotFound(f"{name} is not there", 404)
        elif rows[name]["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict(f"{name} was changed", 409)
        version = str(next(self._server.versions))
        rows[name] = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
        return {**rows[name]}
