"""Carrying plans out: reads what a plan needs, writes what differs, nothing else."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from typing import Any

from pocket.api.status import Condition, as_status
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE, Controller
from pocket.kube.api_client import KubeApi, KubeError, ObjectNotFound, ResourceKind
from pocket_operator.controller import operator_metrics
from pocket_operator.controller.concurrency import for_each
from pocket_operator.controller.events import EventWriter
from pocket_operator.controller.namespace_guard import NamespaceGuard
from pocket_operator.controller.pod_report_cache import PodReportCache
from pocket_operator.controller.secrets import SealingKeys, SecretReader
from pocket_operator.decide.conditions import notices
from pocket_operator.decide.drift import replacement, replicas_to_keep, surplus
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey, operator_address
from pocket_operator.decide.plan import (
    DRAINING,
    REQUEUE,
    FinalizerChange,
    Plan,
    drifted_children,
    is_paused,
    owner_of,
    plan,
)
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.schemas import Schemas
from pocket_operator.decide.served import served_suppliers
from pocket_operator.decide.snapshot import ChildKey, Pod, SecretView, Settings, Snapshot
from pocket_operator.decide.supplier_keys import KeyCheck
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources import names
from pocket_operator.resources.kinds import (
    BY_KIND,
    CONFIG_MAPS,
    PODS,
    READ_CHILDREN,
    RELAY_MINERS,
    SECRETS,
    WATCHED_CHILDREN,
)

_LOG = logging.getLogger("operator.reconcile")
Object = dict[str, Any]
_FIGURES_SECONDS = 30.0
_AT_ONCE = 8
_LATER = frozenset({0, 401, 429, 502, 503, 504})
"""No answer, or one that says nothing of what was asked for: the whole reconciliation is tried again later."""
_FIGURES = frozenset({"stake", "sessions", "openSessions", "last", "earnedUpokt", "earned"})
_WATCHED = tuple(kind.name for kind in WATCHED_CHILDREN)


@dataclass(slots=True)
class ReconcileState:
    """What is remembered between two reconciliations; losing it costs time only."""

    quiet_since: dict[str, float] = field(default_factory=dict)
    refusals: dict[ChildKey, str] = field(default_factory=dict)
    status_written: dict[str, float] = field(default_factory=dict)


class Reconciler:
    """One RelayMiner with all its Suppliers at a time."""

    def __init__(
        self,
        *,
        api: KubeApi,
        store: ObjectCache,
        settings: Settings,
        secrets: SecretReader,
        sealing: SealingKeys,
        guard: NamespaceGuard,
        reports: PodReportCache,
        events: EventWriter,
        capabilities: Callable[[], frozenset[str]],
        schemas: Callable[[], Schemas],
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._store = store
        self._settings = settings
        self._secrets = secrets
        self._sealing = sealing
        self._guard = guard
        self._reports = reports
        self._events = events
        self._capabilities = capabilities
        self._schemas = schemas
        self._clock = clock
        self._now = now
        self._memory: dict[ReconcileKey, ReconcileState] = {}

    async def reconcile(self, key: ReconcileKey) -> float | None:
        """Brings one RelayMiner about; seconds until the next look, None for never. Raises KubeError."""
        memory = self._memory.setdefault(key, ReconcileState())
        snapshot = await self._snapshot(key, memory)
        if snapshot.relay_miner is None:
            _forget_figures(key)
            # The RelayMiner is gone, so its claims and proofs are done: the garbage collector takes the rest.
            keeper = self._store.get("ConfigMap", key.namespace, names.keeper(key.name))
            if keeper is not None:
                await self._delete(key, "ConfigMap", names.keeper(key.name), keeper)
            if not snapshot.suppliers:
                self._memory.pop(key, None)
                return None
        planned = plan(snapshot)
        known = {str(subject["metadata"]["uid"]) for subject in (snapshot.relay_miner, *snapshot.suppliers) if subject}
        memory.status_written = {uid: at for uid, at in memory.status_written.items() if uid in known}
        memory.quiet_since = {a: d.since for a, d in planned.drains.items() if d.since is not None}
        await for_each(lambda change: self._finalizer(key, change), planned.protect, _AT_ONCE)
        if planned.protect:
            await self._guard.hold()
        memory.refusals = await self._apply_all(planned, snapshot)
        for kind, name in planned.delete:
            with self._noting(memory.refusals, (kind, name)):
                await self._delete(key, kind, name, snapshot.children[kind, name])
        if planned.withdraw:
            with self._noting(memory.refusals, (SECRETS.name, names.keys(key.name, names.RELAYER))):
                await self._withdraw(key, planned.withdraw)
        for pod, digest in planned.annotate.items():
            with self._noting(memory.refusals, (PODS.name, pod)):
                await self._annotate(key, pod, digest)
        snapshot = replace(
            snapshot,
            children=self._store.children(_WATCHED, key),
            refusals=dict(memory.refusals),
        )
        await self._write_statuses(key, snapshot, planned, memory)
        if planned.release:
            leaving = (self._store.get(change.kind, key.namespace, change.name) for change in planned.release)
            await self._guard.let_go(key.namespace, (subject for subject in leaving if subject is not None))
        await for_each(lambda change: self._finalizer(key, change), planned.release, _AT_ONCE)
        return (DRAINING if planned.drains else REQUEUE).total_seconds()

    async def _snapshot(self, key: ReconcileKey, memory: ReconcileState) -> Snapshot:
        relay_miner = self._store.get(RELAY_MINERS.name, *key)
        suppliers = self._store.suppliers(key)
        sealing = self._sealing.controller
        wanted = {_secret_of(supplier, sealing) for supplier in suppliers} | {_redis_secret_of(relay_miner)}
        secrets = await self._secrets.read(key, (name for name in wanted if name))
        children = dict(self._store.children(_WATCHED, key))
        published, keeper_uid = None, ""
        if relay_miner is not None:
            for kind, name in self._read_by_name(key):
                found = None
                with self._noting({}, (kind, name)) if kind != SECRETS.name else nullcontext():
                    found = await self._api.get_or_none(BY_KIND[kind], key.namespace, name)
                if found is not None:
                    children[kind, name] = {"apiVersion": BY_KIND[kind].api_version, "kind": kind, **found}
            merged = children.get((SECRETS.name, names.keys(key.name, names.MINER)))
            published = None if merged is None else SecretView.of(merged)
            keeper_uid = await self._keeper(key, relay_miner)
        pods = tuple(Pod.of(pod) for pod in self._store.pods(key))
        addresses = {operator_address(supplier) for supplier in suppliers}
        owners = {address: self._store.owner(address) for address in addresses}
        known = {address: owner["metadata"] for address, owner in owners.items() if owner is not None}
        return Snapshot(
            now=self._now(),
            clock=self._clock(),
            namespace=key.namespace,
            name=key.name,
            relay_miner=relay_miner,
            suppliers=suppliers,
            owners={address: str(metadata["uid"]) for address, metadata in known.items()},
            owner_names={address: f"{row['namespace']}/{row['name']}" for address, row in known.items()},
            schemas=self._schemas(),
            secrets=secrets,
            published=published,
            children=children,
            pods=pods,
            keeper_uid=keeper_uid,
            reports=self._reports.of(key.namespace, (pod.name for pod in pods)),
            controller=self._sealing.controller,
            settings=self._settings,
            capabilities=self._capabilities(),
            quiet_since=dict(memory.quiet_since),
            refusals=dict(memory.refusals),
        )

    async def _keeper(self, key: ReconcileKey, relay_miner: Object) -> str:
        """The uid of the keeper, which is made before anything that it is to keep."""
        name = names.keeper(key.name)
        keeper = self._store.get("ConfigMap", key.namespace, name)
        if keeper is None:
            keeper = await self._api.get_or_none(CONFIG_MAPS, key.namespace, name)
        if keeper is None and (relay_miner["metadata"].get("deletionTimestamp") or is_paused(relay_miner)):
            return ""
        if keeper is None:
            labels = {
                names.LABEL_MANAGED_BY: names.MANAGED_BY,
                names.LABEL_PART_OF: "pocket-relay-mining",
                **names.selector(key.name, names.KEEPER),
            }
            about = "Keeps the miners, their keys and configuration while the RelayMiner drains. Do not delete."
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": key.namespace, "labels": labels},
                "data": {"about": about},
            }
            keeper = await self._api.apply(CONFIG_MAPS, body, names.FIELD_MANAGER)
            operator_metrics.WRITES.labels(CONFIG_MAPS.name).inc()
            self._store.put(CONFIG_MAPS.name, {"apiVersion": "v1", "kind": "ConfigMap", **keeper})
        return str(keeper["metadata"]["uid"])

    def _read_by_name(self, key: ReconcileKey) -> list[ChildKey]:
        found: list[ChildKey] = [(SECRETS.name, names.keys(key.name, c)) for c in (names.RELAYER, names.MINER)]
        for kind in READ_CHILDREN:
            if kind.name in self._capabilities():
                found.append((kind.name, names.relayer(key.name) if kind.name == "HTTPRoute" else key.name))
        return found

    async def _apply_all(self, planned: Plan, snapshot: Snapshot) -> dict[ChildKey, str]:
        """Applies what drifted, in order; what the API server refuses goes to the status and does not stop the rest."""
        refused: dict[ChildKey, str] = {}
        for child in drifted_children(planned, snapshot.children):
            place = (child["kind"], child["metadata"]["name"])
            kind = BY_KIND[child["kind"]]
            with self._noting(refused, place):
                observed = snapshot.children.get(place) or await self._api.get_or_none(
                    kind, snapshot.namespace, place[1]
                )
                if observed is not None and not _ours(observed, planned):
                    refused[place] = (
                        "foreign: an object of this name is there that the operator did not make. Rename or delete it, "
                        "or give the RelayMiner another name."
                    )
                    continue
                await self._hand_over_replicas(kind, child, observed)
                applied = await self._apply(kind, child, observed)
            if place in refused:
                continue
            operator_metrics.WRITES.labels(kind.name).inc()
            if kind.name in _WATCHED:
                self._store.put(kind.name, {"apiVersion": kind.api_version, "kind": kind.name, **applied})
            _LOG.info("applied %s %s/%s", kind.name, snapshot.namespace, place[1])
        return refused

    @contextmanager
    def _noting(self, refused: dict[ChildKey, str], place: ChildKey) -> Iterator[None]:
        """Notes what the API server refuses, whatever the code: the rest, statuses and finalizers go on."""
        try:
            yield
        except KubeError as error:
            if error.status in _LATER:
                raise
            refused[place] = str(error)
            operator_metrics.REFUSALS.labels(str(error.status)).inc()

    async def _withdraw(self, key: ReconcileKey, addresses: tuple[str, ...]) -> None:
        """Takes keys out of the relayers' set, which refuse their suppliers from then on; raises KubeError."""
        name = names.keys(key.name, names.RELAYER)
        patch = {"data": dict.fromkeys(addresses)}
        await self._api.merge(SECRETS, key.namespace, name, patch, manager=names.FIELD_MANAGER)
        operator_metrics.WRITES.labels(SECRETS.name).inc()
        _LOG.info("withdrew %d keys from Secret %s/%s", len(addresses), key.namespace, name)

    async def _apply(self, kind: ResourceKind, child: Object, observed: Object | None) -> Object:
        """Applies a child, and takes out what others added to it where that must not or cannot stay; raises KubeError.

        What is added may be refused together with ours (two ports of one name) though it was accepted without it. Then
        the whole object is replaced once. Nobody owns fields by that afterwards: they could not be taken out any more.
        """
        namespace, name = child["metadata"]["namespace"], child["metadata"]["name"]
        if observed is not None and (patch := surplus(child, observed)) is not None:
            observed = await self._api.merge(kind, namespace, name, patch, manager=names.FIELD_MANAGER)
            operator_metrics.WRITES.labels(kind.name).inc()
        try:
            return await self._api.apply(kind, child, names.FIELD_MANAGER)
        except KubeError as error:
            if observed is None or error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            repair = f"{names.FIELD_MANAGER}-repair"
            try:
                replaced = await self._api.patch(kind, namespace, name, replacement(child, observed), manager=repair)
            except KubeError:
                raise error from None  # it is not what others added
        operator_metrics.WRITES.labels(kind.name).inc()
        kept = [row for row in replaced["metadata"].get("managedFields") or () if row.get("manager") != repair]
        if kept:
            await self._api.merge(kind, namespace, name, {"metadata": {"managedFields": kept}}, manager=repair)
        return await self._api.apply(kind, child, names.FIELD_MANAGER)

    async def _hand_over_replicas(self, kind: ResourceKind, child: Object, observed: Object | None) -> None:
        """Before an autoscaler takes a workload over; raises KubeError."""
        replicas = replicas_to_keep(child, observed, names.FIELD_MANAGER)
        if replicas is None:
            return
        metadata = {key: child["metadata"][key] for key in ("name", "namespace")}
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": {"replicas": replicas}}
        await self._api.apply(kind, body, f"{names.FIELD_MANAGER}-replicas")
        operator_metrics.WRITES.labels(kind.name).inc()

    async def _delete(self, key: ReconcileKey, kind: str, name: str, observed: Object) -> None:
        await self._api.delete(BY_KIND[kind], key.namespace, name, uid=str(observed["metadata"]["uid"]))
        operator_metrics.WRITES.labels(kind).inc()
        _LOG.info("deleted %s %s/%s", kind, key.namespace, name)

    async def _annotate(self, key: ReconcileKey, pod: str, digest: str) -> None:
        patch = {"metadata": {"annotations": {names.ANNOTATION_KEYS: digest}}}
        try:
            patched = await self._api.merge(PODS, key.namespace, pod, patch, manager=names.FIELD_MANAGER)
        except ObjectNotFound:
            return
        operator_metrics.WRITES.labels(PODS.name).inc()
        self._store.put(PODS.name, {"apiVersion": "v1", "kind": "Pod", **patched})

    async def _finalizer(self, key: ReconcileKey, change: FinalizerChange) -> None:
        """Adds or takes away our finalizer; the version is named, so that nobody else's is lost."""
        kind = BY_KIND[change.kind]
        observed = self._store.get(kind.name, key.namespace, change.name)
        if observed is None:
            return
        there = list(observed["metadata"].get("finalizers") or ())
        if (names.FINALIZER in there) == change.wanted:
            return
        finalizers = [*there, names.FINALIZER] if change.wanted else [f for f in there if f != names.FINALIZER]
        version = observed["metadata"]["resourceVersion"]
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": version}}
        try:
            patched = await self._api.merge(kind, key.namespace, change.name, patch, manager=names.FIELD_MANAGER)
        except ObjectNotFound:
            return
        operator_metrics.WRITES.labels(kind.name).inc()
        if not patched["metadata"].get("deletionTimestamp") or patched["metadata"].get("finalizers"):
            self._store.put(kind.name, {"apiVersion": kind.api_version, "kind": kind.name, **patched})
        _LOG.info(
            "%s %s/%s: finalizer %s", kind.name, key.namespace, change.name, "added" if change.wanted else "removed"
        )

    async def _write_statuses(
        self, key: ReconcileKey, snapshot: Snapshot, planned: Plan, memory: ReconcileState
    ) -> None:
        if snapshot.relay_miner is not None:
            status = as_status(relay_miner_status(snapshot, planned))
            found = served_suppliers(snapshot, planned)
            operator_metrics.SUPPLIERS_SERVED.labels(*key).set(len(found.served))
            operator_metrics.SUPPLIERS_DECLARED.labels(*key).set(found.declared)
            await self._write_status(snapshot.relay_miner, status, passing=frozenset({"height"}), memory=memory)

        async def of_supplier(finding: KeyCheck) -> None:
            status = as_status(supplier_status(finding, snapshot, planned))
            await self._write_status(finding.supplier, status, passing=frozenset(), memory=memory)

        await for_each(of_supplier, planned.findings, _AT_ONCE)

    async def _write_status(
        self, subject: Object, status: Object, *, passing: frozenset[str], memory: ReconcileState
    ) -> None:
        """Server-side apply of the status where it differs; `passing` fields alone are no reason to write."""
        before = subject.get("status") or {}
        status = self._schemas().pruned_status(str(subject["kind"]), status)
        if _without(before, passing) == _without(status, passing):
            return
        uid = str(subject["metadata"]["uid"])
        only_figures = _without(before, _FIGURES | passing) == _without(status, _FIGURES | passing)
        written = memory.status_written.get(uid, float("-inf"))
        if only_figures and self._clock() - written < _FIGURES_SECONDS:
            return
        kind, metadata = BY_KIND[subject["kind"]], subject["metadata"]
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": uid},
            "status": status,
        }
        path = kind.path(metadata["namespace"], metadata["name"], "status")
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        try:
            patched = await self._api.call(
                "PATCH", path, body=body, query=query, content_type="application/apply-patch+yaml"
            )
        except KubeError as error:
            if isinstance(error, ObjectNotFound) or error.status == 409:
                return  # it is gone, or another one of the same name
            if error.status in _LATER:
                raise
            operator_metrics.REFUSALS.labels(
                str(error.status)
            ).inc()  # one that is refused must not keep the others from theirs
            _LOG.warning("status of %s %s/%s: %s", kind.name, metadata["namespace"], metadata["name"], error)
            return
        operator_metrics.WRITES.labels(kind.name).inc()
        memory.status_written[uid] = self._clock()
        before_rows = before.get("conditions") or ()
        self._store.put(kind.name, patched)
        for notice in notices(relevant(status), before_rows):
            await self._events.post(subject, notice)


