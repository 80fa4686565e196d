"""What one reconciliation does: a pure function of the snapshot."""

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
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket_operator.decide.draining import DrainStatus, drain_of, drains_without_supplier, forced, is_held, overdue
from pocket_operator.decide.drift import drifted, stamped
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.rollout import RolloutState, plan_rollout
from pocket_operator.decide.snapshot import ChildKey, Snapshot
from pocket_operator.decide.supplier_keys import KeyCheck, examine
from pocket_operator.resources import desired, names
from pocket_operator.resources.config import hot_text
from pocket_operator.resources.context import Context, PublishedSupplier
from pocket_operator.resources.relayer import revision
from pocket_operator.resources.revision import Revision, RolloutPlan

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FinalizerChange:
    """Our finalizer on a Supplier or RelayMiner."""

    kind: str
    name: str
    wanted: bool


@dataclass(frozen=True, slots=True)
class BlockingProblem:
    """Why the whole RelayMiner cannot be brought about."""

    reason: ConditionReason
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in order: finalizers that protect, applies, deletes, pod annotations, finalizers that let go."""

    context: Context | None
    findings: tuple[KeyCheck, ...]
    drains: Mapping[str, DrainStatus]
    trouble: BlockingProblem | None = None
    protect: tuple[FinalizerChange, ...] = ()
    withdraw: tuple[str, ...] = ()
    """Addresses to take out of the relayers' published keys while the children cannot be brought about as a whole."""
    wanted: tuple[Object, ...] = field(default=(), repr=False)
    """All children, stamped; the executor applies those that drifted."""
    delete: tuple[ChildKey, ...] = ()
    annotate: Mapping[str, str] = field(default_factory=dict)
    """Pod name → digest of what it should have loaded."""
    release: tuple[FinalizerChange, ...] = ()
    paused: bool = False
    unknown: tuple[str, ...] = ()
    """Fields of the RelayMiner that this release does not know; everything else is brought about."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Component → digest of the public keys that its pods should report."""

    @property
    def rollout(self) -> RolloutPlan | None:
        """Which revisions of the relayers run; None where nothing is to be brought about."""
        return self.context.rollout if self.context is not None else None


@lru_cache(maxsize=8192)
def _public_key(key_hex: str) -> bytes:
    return PrivateKey.from_hex(key_hex).public_key


def key_digest(keys: list[str]) -> str:
    """As the workloads compute it; empty for no keys."""
    if not keys:
        return ""
    return hashlib.sha256(b"".join(sorted(_public_key(key) for key in keys))).hexdigest()


def is_paused(relay_miner: Mapping[str, Any]) -> bool:
    """By spec.paused or by the annotation."""
    annotations = relay_miner["metadata"].get("annotations") or {}
    return bool((relay_miner.get("spec") or {}).get("paused")) or annotations.get(names.ANNOTATION_RECONCILE) == (
        "disabled"
    )


def _deadline(relay_miner: Mapping[str, Any] | None) -> float:
    """Seconds; the default where the resource does not tell."""
    deletion = ((relay_miner or {}).get("spec") or {}).get("deletion")
    try:
        return float(Deletion.model_validate(deletion or {}).drain_deadline_seconds)
    except ValidationError:
        return float(Deletion().drain_deadline_seconds)


