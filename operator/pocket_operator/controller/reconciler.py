"""Reconcile RelayMiners: gather a snapshot, plan, and write what differs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.relayminer import Deletion
from pocket.api.status import Condition, as_status
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE, Controller
from pocket.kube.api_client import NO_ANSWER, KubeApi, KubeError, ObjectNotFound
from pocket.runtime.concurrency import map_bounded
from pocket_operator.controller import operator_metrics
from pocket_operator.controller.audit_archive import AuditArchive
from pocket_operator.controller.books_keeper import BooksKeeper
from pocket_operator.controller.child_writer import AT_ONCE, WATCHED, ChildWriter
from pocket_operator.controller.events import EventWriter
from pocket_operator.controller.failed_creates import FailedCreates
from pocket_operator.controller.namespace_guard import NamespaceGuard
from pocket_operator.controller.operator_claim import OperatorClaim
from pocket_operator.controller.operator_conflicts import OperatorConflicts
from pocket_operator.controller.own_status import own_status, without_fields
from pocket_operator.controller.pod_report_cache import PodReportCache
from pocket_operator.controller.prefix_owners import PrefixOwners
from pocket_operator.controller.reconcile_state import ReconcileState
from pocket_operator.controller.secrets import SealingKeys, SecretReader
from pocket_operator.controller.update_queue import UpdateQueue
from pocket_operator.controller.volume_expander import VolumeExpander
from pocket_operator.decide.conditions import EventToEmit, events_to_emit
from pocket_operator.decide.contested import CONTESTED
from pocket_operator.decide.draining import has_finalizer, open_without_relay_miner
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey, operator_address
from pocket_operator.decide.plan import DRAINING, REQUEUE, Plan, is_paused, plan
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.redis_secrets import redis_secrets_of
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.schemas import Schemas
from pocket_operator.decide.sections import section
from pocket_operator.decide.served import served_suppliers
from pocket_operator.decide.snapshot import (
    ChildKey,
    Pod,
    Rejection,
    SecretView,
    Settings,
    Snapshot,
    UpdateStep,
    repeated,
)
from pocket_operator.decide.supplier_keys import KeyCheck
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.decide.workloads import rolling_generations
from pocket_operator.resources import names
from pocket_operator.resources.kinds import BY_KIND, CONFIG_MAPS, PODS, READ_CHILDREN, RELAY_MINERS, SECRETS

_LOG: FilteringBoundLogger = structlog.get_logger()
Object = dict[str, Any]
_STATISTICS_SECONDS = 30.0
_STATISTICS = frozenset({
    "stake", "sessions", "openSessions", "last", "earnedUpokt", "earned", "day", "books", "nextDeadline", "funds",
    "audit",
})  # fmt: skip


class Reconciler:
    """Reconciles one RelayMiner with all its Suppliers at a time."""

    def __init__(
        self,
        *,
        api: KubeApi,
        cache: ObjectCache,
        settings: Settings,
        secrets: SecretReader,
        sealing: SealingKeys,
        guard: NamespaceGuard,
        reports: PodReportCache,
        books: BooksKeeper,
        events: EventWriter,
        capabilities: Callable[[], frozenset[str]],
        schemas: Callable[[], Schemas],
        updates: UpdateQueue,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._cache = cache
        self._settings = settings
        self._secrets, self._prefixes = secrets, PrefixOwners(cache, secrets)
        self._sealing = sealing
        self._guard = guard
        self._reports = reports
        self._books = books
        self._events = events
        self._capabilities = capabilities
        self._schemas = schemas
        self._updates = updates
        self._failed_creates, self._claims = FailedCreates(api, clock), VolumeExpander(api, clock)
        claim = OperatorClaim(api, settings.namespace, clock)
        self._conflicts = OperatorConflicts(api, cache, claim, settings.namespace, now)
        self._writer = ChildWriter(api, cache, clock)
        self._archive = AuditArchive(api)
        self._clock = clock
        self._now = now
        self._states: dict[ReconcileKey, ReconcileState] = {}

    async def reconcile(self, key: ReconcileKey) -> float | None:
        """Reconcile one RelayMiner.

        Returns the seconds until the next run, None for never. Raises KubeError.
        """
        if other := await self._conflicts.other(key):
            await self._conflicts.report(key, other)
            return REQUEUE.total_seconds()
        await self._conflicts.clear(key)
        state = self._states.setdefault(key, ReconcileState())
        snapshot = await self._snapshot(key, state)
        if snapshot.relay_miner is None:
            operator_metrics.forget(key)
            snapshot = await self._without_relay_miner(key, snapshot, state)
            if not (snapshot.suppliers or snapshot.drain_anchor_uid):
                self._states.pop(key, None)
                return None
        else:
            state.released, state.gone_since, state.idle_since = False, None, None
        snapshot, planned = await self._protected(key, snapshot, state)
        known = {str(subject["metadata"]["uid"]) for subject in (snapshot.relay_miner, *snapshot.suppliers) if subject}
        state.status_written = {uid: at for uid, at in state.status_written.items() if uid in known}
        state.status_answers = {uid: both for uid, both in state.status_answers.items() if uid in known}
        state.quiet_since = {a: d.quiet_since for a, d in planned.drains.items() if d.quiet_since is not None}
        step = planned.update.step if planned.update is not None else ""
        if step != state.update_step.name:
            state.update_step = UpdateStep(step, self._clock())
        rejections, contested = await self._writer.apply_all(planned, snapshot, state.repairs)
        if contested and snapshot.relay_miner is not None:
            event = EventToEmit(True, CONTESTED, "; ".join(contested) + ".")
            self._events.post(snapshot.relay_miner, event)
        for kind, name in planned.delete:
            with self._writer.recording(rejections, (kind, name)):
                await self._writer.delete(key, kind, name, snapshot.children[kind, name])
        if planned.withdraw:
            with self._writer.recording(rejections, (SECRETS.name, names.keys(key.name, names.RELAYER))):
                await self._writer.withdraw(key, planned.withdraw)
        for pod, digest in planned.annotate.items():
            with self._writer.recording(rejections, (PODS.name, pod)):
                await self._writer.annotate(key, pod, digest)
        state.reported, state.rejections = repeated(rejections, state.rejections), rejections
        state.namespace_ends |= any(rejection.namespace_ends for rejection in rejections.values())
        snapshot = replace(snapshot, children=self._cache.children(WATCHED, key), rejections=state.reported)
        await self._write_statuses(key, snapshot, planned, state)
        if planned.release:
            leaving = (self._cache.get(change.kind, key.namespace, change.name) for change in planned.release)
            await self._guard.release(key.namespace, (subject for subject in leaving if subject is not None))
        state.released |= any(change.kind == RELAY_MINERS.name for change in planned.release)
        state.unreleased = _messages(await self._writer.finalizers(key, planned.release))
        return (DRAINING if planned.drains else REQUEUE).total_seconds()

    async def _without_relay_miner(self, key: ReconcileKey, snapshot: Snapshot, state: ReconcileState) -> Snapshot:
        """Delete the drain anchor of a RelayMiner that is gone.

        What mines goes with it, once nothing is open. Nothing is when this operator released it. Else a user removed
        its finalizer, and its miners go on.
        """
        name = names.drain_anchor(key.name)
        drain_anchor = self._cache.get(CONFIG_MAPS.name, key.namespace, name)
        if drain_anchor is None:
            return snapshot
        now = self._clock()
        state.gone_since = now if state.gone_since is None else state.gone_since
        if state.idle_since is None or any(pod.component == names.RELAYER for pod in snapshot.pods):
            state.idle_since = now
        late = now - state.gone_since >= Deletion().drain_deadline_seconds
        waits = "" if state.released or late else open_without_relay_miner(snapshot, state.idle_since)
        if not waits:
            await self._writer.delete(key, CONFIG_MAPS.name, name, drain_anchor)
            return snapshot
        message = f"RelayMiner {key.name} is gone, and its miners go on: {waits}. Create it again to serve."
        subject = {**drain_anchor, "apiVersion": CONFIG_MAPS.api_version, "kind": CONFIG_MAPS.name}
        self._events.post(subject, EventToEmit(True, ConditionReason.DRAINING, message))
        return replace(snapshot, drain_anchor_uid=str(drain_anchor["metadata"]["uid"]))

    async def _protected(self, key: ReconcileKey, snapshot: Snapshot, state: ReconcileState) -> tuple[Snapshot, Plan]:
        """Add the finalizers that a plan needs, and plan without what has none."""
        planned = plan(snapshot)
        if not planned.protect:
            return snapshot, planned
        refused = await self._writer.finalizers(key, planned.protect)
        await self._guard.update()
        before, state.unprotected = state.unprotected, frozenset(refused)
        retry_new(refused, before)
        if not refused:
            return snapshot, planned
        snapshot = replace(snapshot, unprotected={**snapshot.unprotected, **_messages(refused)})
        return snapshot, plan(snapshot)

    async def _snapshot(self, key: ReconcileKey, state: ReconcileState) -> Snapshot:
        relay_miner = self._cache.get(RELAY_MINERS.name, *key)
        suppliers = self._cache.suppliers(key)
        sealing = self._sealing.controller
        wanted = {_secret_of(supplier, sealing) for supplier in suppliers} | redis_secrets_of(relay_miner)
        secrets = await self._secrets.read(key, (name for name in wanted if name))
        children = dict(self._cache.children(WATCHED, key))
        published, drain_anchor_uid = None, ""
        refused: dict[ChildKey, Rejection] = {}
        if relay_miner is not None:
            for kind, name in self._read_by_name(key):
                child = None
                # Without the merged keys nothing may be concluded, so the children are left alone.
                with self._writer.recording(refused if kind == SECRETS.name else {}, (kind, name)):
                    child = await self._api.get_or_none(BY_KIND[kind], key.namespace, name)
                if child is not None:
                    children[kind, name] = {"apiVersion": BY_KIND[kind].api_version, "kind": kind, **child}
            merged = children.get((SECRETS.name, names.keys(key.name, names.MINER)))
            published = None if merged is None else SecretView.of(merged)
            with self._writer.recording(refused, (CONFIG_MAPS.name, names.drain_anchor(key.name))):
                drain_anchor_uid = await self._drain_anchor(key, relay_miner, ends=state.namespace_ends)
        before, state.unread = state.unread, frozenset(refused)
        retry_new(refused, before)
        state.namespace_ends &= relay_miner is None or _deleted(relay_miner)
        pods = tuple(Pod.of(pod) for pod in self._cache.pods(key))
        if _deleted(relay_miner) and not any(pod.component == names.MINER for pod in pods):
            # What is paused or invalid writes nothing, so no rejection shows it.
            state.namespace_ends = state.namespace_ends or await self._writer.namespace_ends(key)
        addresses = {operator_address(supplier) for supplier in suppliers}
        owners = {address: self._cache.owner(address) for address in addresses}
        known = {address: owner["metadata"] for address, owner in owners.items() if owner is not None}
        rolling = rolling_generations(children.get(row) for row in _workloads(key.name))
        if rolling != state.rolling.name:
            state.rolling = UpdateStep(rolling, self._clock())
        return Snapshot(
            prefix_owner=await self._prefixes.other(relay_miner, secrets),
            failed_creates=await self._failed_creates.read(key, children),
            claims=await self._claims.grown(key, relay_miner, children),
            rolling_since=state.rolling.since if rolling else None,
            now=self._now(),
            clock=self._clock(),
            namespace=key.namespace,
            name=key.name,
            relay_miner=relay_miner,
            suppliers=suppliers,
            owners={address: str(metadata["uid"]) for address, metadata in known.items()},
            owner_names={address: f"{row['namespace']}/{row['name']}" for address, row in known.items()},
            schemas=self._schemas(),
            turn=self._updates.turn(key),
            update_step=state.update_step,
            secrets=secrets,
            published=published,
            children=children,
            pods=pods,
            drain_anchor_uid=drain_anchor_uid,
            reports=self._reports.of(key.namespace, (pod.name for pod in pods)),
            controller=self._sealing.controller,
            settings=self._settings,
            capabilities=self._capabilities(),
            books={str(supplier["metadata"]["uid"]): self._books.of(supplier) for supplier in suppliers},
            quiet_since=dict(state.quiet_since),
            rejections=state.reported,
            namespace_ends=state.namespace_ends,
            unprotected=_messages(refused),
            unreleased=state.unreleased,
        )

    async def _drain_anchor(self, key: ReconcileKey, relay_miner: Object, *, ends: bool) -> str:
        """Return the uid of the drain anchor.

        It is created before everything that it co-owns. One that was deleted is created again while the RelayMiner
        drains, unless its namespace `ends`: what it co-owns would have no owner, and would stay.
        """
        name = names.drain_anchor(key.name)
        drain_anchor = self._cache.get("ConfigMap", key.namespace, name)
        if drain_anchor is None:
            drain_anchor = await self._api.get_or_none(CONFIG_MAPS, key.namespace, name)
        leaves = _deleted(relay_miner) and (ends or not has_finalizer(relay_miner))
        if drain_anchor is None and (leaves or is_paused(relay_miner)):
            return ""
        if drain_anchor is None:
            labels = {
                names.LABEL_MANAGED_BY: names.MANAGED_BY,
                names.LABEL_PART_OF: "pocket-relay-mining",
                **names.selector(key.name, names.DRAIN_ANCHOR),
            }
            about = "Keeps the miners, their keys and configuration while the RelayMiner drains. Do not delete."
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": key.namespace, "labels": labels},
                "data": {"about": about},
            }
            drain_anchor = await self._api.apply(CONFIG_MAPS, body, names.FIELD_MANAGER)
            operator_metrics.WRITES.labels(CONFIG_MAPS.name).inc()
            self._cache.put(CONFIG_MAPS.name, {"apiVersion": "v1", "kind": "ConfigMap", **drain_anchor})
        return str(drain_anchor["metadata"]["uid"])

    def _read_by_name(self, key: ReconcileKey) -> list[ChildKey]:
        child_keys: list[ChildKey] = [(SECRETS.name, names.keys(key.name, c)) for c in (names.RELAYER, names.MINER)]
        for kind in READ_CHILDREN:
            if kind.name in self._capabilities():
                child_keys.append((kind.name, names.relayer(key.name) if kind.name == "HTTPRoute" else key.name))
        return child_keys

    async def _write_statuses(
        self, key: ReconcileKey, snapshot: Snapshot, planned: Plan, state: ReconcileState
    ) -> None:
        relay_miner = snapshot.relay_miner
        if relay_miner is not None:
            served = served_suppliers(snapshot, planned)
            state.unserved_since = served.missing_since(state.unserved_since, self._clock())
            snapshot = replace(snapshot, unserved_since=min(state.unserved_since.values(), default=None))
            found_status = relay_miner_status(snapshot, planned)
            await self._archive.update(key, found_status.audit, self._now())
            status = as_status(found_status)
            operator_metrics.SUPPLIERS_SERVED.labels(*key).set(len(served.served))
            operator_metrics.SUPPLIERS_DECLARED.labels(*key).set(served.declared)
            await self._write_status(relay_miner, status, passing=frozenset({"height"}), state=state)

        async def of_supplier(check: KeyCheck) -> None:
            status = as_status(supplier_status(check, snapshot, planned))
            await self._write_status(check.supplier, status, passing=frozenset(), state=state)

        await map_bounded(of_supplier, planned.key_checks, AT_ONCE, stop_on=KubeError)

    async def _write_status(
        self, subject: Object, status: Object, *, passing: frozenset[str], state: ReconcileState
    ) -> None:
        """Apply the status if it differs in other than the `passing` fields.

        What other clients own in it stays different: the same status is not applied to the same answer again.
        """
        before = own_status(subject)
        status = self._schemas().pruned_status(str(subject["kind"]), status)
        uid = str(subject["metadata"]["uid"])
        wanted, there = without_fields(status, passing), without_fields(before, passing)
        if wanted == there or state.status_answers.get(uid) == (wanted, there):
            return
        only_figures = without_fields(before, _STATISTICS | passing) == without_fields(status, _STATISTICS | passing)
        written = state.status_written.get(uid, float("-inf"))
        if only_figures and self._clock() - written < _STATISTICS_SECONDS:
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
                return  # it is gone, or another object has its name
            if error.status in NO_ANSWER:
                raise
            # One rejected status must not prevent the others.
            operator_metrics.REFUSALS.labels(str(error.status)).inc()
            _LOG.warning("cannot write a status", kind=kind.name, subject=_place(metadata)[1], error=error)
            return
        operator_metrics.WRITES.labels(kind.name).inc()
        state.status_written[uid] = self._clock()
        before_rows = before.get("conditions") or ()
        self._cache.put(kind.name, patched)
        answer = without_fields(own_status(self._cache.get(kind.name, *_place(metadata)) or {}), passing)
        state.status_answers.pop(uid, None)
        if answer != wanted:
            state.status_answers[uid] = (wanted, answer)
        for event in events_to_emit(relevant(status), before_rows):
            self._events.post(subject, event)


def retry_new(refused: Mapping[ChildKey, Rejection], before: frozenset[ChildKey]) -> None:
    """Raise KubeError for a refusal that may pass and was not there before.

    Then all is tried again soon.
    """
    repeats = repeated(refused, before)
    for child_key, rejection in refused.items():
        if child_key not in repeats:
            raise KubeError(rejection.message)


def _messages(refused: Mapping[ChildKey, Rejection]) -> dict[ChildKey, str]:
    return {child_key: rejection.message for child_key, rejection in refused.items()}


def _workloads(name: str) -> tuple[ChildKey, ChildKey]:
    return ("Deployment", names.relayer(name)), ("StatefulSet", names.miner(name))


def relevant(status: Object) -> list[Condition]:
    """Return the conditions of a status as models."""
    return [Condition.model_validate(row) for row in status.get("conditions") or ()]


def _deleted(resource: Object | None) -> bool:
    return resource is not None and bool(resource["metadata"].get("deletionTimestamp"))


def _place(metadata: Object) -> tuple[str, str]:
    return str(metadata["namespace"]), str(metadata["name"])


def _secret_of(supplier: Object, sealing: Controller) -> str:
    """Return the Secret that a Supplier's key needs.

    The result is empty for a key sealed for the operator.
    """
    key = section(supplier, "spec", "key")
    if (sealed := key.get("sealed")) is not None:
        return "" if sealing.knows(str(sealed)) else SECRET_OF_NAMESPACE
    return str(section(key, "secretRef").get("name", ""))
