"""Compute the status of a RelayMiner."""

from typing import Any, Final

from pocket.api.problems import ChainFinding, ProblemCode
from pocket.api.status import (
    ConditionType,
    ConsoleStatus,
    KeySetStatus,
    RelayMinerStatus,
    RolloutStatus,
    UpdateStatus,
    Workload,
)
from pocket_operator.decide.audit_heads import audit_condition, audit_heads, published_heads
from pocket_operator.decide.conditions import ConditionSpec, conditions, few, schema_condition, true_if
from pocket_operator.decide.plan import Plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.reasons import STALLING, ConditionReason
from pocket_operator.decide.redis_condition import durability, redis_condition
from pocket_operator.decide.sections import section
from pocket_operator.decide.served import (
    NO_CHAIN,
    long_unserved,
    not_loaded,
    served_condition,
    served_suppliers,
    was_ready,
)
from pocket_operator.decide.snapshot import LONGEST_PROBLEM, Snapshot
from pocket_operator.decide.update import UpdatePhase
from pocket_operator.decide.volume_claims import declared_size, volume_growth
from pocket_operator.decide.workloads import is_rolling, serves
from pocket_operator.resources import names

Object = dict[str, Any]
_UNSERVED = frozenset({ConditionReason.LOADING_KEYS, ConditionReason.SUPPLIERS_NOT_SERVED})
_ON_ITS_WAY = frozenset({ProblemCode.STARTING, ProblemCode.DRAINING, ProblemCode.WORKER_MISSING})


def relay_miner_status(snapshot: Snapshot, plan: Plan) -> RelayMinerStatus:
    """Return the status of the RelayMiner, which must exist."""
    relay_miner = snapshot.relay_miner or {}
    deployment = snapshot.children.get(("Deployment", names.relayer(snapshot.name)))
    stateful = snapshot.children.get(("StatefulSet", names.miner(snapshot.name)))
    relayers = _workload(deployment, names.selector(snapshot.name, names.RELAYER))
    miners = _workload(stateful, names.selector(snapshot.name, names.MINER))
    reports = list(snapshot.steady_reports)
    expected = snapshot.expected_pods
    loaded = sum(r.answer.keys == plan.digests.get(r.component, "") for r in snapshot.lasting_reports)
    keys = _keys(snapshot, plan, loading=loaded < expected)
    redis, chain = redis_condition(reports, durability(snapshot)), _chain(reports)
    claims = _claims(reports)
    pods = _pod_problem(snapshot, (deployment, stateful), loading=loaded < expected)
    problem = _problem(snapshot, plan, keys, redis, chain, pods)
    overdue = _overdue(snapshot, plan, problem, (relayers, miners))
    rolling = problem is None and (is_rolling(deployment) or is_rolling(stateful))
    serving = serves(deployment) and serves(stateful)
    served = served_suppliers(snapshot, plan)
    serves_all = served_condition(snapshot, served, keys)
    heads, cut = audit_heads(published_heads(relay_miner.get("status") or {}), snapshot.reports)
    specs = [
        *_summary(snapshot, plan, problem, serves_all, rolling=rolling, serving=serving, overdue=overdue),
        keys,
        serves_all,
        redis,
        _volumes(reports, volume_growth(snapshot.claims, declared_size(relay_miner))),
        chain,
        claims,
        schema_condition(
            "RelayMiner",
            snapshot.schemas,
            plan.unknown,
            invalid=plan.blocked_by is not None and plan.blocked_by.reason is ConditionReason.INVALID_SPEC,
        ),
        _up_to_date(plan),
        audit_condition(cut, reported=bool(heads)),
    ]
    generation = int(relay_miner["metadata"].get("generation") or 0)
    before = (relay_miner.get("status") or {}).get("conditions") or ()
    container = _container(deployment)
    port = section(relay_miner, "spec", "relayer", "service").get("port", 80)
    return RelayMinerStatus(
        observed_generation=generation,
        conditions=conditions(specs, before, generation, snapshot.now),
        relayers=relayers,
        miners=miners,
        rollout=_rollout(plan),
        update=_update(plan),
        suppliers=len(snapshot.suppliers),
        served=f"{len(served.served)}/{served.declared}",
        keys=KeySetStatus(
            published=len([s for s in plan.context.suppliers if not s.draining]) if plan.context else 0,
            digest=plan.digests.get(names.RELAYER, ""),
            loaded_by=f"{loaded}/{expected}",
        ),
        height=max((r.answer.height for r in reports), default=0),
        operator=snapshot.settings.namespace,
        version=str(container.get("image", "")),
        endpoint=f"http://{names.relayer(snapshot.name)}.{snapshot.namespace}.svc:{port}",
        console=_console(snapshot, plan),
        audit=heads,
    )