def plan(snapshot: Snapshot) -> Plan:
    """Everything to do for one RelayMiner and the Suppliers that name it."""
    findings = tuple(examine(supplier, snapshot) for supplier in snapshot.suppliers)
    if snapshot.relay_miner is None:
        return Plan(None, findings, {}, release=_let_go(findings))
    deleting = bool(snapshot.relay_miner["metadata"].get("deletionTimestamp"))
    drains = _drains(snapshot, findings, deleting=deleting)
    try:
        resource = {k: v for k, v in snapshot.relay_miner.items() if k != "status"}
        parsed, unknown = read_known(RelayMiner, resource)
    except ValidationError as error:
        invalid = BlockingProblem(ConditionReason.INVALID_SPEC, problem_of(error))
        return _in_trouble(snapshot, findings, drains, invalid)
    if is_paused(snapshot.relay_miner):
        release = _forced_away(snapshot, findings)
        return Plan(None, findings, drains, paused=True, release=release, unknown=unknown)
    redis_digest, trouble = _redis(parsed, snapshot)
    if trouble is not None and not deleting:
        return replace(_in_trouble(snapshot, findings, drains, trouble), unknown=unknown)
    context = _context(snapshot, parsed, findings, drains, redis_digest=redis_digest, deleting=deleting)
    if not deleting:
        context = replace(context, rollout=_rollout(snapshot, context))
    wanted = tuple(stamped(child) for child in desired(context))
    digests = {
        names.RELAYER: key_digest([s.key_hex for s in context.suppliers if not s.draining]),
        names.MINER: key_digest([s.key_hex for s in context.suppliers]),
    }
    return Plan(
        context=context,
        findings=findings,
        drains=drains,
        protect=_protected(snapshot, context, findings, deleting=deleting),
        wanted=wanted,
        delete=_surplus(snapshot, context, wanted),
        annotate=_annotations(snapshot, context, digests),
        release=_release(snapshot, findings, drains),
        unknown=unknown,
        digests=digests,
    )


def _in_trouble(
    snapshot: Snapshot, findings: tuple[KeyCheck, ...], drains: Mapping[str, DrainStatus], trouble: BlockingProblem
) -> Plan:
    """What goes on while the children stay as they are: who is deleted is refused, drains and goes."""
    whole = snapshot.relay_miner or {}
    withdraw: tuple[str, ...] = ()
    if not is_paused(whole):
        release = _release(snapshot, findings, drains)
        goes = bool(whole["metadata"].get("deletionTimestamp"))
        staying = {f.address for f in findings if not (goes or f.deleting)}
        keys = snapshot.children.get(("Secret", names.keys(snapshot.name, names.RELAYER))) or {}
        withdraw = tuple(sorted(set(keys.get("data") or {}) - staying))
    else:
        release = _forced_away(snapshot, findings)
    return Plan(None, findings, drains, trouble, withdraw=withdraw, release=release)


def _release(
    snapshot: Snapshot, findings: tuple[KeyCheck, ...], drains: Mapping[str, DrainStatus]
) -> tuple[FinalizerChange, ...]:
    """Finalizers that let go."""
    whole = snapshot.relay_miner or {}
    if whole["metadata"].get("deletionTimestamp") and is_held(whole) and _relay_miner_drained(snapshot, drains):
        return _all_of_it(snapshot, findings)
    return _let_go(findings, lambda f: _done(drains, f.address) or _mined_for_another(f, findings))


def _mined_for_another(finding: KeyCheck, findings: tuple[KeyCheck, ...]) -> bool:
    """Whether an older Supplier of this RelayMiner has the address, so that its sessions are mined on."""
    return finding.reason is ConditionReason.KEY_IN_USE and any(
        other.address == finding.address and other.reason is not ConditionReason.KEY_IN_USE for other in findings
    )


def drifted_children(plan_: Plan, children: Mapping[ChildKey, Object]) -> list[Object]:
    """Children to apply."""
    return [w for w in plan_.wanted if drifted(w, children.get((w["kind"], w["metadata"]["name"])))]


def _drains(snapshot: Snapshot, findings: tuple[KeyCheck, ...], *, deleting: bool) -> dict[str, DrainStatus]:
    """By address, of the suppliers that should go.

    A Supplier that may not use its address has nothing to drain, unless its key was published before an older one came.
    """
    drains: dict[str, DrainStatus] = {}
    deadline = _deadline(snapshot.relay_miner)
    whole = snapshot.relay_miner if deleting else None
    for finding in findings:
        outdone = finding.reason is ConditionReason.KEY_IN_USE
        if not (finding.deleting or deleting or outdone):
            continue
        if outdone and (not finding.held or _mined_for_another(finding, findings)):
            continue
        drain = drain_of(finding.address, finding.supplier, snapshot)
        subjects = [s for s in (finding.supplier if finding.deleting else None, whole) if s is not None]
        if any(forced(subject) for subject in subjects):
            drain = DrainStatus(True, drain.since, "forced by annotation")
        elif any(overdue(subject, snapshot.now, deadline) for subject in subjects):
            drain = DrainStatus(True, drain.since, "the deadline passed")
        drains[finding.address] = drain
    if whole is not None and not forced(whole) and not overdue(whole, snapshot.now, deadline):
        drains |= drains_without_supplier({finding.address for finding in findings}, snapshot)
    return drains


