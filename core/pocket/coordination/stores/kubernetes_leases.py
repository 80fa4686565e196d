"""Store a group of Leases in Kubernetes.

`kubectl get leases -l pocket.network/lease-group=NAME` shows them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pocket.coordination.elector import LeaseRecord
from pocket.coordination.leader_lease import LEASES, record_of, spec_of
from pocket.coordination.stores.lease_store import (
    LeaseConflict,
    LeaseUnavailable,
    LeaseWrite,
    StoredLease,
    WriteResult,
    write_each,
)
from pocket.kube.api_client import Conflict, KubeApi, KubeError, ObjectNotFound

GROUP_LABEL = "pocket.network/lease-group"
_WRITERS = 8


class KubeLeaseStore:
    """Leases of one namespace with the group's label.

    `owner` is the object they are deleted with.
    """

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        group: str,
        *,
        call_seconds: float,
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._group = group
        self._seconds = call_seconds
        self._owner = owner
        self._objects: dict[str, dict[str, Any]] = {}

    async def read(self) -> dict[str, StoredLease]:
        """Read the group in one list request. Objects of other groups are never seen."""
        query = {"labelSelector": f"{GROUP_LABEL}={self._group}"}
        try:
            listing = await self._api.call(
                "GET", LEASES.path(self._namespace), query=query, timeout_seconds=self._seconds
            )
        except KubeError as error:
            raise LeaseUnavailable(str(error)) from error
        # Fields of the Leases outside the election are preserved when they are written.
        self._objects = {str(row["metadata"]["name"]): row for row in listing.get("items") or ()}
        return {name: _stored(row) for name, row in self._objects.items()}

    async def write(self, name: str, record: LeaseRecord, known: StoredLease | None) -> StoredLease:
        """Create or replace a Lease.

        Raises LeaseConflict also where a Lease of this name exists outside the group, which is never taken over, and
        LeaseUnavailable.
        """
        try:
            if known is None:
                answer = await self._api.call(
                    "POST", LEASES.path(self._namespace), body=self._new(name, record), timeout_seconds=self._seconds
                )
            else:
                answer = await self._api.call(
                    "PUT", LEASES.path(self._namespace, name), body=self._changed(name, record, known),
                    timeout_seconds=self._seconds,
                )  # fmt: skip
        except (Conflict, ObjectNotFound) as error:
            raise LeaseConflict(str(error)) from error
        except KubeError as error:
            raise LeaseUnavailable(str(error)) from error
        self._objects[name] = answer
        return _stored(answer)

    async def write_all(self, writes: Sequence[LeaseWrite]) -> list[WriteResult]:
        """Write several Leases, with one request each."""
        return await write_each(self.write, writes, _WRITERS)

    def _new(self, name: str, record: LeaseRecord) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name, "namespace": self._namespace, "labels": {GROUP_LABEL: self._group}}
        if self._owner is not None:
            metadata["ownerReferences"] = [dict(self._owner)]
        return {"apiVersion": LEASES.api_version, "kind": LEASES.name, "metadata": metadata, "spec": spec_of(record)}

    def _changed(self, name: str, record: LeaseRecord, known: StoredLease) -> dict[str, Any]:
        """Return the object to write, keeping fields that other clients wrote."""
        lease = self._objects.get(name) or self._new(name, record)
        metadata = {**lease["metadata"], "resourceVersion": known.version}
        return {
            **lease, "apiVersion": LEASES.api_version, "kind": LEASES.name, "metadata": metadata,
            "spec": {**(lease.get("spec") or {}), **spec_of(record)},
        }  # fmt: skip


def _stored(row: dict[str, Any]) -> StoredLease:
    return StoredLease(record_of(row), str(row["metadata"]["resourceVersion"]))
