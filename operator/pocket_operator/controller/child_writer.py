"""Write the children, finalizers and annotations that a plan wants."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.kube.api_client import (
    NAMESPACE_ENDS,
    NO_ANSWER,
    Conflict,
    KubeApi,
    KubeError,
    ObjectNotFound,
    ResourceKind,
)
from pocket.runtime.concurrency import map_bounded
from pocket_operator.controller import operator_metrics
from pocket_operator.decide.contested import Repairs
from pocket_operator.decide.drift import force_replace_patch, foreign_fields, replicas_to_keep
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.plan import FinalizerChange, Plan, drifted_children, owner_of
from pocket_operator.decide.snapshot import ChildKey, Rejection, Snapshot
from pocket_operator.resources import names
from pocket_operator.resources.kinds import BY_KIND, CONFIG_MAPS, PODS, SECRETS, WATCHED_CHILDREN

_LOG: FilteringBoundLogger = structlog.get_logger()
Object = dict[str, Any]
AT_ONCE = 32
"""Writes of one RelayMiner's Suppliers. A thousand take 31 round trips."""
_DERIVED = frozenset({SECRETS.name, CONFIG_MAPS.name, "RoleBinding"})
"""Kinds of which nothing is lost with an object: the operator writes all that is in it."""
WATCHED = tuple(kind.name for kind in WATCHED_CHILDREN)