def _let_go(
    findings: tuple[KeyCheck, ...], may: Callable[[KeyCheck], bool] = lambda finding: True
) -> tuple[FinalizerChange, ...]:
    """Off the deleted Suppliers, where they may go."""
    going = (f for f in findings if (f.deleting or f.reason is ConditionReason.KEY_IN_USE) and f.held and may(f))
    return tuple(FinalizerChange("Supplier", f.name, wanted=False) for f in going)


def _all_of_it(snapshot: Snapshot, findings: tuple[KeyCheck, ...]) -> tuple[FinalizerChange, ...]:
    """The RelayMiner goes; its Suppliers need no miner any more, so those that are deleted go with it."""
    return (*_let_go(findings), FinalizerChange("RelayMiner", snapshot.name, wanted=False))


def _forced_away(snapshot: Snapshot, findings: tuple[KeyCheck, ...]) -> tuple[FinalizerChange, ...]:
    """What goes by the annotation alone: somebody who insists need neither resume nor correct the RelayMiner before."""
    whole = snapshot.relay_miner
    if whole is not None and whole["metadata"].get("deletionTimestamp") and is_held(whole) and forced(whole):
        return _all_of_it(snapshot, findings)
    return _let_go(findings, lambda finding: finding.deleting and forced(finding.supplier))


def _done(drains: Mapping[str, DrainStatus], address: str) -> bool:
    drain = drains.get(address)
    return drain is not None and drain.done


def _relay_miner_drained(snapshot: Snapshot, drains: Mapping[str, DrainStatus]) -> bool:
    whole = snapshot.relay_miner
    if whole is None or forced(whole) or overdue(whole, snapshot.now, _deadline(whole)):
        return True
    return all(drain.done for drain in drains.values())


def _redis(parsed: RelayMiner, snapshot: Snapshot) -> tuple[str, BlockingProblem | None]:
    """A digest that changes with the URL in the Secret, and with nothing else: it rolls the pods."""
    reference = parsed.spec.redis.url_secret_ref
    if reference is None:
        return "", None
    secret = snapshot.secrets.get(reference.name)
    if secret is None:
        return "", BlockingProblem(
            ConditionReason.REDIS_SECRET_MISSING,
            f"Secret {reference.name}, named by spec.redis.urlSecretRef, does not exist. Create it.",
        )
    url = secret.entries.get(reference.key)
    if not url:
        return "", BlockingProblem(
            ConditionReason.REDIS_SECRET_MISSING,
            f"Secret {reference.name} has no entry {reference.key}. Correct spec.redis.urlSecretRef.key or the Secret.",
        )
    uid = str((snapshot.relay_miner or {})["metadata"]["uid"])
    return _url_digest(url, uid), None


@lru_cache(maxsize=1024)
def _url_digest(url: str, uid: str) -> str:
    """Return 16 hex digits. It is slow, so that nobody guesses the URL from it."""
    return hashlib.scrypt(url.encode(), salt=uid.encode(), n=2**14, r=8, p=1, dklen=8).hex()


