"""The API server as far as Leases go: one namespace of objects with versions, each call under the network's whims."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from pocket.coordination.elector import member_name
from pocket.kube.api_client import Conflict, KubeApi, KubeError, ObjectNotFound
from simulated.loop import PROCESS
from simulated.network import Network
from simulated.plan import Kind


def _member(row: Mapping[str, Any]) -> str:
    return member_name(row["spec"]["holderIdentity"] or "")


class LeaseServer:
    """All Leases by name."""

    def __init__(self, network: Network, report: Callable[[str], None]) -> None:
        self.network = network
        self._report = report
        self.held_since: dict[str, float] = {}  # by Lease: since when its member holds it
        self._written: dict[str, float] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.versions = itertools.count(1)

    def holder(self, name: str) -> str:
        """Return the member that holds a Lease, empty without one."""
        return _member(self.rows[name]) if name in self.rows else ""

    def written(self, name: str, row: Mapping[str, Any]) -> None:
        """Check and store a Lease: another member takes it only once it is released or expired, under a new epoch."""
        before, now = self.rows.get(name), self.network.loop.time()
        if before is None or _member(before) != _member(row):
            self.held_since[name] = now
        if before is not None and before["spec"]["holderIdentity"] != row["spec"]["holderIdentity"]:
            if _member(row) and row["spec"]["leaseTransitions"] <= before["spec"]["leaseTransitions"]:
                self._report(f"{_member(row)} took {name} under no greater epoch")
            expires = self._written[name] + before["spec"]["leaseDurationSeconds"]
            if _member(row) and _member(before) not in ("", _member(row)) and now < expires:
                self._report(f"{_member(row)} took {name} from {_member(before)}, which holds it")
        self.rows[name], self._written[name] = dict(row), now

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
        failing = [f for f in network.of(Kind.LEASES_FAIL, target=PROCESS.get().name) if network.strikes(f)]
        after = any(network.hits[f.kind.value] % 2 for f in failing)  # every second one fails after it was executed
        await network.pause("leases")
        for fault in network.of(Kind.LEASES_SLOW, target=PROCESS.get().name):
            await asyncio.sleep(network.loop.chance.uniform(0.5, 1.0) * fault.share)
        self._away(method)
        if failing and not after:
            raise KubeError(f"{method}: status 500")
        found = self._answer(method, path, body)
        await network.pause("leases")
        self._away(method)
        if failing:
            raise KubeError(f"{method}: status 504")
        return found

    def _away(self, method: str) -> None:
        if self._server.network.of(Kind.LEASES_AWAY, target=PROCESS.get().name):
            raise KubeError(f"{method}: no answer")

    def _answer(self, method: str, path: str, body: Any) -> Any:
        rows, name = self._server.rows, path.rsplit("/", 1)[-1]
        if method == "GET":
            network = self._server.network
            if any(network.strikes(f) for f in network.of(Kind.LEASES_EMPTY, target=PROCESS.get().name)):
                return {"items": []}
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
        self._server.written(name, {**body, "metadata": {**body["metadata"], "resourceVersion": version}})
        return {**rows[name]}
