"""Decide the actions of one reconciliation, as a pure function of the snapshot."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from pocket.api.base import problem_of
from pocket.api.lenient import read_known
from pocket.api.relayminer import Deletion, RelayMiner
from pocket.keys.loading import key_from_text
from pocket_operator.decide.draining import (
    DrainStatus,
    drain_of,
    drains_without_supplier,
    has_finalizer,
    has_force_annotation,
    past_deadline,
)
from pocket_operator.decide.drift import drifted, with_digest
from pocket_operator.decide.kept_revisions import kept_revisions
from pocket_operator.decide.reasons import BlockingProblem, ConditionReason
from pocket_operator.decide.redis_secrets import redis_secret
from pocket_operator.decide.rollout import RolloutState, plan_rollout
from pocket_operator.decide.sections import section
from pocket_operator.decide.snapshot import ChildKey, Snapshot
from pocket_operator.decide.stake_decision import transaction_on_its_way, unstakes
from pocket_operator.decide.supplier_keys import KeyCheck, check_key
from pocket_operator.decide.update import UpdatePlan, current_images, plan_update
from pocket_operator.decide.volume_claims import template_size
from pocket_operator.resources import desired, names
from pocket_operator.resources.config import reloadable_text
from pocket_operator.resources.context import Context, PublishedSupplier
from pocket_operator.resources.pod_overlay import PodTemplateRejected
from pocket_operator.resources.relayer import current
from pocket_operator.resources.revision import Revision, RolloutPlan

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FinalizerChange:
    """Our finalizer, to add to a Supplier or RelayMiner or to remove from it."""

    kind: str
    name: str
    wanted: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered actions: add finalizers, apply, delete, annotate, remove finalizers."""

    context: Context | None
    key_checks: tuple[KeyCheck, ...]
    drains: Mapping[str, DrainStatus]
    blocked_by: BlockingProblem | None = None
    protect: tuple[FinalizerChange, ...] = ()
    withdraw: tuple[str, ...] = ()
    """Addresses to remove from the relayers' published keys while the children cannot be applied as a whole."""
    wanted: tuple[Object, ...] = field(default=(), repr=False)
    """All children with their digests. The executor applies those that drifted."""
    delete: tuple[ChildKey, ...] = ()
    annotate: Mapping[str, str] = field(default_factory=dict)
    """Pod name → digest of what it should have loaded."""
    release: tuple[FinalizerChange, ...] = ()
    paused: bool = False
    unknown: tuple[str, ...] = ()
    """Fields of the RelayMiner that this release does not know and ignores."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Component → digest of the public keys that its pods should report."""
    update: UpdatePlan | None = None
    """How the operator's release reaches the children, None where no children are wanted."""

    @property
    def rollout(self) -> RolloutPlan | None:
        """The revisions of the relayers that run, None where no children are wanted."""
        return self.context.rollout if self.context is not None else None


@lru_cache(maxsize=8192)
def _public_key(key_hex: str) -> bytes:
    return key_from_text(key_hex).public_key


def key_digest(keys: list[str]) -> str:
    """Return the digest of a key set as the workloads compute it, empty for no keys."""
    if not keys:
        return ""
    return hashlib.sha256(b"".join(sorted(_public_key(key) for key in keys))).hexdigest()


def is_paused(relay_miner: Mapping[str, Any]) -> bool:
    """Return True if spec.paused or the annotation pauses the RelayMiner."""
    annotations = relay_miner["metadata"].get("annotations") or {}
    return bool(section(relay_miner, "spec").get("paused")) or annotations.get(names.ANNOTATION_RECONCILE) == (
        "disabled"
    )


def _deadline(relay_miner: Mapping[str, Any] | None) -> float:
    """Return the drain deadline in seconds, the default without a valid one."""
    deletion = section(relay_miner, "spec").get("deletion")
    try:
        return float(read_known(Deletion, deletion or {})[0].drain_deadline_seconds)
    except ValidationError:
        return float(Deletion().drain_deadline_seconds)


