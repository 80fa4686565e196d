"""Stage a new release of the operator.

It brings default images, and pod templates as it renders them. One RelayMiner follows after the other with a delay, in
each the relayers before the miners, and the miners one at a time while no claim or proof is due soon. A RelayMiner that
does not finish stops those behind it. Images that a resource names itself are its owner's and are not staged. The only
state are the workloads and an annotation on the StatefulSet, so any replica of the operator can continue.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.sections import section
from pocket_operator.decide.snapshot import ChildKey, Pod, Settings, Snapshot, Turn, UpdateStep
from pocket_operator.decide.workloads import annotation_of, image_of, is_rolling, partition_of, wanted_replicas
from pocket_operator.resources import names
from pocket_operator.resources.context import Images

Object = dict[str, Any]
_NOT_APPLIED = frozenset(
    {
        ConditionReason.INVALID_SPEC,
        ConditionReason.PREFIX_IN_USE,
        ConditionReason.REDIS_SECRET_MISSING,
        ConditionReason.FOREIGN_OBJECT,
        ConditionReason.API_SERVER_REJECTED,
    }
)
"""Reasons with which a RelayMiner's children are not applied: its update could not finish."""


class UpdatePhase(StrEnum):
    """The progress of a RelayMiner's update to the operator's release."""

    NONE = ""
    QUEUED = "Queued"
    AWAITING_APPROVAL = "AwaitingApproval"
    RELAYERS = "Relayers"
    WAITING_FOR_WINDOWS = "WaitingForWindows"
    MINERS = "Miners"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Installed:
    """The workloads of a RelayMiner as observed."""

    relayers: Object | None
    miners: Object | None
    redis: Object | None
    canary: Object | None

    @classmethod
    def of(cls, name: str, children: Mapping[ChildKey, Object]) -> "Installed":
        """Pick the workloads from the children of the RelayMiner `name`."""
        return cls(
            children.get(("Deployment", names.relayer(name))),
            children.get(("StatefulSet", names.miner(name))),
            children.get(("StatefulSet", names.redis(name))),
            children.get(("Deployment", names.canary(name))),
        )

    @property
    def workloads(self) -> tuple[Object, ...]:
        """The workloads that exist, without a canary."""
        return tuple(row for row in (self.relayers, self.miners, self.redis) if row is not None)

    @property
    def target(self) -> str:
        """The update that has started, empty if none has."""
        return annotation_of(self.miners, names.ANNOTATION_UPDATE)


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """The images and pod templates that the children get now.

    With the first ordinal of the miners that gets its own.
    """

    images: Images
    kept: frozenset[str] = frozenset()
    """The components that keep the pod template of another release."""
    partition: int = 0
    phase: UpdatePhase = UpdatePhase.NONE
    target: str = ""
    message: str = ""
    step: str = ""
    """Names what the deadline applies to, empty while the update waits for something else."""

    @property
    def started(self) -> bool:
        """True while the update is under way."""
        return self.phase not in (UpdatePhase.NONE, UpdatePhase.QUEUED, UpdatePhase.AWAITING_APPROVAL)


@dataclass(frozen=True, slots=True)
class UpdateCandidate:
    """A RelayMiner in the queue for updates."""

    key: tuple[str, str]
    started: bool
    may_start: bool


def target_of(settings: Settings) -> str:
    """Return the name of the update to this release, ten hex digits."""
    images = settings.images
    text = "\n".join((images.relayer, images.miner, images.redis, settings.rendering))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _own_image(relay_miner: Mapping[str, Any], part: str) -> bool:
    return bool(section(relay_miner, "spec", part).get("image"))


def _outdated(relay_miner: Mapping[str, Any], installed: Installed, images: Images) -> tuple[bool, bool, bool]:
    """Return which workloads run another default image than `images`.

    They are relayers, miners and trial Redis.
    """
    rows = (
        ("relayer", installed.relayers, images.relayer),
        ("miner", installed.miners, images.miner),
        ("redis", installed.redis, images.redis),
    )
    relayers, miners, redis = (
        observed is not None and not _own_image(relay_miner, part) and image_of(observed) != image
        for part, observed, image in rows
    )
    return relayers, miners, redis