def _console(snapshot: Snapshot, plan: Plan) -> ConsoleStatus | None:
    """Return the state of the console, None without one."""
    if plan.context is None or plan.context.relay_miner.spec.console is None or plan.context.deleting:
        return None
    name = names.console(snapshot.name)
    deployment = snapshot.children.get(("Deployment", name))
    pods = (pod for pod in snapshot.pods if pod.component == names.CONSOLE and not pod.deleting)
    problem = _failed_create(snapshot, (deployment,)) or next((pod.problem for pod in pods if pod.problem), "")
    port = plan.context.relay_miner.spec.console.port
    ready, endpoint = serves(deployment), f"http://{name}.{snapshot.namespace}.svc:{port}"
    return ConsoleStatus(ready=ready, endpoint=endpoint, problem="" if ready else problem)


def _rollout(plan: Plan) -> RolloutStatus:
    rollout = plan.rollout
    if rollout is None or rollout.canary is None:
        return RolloutStatus(revision=rollout.steady.name if rollout is not None else "")
    return RolloutStatus(phase="Failed" if rollout.failed else "Observing", revision=rollout.canary.name)


def _overdue(
    snapshot: Snapshot, plan: Plan, problem: tuple[ConditionReason, str] | None, workloads: tuple[Workload, Workload]
) -> str:
    """Return why the rollout has failed by its deadline, empty if it has not."""
    if plan.context is None or plan.context.deleting or snapshot.rolling_since is None or not snapshot.suppliers:
        return ""  # without Suppliers no relayer is ready, and nothing is late
    seconds = plan.context.relay_miner.spec.progress_deadline_seconds
    if snapshot.clock - snapshot.rolling_since < seconds:
        return ""
    relayers, miners = (workload.summary or "no" for workload in workloads)
    cause = f" {problem[1]}" if problem is not None else " Check the pods' events and logs."
    return f"Not all pods became ready within {seconds} s: {relayers} relayers and {miners} miners are.{cause}"


def _update(plan: Plan) -> UpdateStatus:
    update = plan.update
    if update is None:
        return UpdateStatus()
    return UpdateStatus(phase=update.phase.value, target=update.target, message=update.message)


def _up_to_date(plan: Plan) -> ConditionSpec:
    kind, update = ConditionType.UP_TO_DATE, plan.update
    if update is None:
        return ConditionSpec(kind, "Unknown", ConditionReason.NO_REPORT, "Unknown while the children are not applied.")
    if update.phase is UpdatePhase.NONE:
        message = "The pods have this release's templates and images, or the images that the resource names."
        return ConditionSpec(kind, "True", ConditionReason.UP_TO_DATE, message)
    reason = {
        UpdatePhase.QUEUED: ConditionReason.UPDATE_QUEUED,
        UpdatePhase.AWAITING_APPROVAL: ConditionReason.AWAITING_APPROVAL,
        UpdatePhase.FAILED: ConditionReason.UPDATE_FAILED,
    }.get(update.phase, ConditionReason.UPDATING)
    return ConditionSpec(kind, "False", reason, f"Update {update.target}: {update.message}")


def _container(deployment: Object | None) -> Object:
    if deployment is None:
        return {}
    container: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


def _workload(observed: Object | None, selector: dict[str, str]) -> Workload:
    text = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    if observed is None:
        return Workload(selector=text)
    status = observed.get("status") or {}
    ready, wanted = int(status.get("readyReplicas") or 0), int((observed.get("spec") or {}).get("replicas") or 0)
    return Workload(replicas=int(status.get("replicas") or 0), ready=ready, summary=f"{ready}/{wanted}", selector=text)