def plan(snapshot: Snapshot) -> Plan:
    """Return everything to do for one RelayMiner and the Suppliers that name it."""
    key_checks = tuple(check_key(supplier, snapshot) for supplier in snapshot.suppliers)
    if snapshot.relay_miner is None:
        going = {f.address for f in key_checks if f.deleting or f.reason is ConditionReason.KEY_IN_USE}
        drains = {a: d for a, d in _drains(snapshot, key_checks, deleting=False).items() if a in going}
        return Plan(None, key_checks, drains, release=_release_drained(key_checks, drains))
    deleting = bool(snapshot.relay_miner["metadata"].get("deletionTimestamp"))
    drains = _drains(snapshot, key_checks, deleting=deleting)
    try:
        resource = {k: v for k, v in snapshot.relay_miner.items() if k != "status"}
        parsed, unknown = read_known(RelayMiner, resource)
    except ValidationError as error:
        invalid = BlockingProblem(ConditionReason.INVALID_SPEC, problem_of(error))
        return _blocked_plan(snapshot, key_checks, drains, invalid)
    if is_paused(snapshot.relay_miner):
        release = _release_paused(snapshot, key_checks, drains)
        return Plan(None, key_checks, drains, paused=True, release=release, unknown=unknown)
    redis_digest, blocked_by = redis_secret(parsed, snapshot)
    if snapshot.prefix_owner:
        blocked_by = BlockingProblem(
            ConditionReason.PREFIX_IN_USE,
            f"The prefix {parsed.prefix} in this Redis belongs to the older RelayMiner {snapshot.prefix_owner}. Delete "
            "this RelayMiner and create it again with another spec.prefix.",
        )
    for (kind, name), message in snapshot.unprotected.items():
        if kind != "Supplier":
            blocked_by = BlockingProblem(ConditionReason.API_SERVER_REJECTED, f"{kind} {name}: {message}")
    if blocked_by is not None and not deleting:
        return replace(_blocked_plan(snapshot, key_checks, drains, blocked_by), unknown=unknown)
    context = _context(snapshot, parsed, key_checks, drains, redis_digest=redis_digest, deleting=deleting)
    try:
        kept = kept_revisions(replace(context, images=current_images(snapshot)), snapshot.children)
        update = plan_update(snapshot, kept, parsed.spec.progress_deadline_seconds)
        context = replace(
            context, images=update.images, kept={part: kept[part] for part in update.kept},
            miner_partition=update.partition, updating_to=update.target if update.started else "",
        )  # fmt: skip
        if not deleting:
            context = replace(context, rollout=_rollout(snapshot, context))
        wanted = tuple(with_digest(child) for child in desired(context))
    except PodTemplateRejected as error:
        rejected = BlockingProblem(ConditionReason.INVALID_SPEC, str(error))
        return replace(_blocked_plan(snapshot, key_checks, drains, rejected), unknown=unknown)
    digests = {
        names.RELAYER: key_digest([s.key_hex for s in context.suppliers if not s.draining]),
        names.MINER: key_digest([s.key_hex for s in context.suppliers]),
    }
    return Plan(
        context=context,
        key_checks=key_checks,
        drains=drains,
        protect=_add_finalizers(snapshot, context, key_checks, deleting=deleting),
        wanted=wanted,
        delete=_orphans(snapshot, context, wanted),
        annotate=_annotations(snapshot, context, digests),
        release=_release(snapshot, key_checks, drains),
        unknown=unknown,
        digests=digests,
        update=update,
    )


def _blocked_plan(
    snapshot: Snapshot,
    key_checks: tuple[KeyCheck, ...],
    drains: Mapping[str, DrainStatus],
    blocked_by: BlockingProblem,
) -> Plan:
    """Return the plan that leaves the children alone, and lets Suppliers drain."""
    relay_miner = snapshot.relay_miner or {}
    withdraw: tuple[str, ...] = ()
    if not is_paused(relay_miner):
        release = _release(snapshot, key_checks, drains)
        goes = bool(relay_miner["metadata"].get("deletionTimestamp"))
        staying = {f.address for f in key_checks if not (goes or f.deleting)}
        keys = snapshot.children.get(("Secret", names.keys(snapshot.name, names.RELAYER))) or {}
        withdraw = tuple(sorted(set(keys.get("data") or {}) - staying))
    else:
        release = _release_paused(snapshot, key_checks, drains)
    return Plan(None, key_checks, drains, blocked_by, withdraw=withdraw, release=release)


def _release(
    snapshot: Snapshot, key_checks: tuple[KeyCheck, ...], drains: Mapping[str, DrainStatus]
) -> tuple[FinalizerChange, ...]:
    """Return the finalizers to remove."""
    relay_miner = snapshot.relay_miner or {}
    if (
        relay_miner["metadata"].get("deletionTimestamp")
        and has_finalizer(relay_miner)
        and _relay_miner_drained(snapshot, drains)
    ):
        return _release_all(snapshot, key_checks)
    return _release_drained(key_checks, drains)


def _release_drained(
    key_checks: tuple[KeyCheck, ...], drains: Mapping[str, DrainStatus]
) -> tuple[FinalizerChange, ...]:
    return _release_finalizers(key_checks, lambda f: _done(drains, f.address) or _served_by_older(f, key_checks))