def _approved(relay_miner: Mapping[str, Any], target: str) -> bool:
    supervised = section(relay_miner, "spec").get("updateStrategy") == "supervised"
    return not supervised or annotation_of(relay_miner, names.ANNOTATION_APPROVE_UPDATE) == target


def candidate_of(
    key: tuple[str, str],
    relay_miner: Mapping[str, Any],
    children: Mapping[ChildKey, Object],
    settings: Settings,
    *,
    idle: bool,
) -> UpdateCandidate:
    """Return a RelayMiner's place in the queue.

    `idle`: it is paused and waits for its owner.
    """
    installed = Installed.of(key[1], children)
    status = relay_miner.get("status") or {}
    conditions = status.get("conditions") or ()
    elsewhere = status.get("operator") not in (None, "", settings.namespace)
    stuck = any(row.get("type") in ("Ready", "Stalled") and row.get("reason") in _NOT_APPLIED for row in conditions)
    deleting = bool(relay_miner["metadata"].get("deletionTimestamp"))
    rendered = {annotation_of(row, names.ANNOTATION_RENDERING) for row in installed.workloads}
    outdated = bool(rendered - {settings.rendering}) or any(_outdated(relay_miner, installed, settings.images))
    may_start = (
        outdated and not (idle or stuck or deleting or elsewhere) and _approved(relay_miner, target_of(settings))
    )
    return UpdateCandidate(key, bool(installed.target) and not (deleting or elsewhere), may_start)


def next_turn(
    key: tuple[str, str], candidates: Iterable[UpdateCandidate], quiet_seconds: float, delay_seconds: float
) -> Turn:
    """Return whether the RelayMiner `key` may update now.

    `quiet_seconds` is the time since an update was last under way, or since the operator started.
    """
    rows = sorted(candidates, key=lambda row: row.key)
    started = [row.key for row in rows if row.started]
    if started:
        return Turn(key in started, f"RelayMiner {'/'.join(started[0])} is updated first")
    waiting = [row.key for row in rows if row.may_start]
    if waiting and waiting[0] != key:
        return Turn(False, f"RelayMiner {'/'.join(waiting[0])} is updated first")
    wait = f"each update starts {delay_seconds:g} s after the one before, or after the operator's start"
    return Turn(quiet_seconds >= delay_seconds, wait)


def current_images(snapshot: Snapshot) -> Images:
    """Return the images that the children have now.

    Without a child it is the default one.
    """
    wanted, installed = snapshot.settings.images, Installed.of(snapshot.name, snapshot.children)
    relayers, miners, redis = _outdated(snapshot.relay_miner or {}, installed, wanted)
    return replace(
        wanted,
        relayer=image_of(installed.relayers) if relayers else wanted.relayer,
        miner=image_of(installed.miners) if miners else wanted.miner,
        redis=image_of(installed.redis) if redis else wanted.redis,
    )


def plan_update(snapshot: Snapshot, other_release: Collection[str], deadline_seconds: float) -> UpdatePlan:
    """Return what the children of an existing RelayMiner get now.

    `other_release` has the components with a pod template that another release rendered differently.
    """
    relay_miner, wanted = snapshot.relay_miner or {}, snapshot.settings.images
    installed, target = Installed.of(snapshot.name, snapshot.children), target_of(snapshot.settings)
    relayers, miners, redis = (
        image or component in other_release
        for component, image in zip(
            (names.RELAYER, names.MINER, names.REDIS), _outdated(relay_miner, installed, wanted), strict=True
        )
    )
    held = UpdatePlan(current_images(snapshot), frozenset(other_release), target=target)
    partition = 0 if _own_image(relay_miner, "miner") else partition_of(installed.miners)
    if relay_miner["metadata"].get("deletionTimestamp"):
        return replace(held, partition=partition, target="")
    if not (installed.target or relayers or miners or redis):
        return UpdatePlan(wanted)
    if not _approved(relay_miner, target) and not installed.target:
        command = (
            f"kubectl -n {snapshot.namespace} annotate rm {snapshot.name} {names.ANNOTATION_APPROVE_UPDATE}={target} "
            "--overwrite"
        )
        message = f"spec.updateStrategy is supervised: {command}"
        return replace(held, phase=UpdatePhase.AWAITING_APPROVAL, message=message)
    if not snapshot.turn.granted:
        return replace(held, partition=partition, phase=UpdatePhase.QUEUED, message=snapshot.turn.reason)
    relayed = replace(
        held,
        images=replace(held.images, relayer=wanted.relayer, redis=wanted.redis),
        kept=held.kept - {names.RELAYER, names.REDIS},
        partition=partition,
    )
    if relayers or installed.canary is not None or is_rolling(installed.relayers):
        return _deadline(_relayers_step(relayed, installed), snapshot, deadline_seconds)
    return _deadline(_miners_step(relayed, installed, snapshot, outdated=miners), snapshot, deadline_seconds)