def _keys(snapshot: Snapshot, plan: Plan, *, loading: bool) -> ConditionSpec:
    kind = ConditionType.KEYS_LOADED
    waiting = [f for f in plan.key_checks if not f.good and not f.deleting]
    if not snapshot.suppliers:
        return ConditionSpec(
            kind, "False", ConditionReason.NO_SUPPLIERS, "No Supplier names this RelayMiner. Create one."
        )
    if plan.context is None:
        return ConditionSpec(kind, "Unknown", ConditionReason.NO_REPORT, "Keys are not published at the moment.")
    if waiting:
        named = few([f"{check.name} ({check.reason})" for check in waiting])
        return ConditionSpec(
            kind, "False", ConditionReason.SUPPLIERS_NOT_READY, f"Not all Suppliers have a usable key: {named}."
        )
    if loading:
        return ConditionSpec(kind, "False", *not_loaded("The key set", snapshot))
    return ConditionSpec(kind, "True", ConditionReason.LOADED, "All relayers and miners have the published keys.")


_UNUSABLE: Final = {
    ProblemCode.VOLUME_READ_ONLY.value: ConditionReason.VOLUME_READ_ONLY,
    ProblemCode.VOLUME_HANGS.value: ConditionReason.VOLUME_HANGS,
}
"""Problems of a volume that cannot be used → reasons."""


def _volumes(reports: list[Report], growth: ConditionSpec | None) -> ConditionSpec:
    kind = ConditionType.VOLUMES_HEALTHY
    miners = [r for r in reports if r.component == names.MINER]
    if not miners:
        return ConditionSpec(kind, "Unknown", ConditionReason.NO_REPORT, "No miner has reported.")
    for report in miners:
        for problem in report.answer.problems:
            if problem.code in _UNUSABLE:
                return ConditionSpec(kind, "False", _UNUSABLE[problem.code], f"{report.pod}: {problem}")
    filling = [f"{r.pod}: {r.answer.volume}." for r in miners if r.answer.volume]
    if filling:
        return ConditionSpec(kind, "False", ConditionReason.VOLUME_FILLING, few(sorted(filling), " "))
    if growth is not None:
        return growth
    return ConditionSpec(kind, "True", ConditionReason.VOLUMES_FINE, "The miners' volumes take writes and have space.")


_FINDINGS: Final = {
    ChainFinding.GAS_PRICE_TOO_LOW: ConditionReason.GAS_PRICE_TOO_LOW,
    ChainFinding.CLOCK_SKEWED: ConditionReason.CLOCK_SKEWED,
    ChainFinding.CHAIN_NODES_DISAGREE: ConditionReason.CHAIN_NODES_DISAGREE,
}
"""Reasons of the findings of miners, the most severe first."""


def _chain(reports: list[Report]) -> ConditionSpec:
    kind = ConditionType.CHAIN_REACHABLE
    if not reports:
        return ConditionSpec(kind, "Unknown", ConditionReason.NO_REPORT, "No pod has reported.")
    stale = [r.pod for r in reports if any(problem.code in NO_CHAIN for problem in r.answer.problems)]
    if stale:
        return ConditionSpec(
            kind,
            "False",
            ConditionReason.CHAIN_UNREACHABLE,
            f"{few(sorted(stale))}: no new block for too long. Check spec.chain.nodes and the nodes.",
        )
    for finding, reason in _FINDINGS.items():
        texts = sorted({row.text for r in reports for row in r.answer.chain if row.reason == finding.value})
        if texts:
            # With too low a gas price every claim is rejected. The other findings are only warnings.
            fine = true_if(finding is not ChainFinding.GAS_PRICE_TOO_LOW)
            return ConditionSpec(kind, fine, reason, f"Blocks arrive. {few(texts, ' ')}")
    return ConditionSpec(kind, "True", ConditionReason.REACHABLE, "Blocks arrive.")