def _served_by_older(check: KeyCheck, key_checks: tuple[KeyCheck, ...]) -> bool:
    """Return True if an older Supplier of this RelayMiner has the address."""
    return check.reason is ConditionReason.KEY_IN_USE and any(
        other.address == check.address and other.reason is not ConditionReason.KEY_IN_USE for other in key_checks
    )


def drifted_children(plan_: Plan, children: Mapping[ChildKey, Object]) -> list[Object]:
    """Return the children to apply."""
    return [w for w in plan_.wanted if drifted(w, children.get((w["kind"], w["metadata"]["name"])))]


def _drains(snapshot: Snapshot, key_checks: tuple[KeyCheck, ...], *, deleting: bool) -> dict[str, DrainStatus]:
    """Return, by address, the drains of the suppliers that should go or unstake.

    A Supplier that may not use its address has nothing to drain, unless its key was published before an older one came.
    """
    drains: dict[str, DrainStatus] = {}
    deadline = _deadline(snapshot.relay_miner)
    relay_miner = snapshot.relay_miner if deleting else None
    for check in key_checks:
        superseded = check.reason is ConditionReason.KEY_IN_USE
        if not (check.deleting or deleting or superseded or unstakes(check.supplier)):
            continue
        if superseded and (not check.has_finalizer or _served_by_older(check, key_checks)):
            continue
        drain = drain_of(check.address, check.supplier, snapshot)
        if drain.done and check.deleting and transaction_on_its_way(check.supplier):
            drain = DrainStatus(False, drain.quiet_since, "its staking transaction is on its way")
        subjects = [s for s in (check.supplier if check.deleting else None, relay_miner) if s is not None]
        if any(has_force_annotation(subject) for subject in subjects):
            drain = DrainStatus(True, drain.quiet_since, "forced by annotation")
        elif any(past_deadline(subject, snapshot.now, deadline) for subject in subjects):
            drain = DrainStatus(True, drain.quiet_since, "the deadline passed")
        drains[check.address] = drain
    if (
        relay_miner is not None
        and not has_force_annotation(relay_miner)
        and not past_deadline(relay_miner, snapshot.now, deadline)
    ):
        drains |= drains_without_supplier({check.address for check in key_checks}, snapshot)
    return drains


def _release_finalizers(
    key_checks: tuple[KeyCheck, ...], may: Callable[[KeyCheck], bool] = lambda check: True
) -> tuple[FinalizerChange, ...]:
    """Return our finalizers on deleted Suppliers that may go."""
    going = (
        f for f in key_checks if (f.deleting or f.reason is ConditionReason.KEY_IN_USE) and f.has_finalizer and may(f)
    )
    return tuple(FinalizerChange("Supplier", f.name, wanted=False) for f in going)


def _release_all(snapshot: Snapshot, key_checks: tuple[KeyCheck, ...]) -> tuple[FinalizerChange, ...]:
    """Return our finalizers on the RelayMiner and its deleted Suppliers."""
    return (*_release_finalizers(key_checks), FinalizerChange("RelayMiner", snapshot.name, wanted=False))


def _release_paused(
    snapshot: Snapshot, key_checks: tuple[KeyCheck, ...], drains: Mapping[str, DrainStatus]
) -> tuple[FinalizerChange, ...]:
    """Return the finalizers to remove while paused.

    They go by the annotation, or where the namespace is being deleted. No miner can be created there again.
    """
    if snapshot.namespace_ends:
        return _release(snapshot, key_checks, drains)
    relay_miner = snapshot.relay_miner
    if (
        relay_miner is not None
        and relay_miner["metadata"].get("deletionTimestamp")
        and has_finalizer(relay_miner)
        and has_force_annotation(relay_miner)
    ):
        return _release_all(snapshot, key_checks)
    return _release_finalizers(key_checks, lambda check: check.deleting and has_force_annotation(check.supplier))


def _done(drains: Mapping[str, DrainStatus], address: str) -> bool:
    drain = drains.get(address)
    return drain is not None and drain.done


def _relay_miner_drained(snapshot: Snapshot, drains: Mapping[str, DrainStatus]) -> bool:
    relay_miner = snapshot.relay_miner
    if (
        relay_miner is None
        or has_force_annotation(relay_miner)
        or past_deadline(relay_miner, snapshot.now, _deadline(relay_miner))
    ):
        return True
    return all(drain.done for drain in drains.values())