def _relayers_step(plan: UpdatePlan, installed: Installed) -> UpdatePlan:
    if failure := annotation_of(installed.canary, names.ANNOTATION_FAILED):
        return replace(plan, phase=UpdatePhase.FAILED, message=f"the canary of the relayers failed: {failure}")
    return replace(
        plan, phase=UpdatePhase.RELAYERS, step=f"relayers {plan.target}",
        message=f"the relayers change to {plan.images.relayer} and this release's pod template",
    )  # fmt: skip


def _miners_step(relayed: UpdatePlan, installed: Installed, snapshot: Snapshot, *, outdated: bool) -> UpdatePlan:
    """Return the plan once the relayers are done.

    The next miner starts when the last one is ready.
    """
    images, miners = replace(relayed.images, miner=snapshot.settings.images.miner), installed.miners
    updated_plan = replace(relayed, images=images, kept=frozenset())
    number, partition, target = wanted_replicas(miners), relayed.partition, relayed.target
    if not outdated:
        status = (miners or {}).get("status") or {}
        behind = int(status.get("observedGeneration") or 0) < int((miners or {})["metadata"].get("generation") or 0)
        updated = int(status.get("updatedReplicas") or 0) >= number - partition
        if behind or not updated or int(status.get("readyReplicas") or 0) < number:
            pod = f"{names.miner(snapshot.name)}-{partition}"
            message = f"{pod} changes to {images.miner}, {number - partition} of {number} miners"
            return replace(updated_plan, phase=UpdatePhase.MINERS, message=message, step=f"{pod} {target}")
        if partition == 0:
            return UpdatePlan(images)
    following = max(0, (number if outdated else partition) - 1)
    if waiting := _due_soon(snapshot.steady_pods, snapshot.steady_reports):
        held = relayed if outdated else updated_plan
        return replace(held, phase=UpdatePhase.WAITING_FOR_WINDOWS, message=waiting)
    pod = f"{names.miner(snapshot.name)}-{following}"
    message = f"{pod} changes to {images.miner}, {number - following} of {number} miners"
    return replace(updated_plan, partition=following, phase=UpdatePhase.MINERS, message=message, step=f"{pod} {target}")


def _due_soon(pods: Iterable[Pod], reports: Iterable[Report]) -> str:
    """Return why no miner may restart now, empty if one may.

    A ready miner without a report is no evidence.
    """
    by_pod = {report.pod: report for report in reports}
    for pod in pods:
        if pod.component == names.MINER and pod.ready and not pod.deleting and pod.name not in by_pod:
            return f"{pod.name} has not reported which claims and proofs are due"
    for report in by_pod.values():
        for address, row in sorted(report.answer.suppliers.items()):
            if row.closing and report.owns(address):
                return f"{address} owes {row.closing} claims or proofs in the last third of their windows"
    return ""


def _deadline(plan: UpdatePlan, snapshot: Snapshot, seconds: float) -> UpdatePlan:
    """Mark a step that takes longer than the deadline as failed. It may still finish."""
    step: UpdateStep = snapshot.update_step
    if not plan.step or step.name != plan.step or snapshot.clock - step.since < seconds:
        return plan
    return replace(plan, phase=UpdatePhase.FAILED, message=f"not ready within {seconds:g} s: {plan.message}")