def _context(
    snapshot: Snapshot,
    parsed: RelayMiner,
    findings: tuple[KeyCheck, ...],
    drains: Mapping[str, DrainStatus],
    *,
    redis_digest: str,
    deleting: bool,
) -> Context:
    metadata = (snapshot.relay_miner or {})["metadata"]
    suppliers = tuple(
        PublishedSupplier(
            address=finding.address,
            services=finding.services or (),
            key_hex=finding.key_hex,
            draining=deleting or _leaves(finding) or finding.services is None,
        )
        for finding in sorted(_one_each(findings), key=lambda f: f.address)
        if finding.key_hex is not None and not (_leaves(finding) and _done(drains, finding.address))
    )
    labels = metadata.get("labels") or {}
    return Context(
        relay_miner=parsed,
        uid=metadata["uid"],
        images=snapshot.settings.images,
        operator_namespace=snapshot.settings.namespace,
        suppliers=suppliers,
        redis_digest=redis_digest,
        restarted_at=(metadata.get("annotations") or {}).get(names.ANNOTATION_RESTARTED, ""),
        capabilities=snapshot.capabilities,
        inherited={key: labels[key] for key in sorted(labels) if key in names.INHERITED_LABELS},
        deleting=deleting,
        keeper_uid=snapshot.keeper_uid,
    )


def _leaves(finding: KeyCheck) -> bool:
    return finding.deleting or finding.reason is ConditionReason.KEY_IN_USE


def _one_each(findings: tuple[KeyCheck, ...]) -> list[KeyCheck]:
    """One Supplier for each address: the rightful one where there is one."""
    ordered = sorted(findings, key=lambda f: f.reason is not ConditionReason.KEY_IN_USE)
    return list({finding.address: finding for finding in ordered}.values())


def _rollout(snapshot: Snapshot, context: Context) -> RolloutPlan:
    """How far a new revision of the relayers is."""
    chosen = context.relay_miner.spec.relayer
    annotations = (snapshot.relay_miner or {})["metadata"].get("annotations") or {}
    deployment = snapshot.children.get(("Deployment", names.relayer(context.name)))
    sight = RolloutState(
        now=snapshot.now,
        steady_exists=deployment is not None and chosen.replicas != 0,
        kept=Revision.kept(snapshot.children.get(("ConfigMap", names.revision(context.name)))),
        canary=snapshot.children.get(("Deployment", names.canary(context.name))),
        pods=[pod for pod in snapshot.pods if pod.revision],
        reports=snapshot.reports,
        promoted=annotations.get(names.ANNOTATION_PROMOTE, ""),
    )
    return plan_rollout(revision(context), chosen.rollout, sight)


def _protected(
    snapshot: Snapshot, context: Context, findings: tuple[KeyCheck, ...], *, deleting: bool
) -> tuple[FinalizerChange, ...]:
    """Finalizers before a key is published: from then on there may be something to claim."""
    published = {supplier.address for supplier in context.suppliers}
    changes = [
        FinalizerChange("Supplier", f.name, wanted=True)
        for f in findings
        if f.key_hex is not None and f.address in published and not _leaves(f) and not f.held
    ]
    if published and not deleting and not is_held(snapshot.relay_miner or {"metadata": {}}):
        changes.append(FinalizerChange("RelayMiner", snapshot.name, wanted=True))
    return tuple(changes)


def owner_of(observed: Mapping[str, Any]) -> str | None:
    """The uid of the controller, None for an orphan."""
    for reference in observed["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return str(reference["uid"])
    return None


def _surplus(snapshot: Snapshot, context: Context, wanted: tuple[Object, ...]) -> tuple[ChildKey, ...]:
    """Children of ours that are not wanted any more."""
    keep = {(child["kind"], child["metadata"]["name"]) for child in wanted}
    return tuple(
        key
        for key, observed in sorted(snapshot.children.items(), key=lambda row: row[0])
        if key not in keep and owner_of(observed) == context.uid and not observed["metadata"].get("deletionTimestamp")
    )


def _annotations(snapshot: Snapshot, context: Context, digests: Mapping[str, str]) -> dict[str, str]:
    """A changed annotation makes the kubelet look at the mounted Secret and ConfigMap at once."""
    hot = hot_text(context)
    found: dict[str, str] = {}
    for pod in snapshot.pods:
        if pod.deleting or pod.component not in digests:
            continue
        text = json.dumps([digests[pod.component], hot])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        if pod.keys_digest != digest:
            found[pod.name] = digest
    return found


REQUEUE = timedelta(seconds=4)
"""How often a RelayMiner is looked at without any event: referenced Secrets are read, not watched."""
DRAINING = timedelta(seconds=1)
"""The same while something drains."""