class ChildWriter:
    """Writes what differs, and keeps the object cache at what it wrote."""

    def __init__(self, api: KubeApi, cache: ObjectCache, clock: Callable[[], float]) -> None:
        self._api = api
        self._cache = cache
        self._clock = clock

    async def namespace_ends(self, key: ReconcileKey) -> bool:
        """Return True if the API server refuses new objects of an ending namespace.

        Nothing is created. Raises KubeError if the API server does not answer.
        """
        kind = BY_KIND["ConfigMap"]
        name = names.drain_anchor(key.name)
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}}
        try:
            await self._api.call("POST", kind.path(key.namespace), body=body, query={"dryRun": "All"})
        except KubeError as error:
            if error.status in NO_ANSWER:
                raise
            return error.cause == NAMESPACE_ENDS
        return False

    async def apply_all(
        self, planned: Plan, snapshot: Snapshot, repairs: Repairs
    ) -> tuple[dict[ChildKey, Rejection], list[str]]:
        """Apply what drifted, in order.

        Returns the rejected writes, which do not stop the others, and which children another client contests.
        """
        contested: list[str] = []
        rejected: dict[ChildKey, Rejection] = {}
        for child in drifted_children(planned, snapshot.children):
            child_key = (child["kind"], child["metadata"]["name"])
            kind = BY_KIND[child["kind"]]
            with self.recording(rejected, child_key):
                observed = snapshot.children.get(child_key) or await self._api.get_or_none(
                    kind, snapshot.namespace, child_key[1]
                )
                if observed is not None and not _ours(observed, planned):
                    rejected[child_key] = Rejection(
                        "an object of this name exists that the operator did not create. Rename or delete it, "
                        "or give the RelayMiner another name.",
                        foreign=True,
                    )
                    continue
                await self._hand_over_replicas(kind, child, observed)
                applied = await self._apply(kind, child, observed)
            if child_key in rejected:
                continue
            operator_metrics.WRITES.labels(kind.name).inc()
            if rival := repairs.record(child, observed, self._clock()):
                operator_metrics.CONTESTED.labels(kind.name).inc()
                contested.append(rival)
            if kind.name in WATCHED:
                self._cache.put(kind.name, {"apiVersion": kind.api_version, "kind": kind.name, **applied})
            _LOG.info("child applied", kind=kind.name, child=child_key[1])
        return rejected, contested

    @contextmanager
    def recording(self, rejected: dict[ChildKey, Rejection], child_key: ChildKey) -> Iterator[None]:
        """Record a rejection by the API server in `rejected`, so that other writes go on."""
        try:
            yield
        except KubeError as error:
            if error.status in NO_ANSWER:  # the whole reconciliation is retried
                raise
            ends = error.cause == NAMESPACE_ENDS
            rejected[child_key] = Rejection(str(error), passing=error.may_pass, namespace_ends=ends)
            operator_metrics.REFUSALS.labels(str(error.status)).inc()

    async def withdraw(self, key: ReconcileKey, addresses: tuple[str, ...]) -> None:
        """Remove keys from the relayers' set, which then reject relays of these suppliers.

        Raises KubeError.
        """
        name = names.keys(key.name, names.RELAYER)
        patch = {"data": dict.fromkeys(addresses)}
        await self._api.merge(SECRETS, key.namespace, name, patch, manager=names.FIELD_MANAGER)
        operator_metrics.WRITES.labels(SECRETS.name).inc()
        _LOG.info("keys withdrawn from a Secret", keys=len(addresses), secret=name)

    async def _apply(self, kind: ResourceKind, child: Object, observed: Object | None) -> Object:
        """Apply a child and remove foreign additions that must not or cannot stay.

        The API server may reject a foreign addition together with our fields (two ports of one name) though it
        accepted it before. Then the whole object is replaced once, and the manager of that write is removed: fields
        that it owned could not be removed by a later apply. What holds nothing but the operator's fields and cannot be
        changed, because another client made it immutable or created it with another type, is deleted and created again.

        Raises KubeError.
        """
        namespace, name = child["metadata"]["namespace"], child["metadata"]["name"]
        if observed is not None and (patch := foreign_fields(child, observed)) is not None:
            observed = await self._api.merge(kind, namespace, name, patch, manager=names.FIELD_MANAGER)
            operator_metrics.WRITES.labels(kind.name).inc()
        try:
            return await self._api.apply(kind, child, names.FIELD_MANAGER)
        except KubeError as error:
            if observed is None or error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            repair = f"{names.FIELD_MANAGER}-repair"
            try:
                replaced = await self._api.patch(
                    kind, namespace, name, force_replace_patch(child, observed), manager=repair
                )
            except KubeError:  # it is not what others added
                if not (_is_derived(child) and await self._accepts_new(kind, child)):
                    raise error from None
                await self._api.delete(kind, namespace, name, uid=str(observed["metadata"]["uid"]))
                _LOG.warning("child deleted, since it cannot be changed", kind=kind.name, child=name)
                return await self._api.apply(kind, child, names.FIELD_MANAGER)
        operator_metrics.WRITES.labels(kind.name).inc()
        kept = [row for row in replaced["metadata"].get("managedFields") or () if row.get("manager") != repair]
        if kept:
            await self._api.merge(kind, namespace, name, {"metadata": {"managedFields": kept}}, manager=repair)
        return await self._api.apply(kind, child, names.FIELD_MANAGER)

    async def _accepts_new(self, kind: ResourceKind, child: Object) -> bool:
        """Return True if the API server would create an object with this content.

        A dry run shows that. The name is another one, since the child's is taken.
        """
        metadata = {key: value for key, value in child["metadata"].items() if key != "name"}
        body = {**child, "metadata": {**metadata, "generateName": f"{child['metadata']['name']}-"}}
        try:
            await self._api.call("POST", kind.path(metadata["namespace"]), body=body, query={"dryRun": "All"})
        except KubeError:
            return False
        return True

    async def _hand_over_replicas(self, kind: ResourceKind, child: Object, observed: Object | None) -> None:
        """Hand the replicas of a workload over to its new autoscaler.

        Raises KubeError.
        """
        replicas = replicas_to_keep(child, observed, names.FIELD_MANAGER)
        if replicas is None:
            return
        metadata = {key: child["metadata"][key] for key in ("name", "namespace")}
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": {"replicas": replicas}}
        await self._api.apply(kind, body, f"{names.FIELD_MANAGER}-replicas")
        operator_metrics.WRITES.labels(kind.name).inc()

    async def delete(self, key: ReconcileKey, kind: str, name: str, observed: Object) -> None:
        """Delete this very object.

        Raises KubeError.
        """
        await self._api.delete(BY_KIND[kind], key.namespace, name, uid=str(observed["metadata"]["uid"]))
        operator_metrics.WRITES.labels(kind).inc()
        _LOG.info("child deleted", kind=kind, child=name)

    async def annotate(self, key: ReconcileKey, pod: str, digest: str) -> None:
        """Put the key digest on a pod, unless it is gone.

        Raises KubeError.
        """
        patch = {"metadata": {"annotations": {names.ANNOTATION_KEYS: digest}}}
        try:
            patched = await self._api.merge(PODS, key.namespace, pod, patch, manager=names.FIELD_MANAGER)
        except ObjectNotFound:
            return
        operator_metrics.WRITES.labels(PODS.name).inc()
        self._cache.put(PODS.name, {"apiVersion": "v1", "kind": "Pod", **patched})

    async def finalizers(self, key: ReconcileKey, changes: Iterable[FinalizerChange]) -> dict[ChildKey, Rejection]:
        """Add or remove finalizers.

        Returns what the API server refused, which does not stop the others. Raises KubeError if it does not answer.
        """
        refused: dict[ChildKey, Rejection] = {}

        async def change_one(change: FinalizerChange) -> None:
            with self.recording(refused, (change.kind, change.name)):
                await self.finalizer(key, change)

        await map_bounded(change_one, changes, AT_ONCE, stop_on=KubeError)
        return refused

    async def finalizer(self, key: ReconcileKey, change: FinalizerChange) -> None:
        """Add or remove our finalizer on this version of the object.

        So no other finalizer is lost. Where another client was faster, its version is read and tried once more. Raises
        KubeError.
        """
        kind = BY_KIND[change.kind]
        observed = self._cache.get(kind.name, key.namespace, change.name)
        if observed is None:
            return
        try:
            try:
                patched = await self._with_finalizer(kind, observed, change)
            except Conflict:
                fresh = await self._api.get(kind, key.namespace, change.name)
                if fresh["metadata"]["uid"] != observed["metadata"]["uid"]:
                    return
                patched = await self._with_finalizer(kind, fresh, change)
        except ObjectNotFound:
            return
        if patched is None:
            return
        operator_metrics.WRITES.labels(kind.name).inc()
        if not patched["metadata"].get("deletionTimestamp") or patched["metadata"].get("finalizers"):
            self._cache.put(kind.name, {"apiVersion": kind.api_version, "kind": kind.name, **patched})
        _LOG.info("finalizer added" if change.wanted else "finalizer removed", kind=kind.name, child=change.name)

    async def _with_finalizer(self, kind: ResourceKind, observed: Object, change: FinalizerChange) -> Object | None:
        """Return the patched object, None if nothing is to be changed."""
        metadata = observed["metadata"]
        there = list(metadata.get("finalizers") or ())
        if (names.FINALIZER in there) == change.wanted:
            return None
        finalizers = [*there, names.FINALIZER] if change.wanted else [f for f in there if f != names.FINALIZER]
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        return await self._api.merge(kind, metadata["namespace"], change.name, patch, manager=names.FIELD_MANAGER)


def _is_derived(child: Object) -> bool:
    """Return True if nothing is lost with the object.

    An address of a load balancer would be.
    """
    return child["kind"] in _DERIVED or (child.get("spec") or {}).get("clusterIP") == "None"


def _ours(observed: Object, planned: Plan) -> bool:
    """Return True for an object that we control, or for an orphan with our label."""
    owner = owner_of(observed)
    if owner is None:
        labels = observed["metadata"].get("labels") or {}
        return bool(labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY)
    return planned.context is not None and owner == planned.context.uid