def _claims(reports: list[Report]) -> ConditionSpec:
    kind = ConditionType.CLAIMS_HEALTHY
    owners = [r for r in reports if r.component == names.MINER and r.answer.owned]
    if not owners:
        return ConditionSpec(kind, "Unknown", ConditionReason.NO_REPORT, "No miner has reported that it mines.")
    losing = sorted(a for r in owners for a, row in r.answer.suppliers.items() if r.owns(a) and row.lost_recently)
    if losing:
        message = f"Suppliers lost their last session: {few(losing)}. See theirs."
        return ConditionSpec(kind, "False", ConditionReason.SESSION_LOST, message)
    return ConditionSpec(kind, "True", ConditionReason.CLAIMS_HEALTHY, "No supplier lost its last session.")


def _problem(
    snapshot: Snapshot, plan: Plan, keys: ConditionSpec, redis: ConditionSpec, chain: ConditionSpec, pods: str
) -> tuple[ConditionReason, str] | None:
    """Return what prevents readiness, causes first. None in ordinary transitions."""
    if plan.blocked_by is not None:
        return plan.blocked_by.reason, plan.blocked_by.message + _deletion_waits(
            snapshot.relay_miner or {}, "valid again"
        )
    for (kind, name), rejection in sorted(snapshot.rejections.items(), key=lambda row: row[0]):
        reason = ConditionReason.FOREIGN_OBJECT if rejection.foreign else ConditionReason.API_SERVER_REJECTED
        return reason, f"{kind} {name}: {rejection.message}"
    if (refusal := snapshot.unreleased.get(("RelayMiner", snapshot.name))) is not None:
        return ConditionReason.API_SERVER_REJECTED, f"Its finalizer cannot be removed: {refusal}"
    for fact in (redis, chain):
        if fact.state == "False":
            return fact.reason, fact.message
    if keys.reason is ConditionReason.NO_SUPPLIERS:
        return keys.reason, keys.message
    if pods:
        return ConditionReason.PODS_NOT_READY, pods
    if keys.reason is ConditionReason.SUPPLIERS_NOT_READY and not (plan.context is not None and plan.context.deleting):
        return keys.reason, keys.message
    return _canary_problem(snapshot, plan)


def _canary_problem(snapshot: Snapshot, plan: Plan) -> tuple[ConditionReason, str] | None:
    rollout = plan.rollout
    if rollout is None or rollout.canary is None or not rollout.failed:
        return None
    revision = rollout.canary.name
    return ConditionReason.CANARY_FAILED, (
        f"The canary of revision {revision} failed: {rollout.failed}. The other relayers stay as they are. "
        "Correct or revert the change, or let it through: "
        f"kubectl -n {snapshot.namespace} annotate rm {snapshot.name} {names.ANNOTATION_PROMOTE}={revision}"
    )


def _pod_problem(snapshot: Snapshot, workloads: tuple[Object | None, ...], *, loading: bool) -> str:
    """Return why pods cannot be created, cannot start or are not ready.

    A pod with a hung worker counts though it may be ready: its workers share a port, so probes reach another one.
    """
    if failure := _failed_create(snapshot, workloads):
        return failure
    unready = {pod.name: pod for pod in snapshot.steady_pods if not pod.ready and not pod.deleting}
    for pod in unready.values():
        if pod.problem and pod.component != names.CONSOLE:
            return f"Pod {pod.name}: {pod.problem}"
    for report in snapshot.steady_reports:
        for problem in report.answer.problems:
            if problem.code == ProblemCode.WORKER_HUNG:
                return f"Pod {report.pod}: {problem}"
    if loading:
        return ""
    for report in snapshot.steady_reports:
        problems = [problem for problem in report.answer.problems if problem.code not in _ON_ITS_WAY]
        if report.pod in unready and problems:
            return f"Pod {report.pod}: {problems[0]}"
    return ""


def _failed_create(snapshot: Snapshot, workloads: tuple[Object | None, ...]) -> str:
    """Return why pods cannot be created, by a condition or by Events."""
    for (kind, name), message in sorted(snapshot.failed_creates.items()):
        return f"Pods of {kind} {name} cannot be created: {message}"[:LONGEST_PROBLEM]
    for workload in workloads:
        for row in ((workload or {}).get("status") or {}).get("conditions") or ():
            if row.get("type") == "ReplicaFailure" and row.get("status") == "True":
                return str(row.get("message", ""))[:LONGEST_PROBLEM]
    return ""