def _forget_figures(key: ReconcileKey) -> None:
    """Take a RelayMiner that is gone out of the metrics."""
    for family in (operator_metrics.SUPPLIERS_SERVED, operator_metrics.SUPPLIERS_DECLARED):
        with suppress(KeyError):
            family.remove(*key)


def relevant(status: Object) -> list[Condition]:
    """The conditions of a status as models."""
    return [Condition.model_validate(row) for row in status.get("conditions") or ()]


def _without(status: Object, fields: frozenset[str]) -> Object:
    return {key: value for key, value in status.items() if key not in fields}


def _ours(observed: Object, planned: Plan) -> bool:
    """Ours, or an orphan that carries our label; everything else is somebody else's."""
    owner = owner_of(observed)
    if owner is None:
        labels = observed["metadata"].get("labels") or {}
        return bool(labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY)
    return planned.context is not None and owner == planned.context.uid


def _secret_of(supplier: Object, sealing: Controller) -> str:
    """The Secret that a Supplier's key needs, empty for none: the operator's own keys are known."""
    key = (supplier.get("spec") or {}).get("key") or {}
    if (sealed := key.get("sealed")) is not None:
        return "" if sealing.knows(str(sealed)) else SECRET_OF_NAMESPACE
    return str((key.get("secretRef") or {}).get("name", ""))


def _redis_secret_of(relay_miner: Object | None) -> str:
    reference = (((relay_miner or {}).get("spec") or {}).get("redis") or {}).get("urlSecretRef") or {}
    return str(reference.get("name", ""))
