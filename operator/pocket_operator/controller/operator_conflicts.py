"""Report another operator that manages a RelayMiner.

Each operator writes a condition of its own.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.kube.api_client import APPLY, NO_ANSWER, KubeApi, KubeError
from pocket_operator.controller.operator_claim import OperatorClaim
from pocket_operator.decide.conditions import OPERATOR_CONFLICT, conditions, operator_conflict
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.resources import names
from pocket_operator.resources.kinds import RELAY_MINERS

_LOG: FilteringBoundLogger = structlog.get_logger()
Object = dict[str, Any]


class OperatorConflicts:
    """Writes and removes the condition OperatorConflict of RelayMiners."""

    def __init__(
        self, api: KubeApi, cache: ObjectCache, claim: OperatorClaim, namespace: str, now: Callable[[], datetime]
    ) -> None:
        self._api = api
        self._cache = cache
        self._claim = claim
        self._namespace = namespace
        self._now = now

    async def other(self, key: ReconcileKey) -> str:
        """Return the namespace of another operator that manages the RelayMiner.

        Where it does not exist, who manages its oldest Supplier manages all of them. There an operator whose Lease may
        not be read counts as gone: no pod depends on it, and nothing would tell. The result is empty if this one
        manages it. Raises KubeError if the API server does not answer.
        """
        subject = self._cache.get(RELAY_MINERS.name, *key)
        if subject is not None:
            return await self._claim.other(subject)
        suppliers = self._cache.suppliers(key)
        if not suppliers:
            return ""
        oldest = min(suppliers, key=lambda s: (s["metadata"].get("creationTimestamp", ""), s["metadata"]["uid"]))
        other = await self._claim.other(oldest)
        return other if self._claim.is_readable(other) else ""

    async def report(self, key: ReconcileKey, other: str) -> None:
        """Report another operator in a condition that only this one writes.

        Raises KubeError.
        """
        subject = self._cache.get(RELAY_MINERS.name, *key)
        if subject is None:
            return
        before = [
            r for r in (subject.get("status") or {}).get("conditions") or () if r.get("type") == OPERATOR_CONFLICT
        ]
        spec = operator_conflict(self._namespace, other, key, readable=self._claim.is_readable(other))
        (condition,) = conditions([spec], before, int(subject["metadata"].get("generation") or 0), self._now())
        row = condition.model_dump(by_alias=True, mode="json")
        if before != [row]:
            body = {
                "apiVersion": RELAY_MINERS.api_version, "kind": RELAY_MINERS.name,
                "metadata": {"name": key.name, "namespace": key.namespace, "uid": subject["metadata"]["uid"]},
                "status": {"conditions": [row]},
            }  # fmt: skip
            await self._apply(key, body, self._namespace)
            _LOG.warning("leaving the RelayMiner to another operator", operator_namespace=other)

    async def clear(self, key: ReconcileKey) -> None:
        """Remove conditions of operators that lead no more, and outdated own ones.

        Its own are from before it took over.
        """
        subject = self._cache.get(RELAY_MINERS.name, *key)
        rows = ((subject or {}).get("status") or {}).get("conditions") or ()
        if subject is None or not any(row.get("type") == OPERATOR_CONFLICT for row in rows):
            return
        for entry in subject["metadata"].get("managedFields") or ():
            manager, _, namespace = str(entry.get("manager")).partition("-of-")
            if manager != names.FIELD_MANAGER or not namespace:
                continue
            if namespace == self._namespace or not await self._claim.leads(namespace):
                body = {
                    "apiVersion": RELAY_MINERS.api_version, "kind": RELAY_MINERS.name,
                    "metadata": {"name": key.name, "namespace": key.namespace, "uid": subject["metadata"]["uid"]},
                }  # fmt: skip
                await self._apply(key, body, namespace)

    async def _apply(self, key: ReconcileKey, body: Object, namespace: str) -> None:
        path = RELAY_MINERS.path(key.namespace, key.name, "status")
        query = {"fieldManager": f"{names.FIELD_MANAGER}-of-{namespace}", "force": "true"}
        try:
            patched = await self._api.call("PATCH", path, body=body, query=query, content_type=APPLY)
        except KubeError as error:
            if error.status in NO_ANSWER:
                raise
            _LOG.warning("cannot write the condition of two operators, retrying", error=error)
            return
        self._cache.put(RELAY_MINERS.name, patched)