def _context(
    snapshot: Snapshot,
    parsed: RelayMiner,
    key_checks: tuple[KeyCheck, ...],
    drains: Mapping[str, DrainStatus],
    *,
    redis_digest: str,
    deleting: bool,
) -> Context:
    metadata = (snapshot.relay_miner or {})["metadata"]
    suppliers = tuple(
        PublishedSupplier(
            address=check.address,
            services=check.services or (),
            key_hex=check.key_hex,
            draining=deleting or _leaves(check) or check.services is None or unstakes(check.supplier),
        )
        for check in sorted(_one_each(key_checks), key=lambda f: f.address)
        if check.key_hex is not None and not (_leaves(check) and _done(drains, check.address))
    )
    labels = metadata.get("labels") or {}
    return Context(
        relay_miner=parsed,
        uid=metadata["uid"],
        images=snapshot.settings.images,
        rendering=snapshot.settings.rendering,
        operator_namespace=snapshot.settings.namespace,
        suppliers=suppliers,
        redis_digest=redis_digest,
        claim_size=template_size(snapshot.children.get(("StatefulSet", names.miner(snapshot.name)))),
        restarted_at=(metadata.get("annotations") or {}).get(names.ANNOTATION_RESTARTED, ""),
        capabilities=snapshot.capabilities,
        inherited={key: labels[key] for key in sorted(labels) if key in names.INHERITED_LABELS},
        deleting=deleting,
        drain_anchor_uid=snapshot.drain_anchor_uid,
    )


def _leaves(check: KeyCheck) -> bool:
    return check.deleting or check.reason is ConditionReason.KEY_IN_USE


def _one_each(key_checks: tuple[KeyCheck, ...]) -> list[KeyCheck]:
    """Return one Supplier per address: the oldest one where it is ours."""
    ordered = sorted(key_checks, key=lambda f: f.reason is not ConditionReason.KEY_IN_USE)
    return list({check.address: check for check in ordered}.values())


def _rollout(snapshot: Snapshot, context: Context) -> RolloutPlan:
    """Return where the revisions of the relayers run."""
    chosen = context.relay_miner.spec.relayer
    annotations = (snapshot.relay_miner or {})["metadata"].get("annotations") or {}
    deployment = snapshot.children.get(("Deployment", names.relayer(context.name)))
    state = RolloutState(
        now=snapshot.now,
        steady_exists=deployment is not None and chosen.replicas != 0,
        saved=Revision.load_saved(
            snapshot.children.get(("ConfigMap", names.revision(context.name, names.RELAYER))), names.RELAYER
        ),
        canary=snapshot.children.get(("Deployment", names.canary(context.name))),
        pods=[pod for pod in snapshot.pods if pod.revision],
        reports=snapshot.reports,
        promoted=annotations.get(names.ANNOTATION_PROMOTE, ""),
    )
    return plan_rollout(current(context), chosen.rollout, state)


def _add_finalizers(
    snapshot: Snapshot, context: Context, key_checks: tuple[KeyCheck, ...], *, deleting: bool
) -> tuple[FinalizerChange, ...]:
    """Return the finalizers to add before a key is published and earns claims."""
    published = {supplier.address for supplier in context.suppliers}
    changes = [
        FinalizerChange("Supplier", f.name, wanted=True)
        for f in key_checks
        if f.key_hex is not None and f.address in published and not _leaves(f) and not f.has_finalizer
    ]
    if published and not deleting and not has_finalizer(snapshot.relay_miner or {"metadata": {}}):
        changes.append(FinalizerChange("RelayMiner", snapshot.name, wanted=True))
    return tuple(changes)


def owner_of(observed: Mapping[str, Any]) -> str | None:
    """Return the uid of an object's controller, None for an orphan."""
    for reference in observed["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return str(reference["uid"])
    return None


def _orphans(snapshot: Snapshot, context: Context, wanted: tuple[Object, ...]) -> tuple[ChildKey, ...]:
    """Return our children that are not wanted any more."""
    keep = {(child["kind"], child["metadata"]["name"]) for child in wanted}
    return tuple(
        key
        for key, observed in sorted(snapshot.children.items(), key=lambda row: row[0])
        if key not in keep and owner_of(observed) == context.uid and not observed["metadata"].get("deletionTimestamp")
    )


def _annotations(snapshot: Snapshot, context: Context, digests: Mapping[str, str]) -> dict[str, str]:
    """Return the pods to annotate, so that kubelets refresh Secrets at once."""
    hot = reloadable_text(context)
    annotations: dict[str, str] = {}
    for pod in snapshot.pods:
        if pod.deleting or pod.component not in digests:
            continue
        text = json.dumps([digests[pod.component], hot])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        if pod.keys_digest != digest:
            annotations[pod.name] = digest
    return annotations


REQUEUE = timedelta(seconds=4)
"""Period of reconciliations without an event: referenced Secrets are read, not watched."""
DRAINING = timedelta(seconds=1)
"""The period while something drains."""