def _deletion_waits(relay_miner: Object, until: str) -> str:
    """Return what the deletion waits for, and the remedy. Empty for one that stays."""
    if not relay_miner.get("metadata", {}).get("deletionTimestamp"):
        return ""
    return (
        f" It is being deleted, which goes on once it is {until}. {names.ANNOTATION_FORCE_DELETE}=true deletes it at "
        "once, with all claims and proofs that are open."
    )


def _going_on(plan: Plan, *, deleting: bool, rolling: bool, overdue: str) -> tuple[ConditionReason, str] | None:
    """Return what is being brought about, None if nothing is."""
    if deleting:
        left = sum(not drain.done for drain in plan.drains.values())
        return ConditionReason.DRAINING, f"Being deleted: {left} suppliers still have claims or proofs to finish."
    if (rollout := plan.rollout) is not None and rollout.canary is not None and rollout.message:
        text = f"A canary tries revision {rollout.canary.name}: {rollout.message}."
        return ConditionReason.OBSERVING_CANARY, text
    if rolling and overdue:
        return ConditionReason.PROGRESS_DEADLINE_EXCEEDED, overdue
    return (ConditionReason.ROLLING_OUT, "Pods are being started or replaced.") if rolling else None


def _summary(
    snapshot: Snapshot,
    plan: Plan,
    problem: tuple[ConditionReason, str] | None,
    serves_all: ConditionSpec,
    *,
    rolling: bool,
    serving: bool,
    overdue: str,
) -> list[ConditionSpec]:
    relay_miner = snapshot.relay_miner or {}
    deleting = bool(relay_miner["metadata"].get("deletionTimestamp"))
    stalled = problem if problem is not None and problem[0] in STALLING else None
    if stalled is None and overdue:
        stalled = (ConditionReason.PROGRESS_DEADLINE_EXCEEDED, overdue)
    ready = ConditionSpec(ConditionType.READY, "True", ConditionReason.READY, "Relays are served and mined.")
    going_on = _going_on(plan, deleting=deleting, rolling=rolling, overdue=overdue)
    late = serves_all.reason is ConditionReason.SUPPLIERS_NOT_SERVED and long_unserved(snapshot)
    starting = not was_ready(snapshot) and serves_all.reason in _UNSERVED
    if starting and not late and going_on is None and problem is None:
        going_on = (ConditionReason.LOADING_KEYS, serves_all.message)
    if plan.paused:
        problems = "Paused: the operator leaves everything as it is." + _deletion_waits(relay_miner, "no longer paused")
        ready = ConditionSpec(ConditionType.READY, "Unknown", ConditionReason.PAUSED, problems)
        going_on = None
    elif problem is not None and problem[0] is not ConditionReason.CANARY_FAILED:
        ready = ConditionSpec(ConditionType.READY, "False", *problem)
    elif late and (serving or going_on is None):
        ready = ConditionSpec(ConditionType.READY, "False", serves_all.reason, serves_all.message)
    elif going_on is not None and not starting and going_on[0] is not ConditionReason.DRAINING and serving:
        pass  # enough pods serve, some of them of another revision
    elif going_on is not None:
        ready = ConditionSpec(ConditionType.READY, "False", *going_on)
    return [
        ready,
        ConditionSpec(
            ConditionType.RECONCILING,
            # Never both Reconciling and Stalled: kstatus would see the first of them only. A deletion goes on.
            true_if(going_on is not None and (deleting or stalled is None)),
            *(going_on or (ConditionReason.NOT_RECONCILING, "")),
        ),
        ConditionSpec(
            ConditionType.STALLED,
            true_if(stalled is not None),
            *(stalled or (ConditionReason.NOT_STALLED, "")),
        ),
        ConditionSpec(
            ConditionType.PAUSED,
            true_if(plan.paused),
            ConditionReason.PAUSED if plan.paused else ConditionReason.NOT_PAUSED,
            "spec.paused or the annotation pocket.network/reconcile=disabled is set." if plan.paused else "",
        ),
    ]
