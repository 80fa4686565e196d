"""Determine which Suppliers of a RelayMiner are served and mined."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pocket.api.problems import ProblemCode
from pocket.api.status import ConditionType
from pocket_operator.decide.conditions import ConditionSpec, few
from pocket_operator.decide.plan import Plan
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.snapshot import Snapshot
from pocket_operator.decide.stake_decision import unstakes
from pocket_operator.decide.supplier_keys import KeyCheck
from pocket_operator.resources import names

NO_CHAIN = frozenset({ProblemCode.NO_NEW_BLOCK, ProblemCode.CHAIN_UNAVAILABLE})
"""Problems of a pod that has no current chain."""
_HAND_OVER_SECONDS = 30.0
_LOADING_SECONDS = 300.0
"""A kubelet mounts a changed Secret within about two minutes."""


@dataclass(frozen=True, slots=True)
class Served:
    """The Suppliers that stay: those that are served and mined, and the others."""

    served: tuple[KeyCheck, ...]
    missing: tuple[KeyCheck, ...]

    @property
    def declared(self) -> int:
        """The number of Suppliers that stay."""
        return len(self.served) + len(self.missing)

    def missing_since(self, before: Mapping[str, float], now: float) -> dict[str, float]:
        """Return since when each Supplier is not served, by name.

        `before` is the previous result.
        """
        return {check.name: before.get(check.name, now) for check in self.missing}


def served_suppliers(snapshot: Snapshot, plan: Plan) -> Served:
    """Return which of the Suppliers that stay are served.

    A Supplier is served while a relayer reports its key and a miner reports mining for it. When the RelayMiner is being
    deleted, all of its Suppliers leave.
    """
    staying = [] if _goes(snapshot) else [check for check in plan.key_checks if not _leaves(check)]
    is_served_by_name = {check.name: is_served(check, snapshot) for check in staying}
    return Served(
        tuple(check for check in staying if is_served_by_name[check.name]),
        tuple(check for check in staying if not is_served_by_name[check.name]),
    )


def is_served(check: KeyCheck, snapshot: Snapshot) -> bool:
    """Return True if a relayer has the Supplier's key and a miner mines for it.

    Both by their reports, and the miner must be able to.
    """
    if check.reason is ConditionReason.KEY_IN_USE or mining_problem(check.address, snapshot) is not None:
        return False
    reports = snapshot.steady_reports
    return any(report.owns(check.address) for report in reports) and any(
        report.component == names.RELAYER and check.address in report.addresses for report in reports
    )


def mining_problem(address: str, snapshot: Snapshot) -> tuple[ConditionReason, str] | None:
    """Return why the miner that owns a supplier cannot mine for it, None if it can.

    Where no miner reports to own it, that of any miner: without Redis or the chain none may be able to take it.
    """
    miners = [report for report in snapshot.steady_reports if report.component == names.MINER]
    owners = [report for report in miners if report.owns(address)]
    for report in owners or miners:
        if report.answer.redis:
            return ConditionReason.REDIS_UNREACHABLE, f"{report.pod}: {report.answer.redis}"
        stale = next((str(row) for row in report.answer.problems if row.code in NO_CHAIN), "")
        if stale:
            return ConditionReason.CHAIN_UNREACHABLE, f"{report.pod}: {stale}"
    return None


def long_unserved(snapshot: Snapshot) -> bool:
    """Return True if Suppliers are not served for longer than a takeover takes.

    A shard takes so long to change hands. The condition is False without any Supplier, too, so it does not tell since
    when one is not served. This process knows better, unless the status reports it already.
    """
    row = _last_condition(snapshot, ConditionType.SUPPLIERS_SERVED)
    since = row.get("lastTransitionTime")
    if row.get("status") != "False" or not since:
        return False
    if (snapshot.now - datetime.fromisoformat(str(since))).total_seconds() < _HAND_OVER_SECONDS:
        return False
    if _last_condition(snapshot, ConditionType.READY).get("reason") == ConditionReason.SUPPLIERS_NOT_SERVED:
        return True
    observed = snapshot.unserved_since
    return observed is None or snapshot.clock - observed >= _HAND_OVER_SECONDS


def was_ready(snapshot: Snapshot) -> bool:
    """Return True if the last status of the RelayMiner was Ready."""
    return _last_condition(snapshot, ConditionType.READY).get("status") == "True"


def _last_condition(snapshot: Snapshot, kind: ConditionType) -> Mapping[str, Any]:
    """Return a condition of the RelayMiner's last status, empty without it."""
    rows = ((snapshot.relay_miner or {}).get("status") or {}).get("conditions") or ()
    return next((row for row in rows if row.get("type") == kind), {})


def without_key(addresses: Collection[str], snapshot: Snapshot) -> str:
    """Return which pods lack keys of these addresses and why, as sentences.

    The result is empty if none does.
    """
    reported = {report.pod: report.addresses for report in snapshot.steady_reports}
    pods = sorted(pod.name for pod in snapshot.steady_pods if not pod.deleting and pod.component != names.CONSOLE)
    silent = [pod for pod in pods if pod not in reported]
    late = [pod for pod in pods if pod in reported and not set(addresses) <= set(reported[pod])]
    told = [f"Without it: {few(late)}."] if late else []
    if silent:
        told.append(f"No report from {few(silent)}: the pod is not up, or the operator cannot reach its port 9090.")
    return " ".join(told)


def served_condition(snapshot: Snapshot, served: Served, keys: ConditionSpec) -> ConditionSpec:
    """Return the condition.

    `keys` is the condition of the keys: pods that are loading them serve soon.
    """
    kind = ConditionType.SUPPLIERS_SERVED
    if _goes(snapshot):
        return ConditionSpec(kind, "False", ConditionReason.DRAINING, "Being deleted: relays are not served any more.")
    if not served.declared:
        return ConditionSpec(
            kind, "False", ConditionReason.NO_SUPPLIERS, "No Supplier that stays names this RelayMiner."
        )
    if not served.missing:
        return ConditionSpec(kind, "True", ConditionReason.ALL_SERVED, "Relayers and miners report all Suppliers.")
    named = few(sorted(check.name for check in served.missing))
    counted = f"{len(served.served)} of {served.declared} Suppliers are served."
    loading = keys.reason is ConditionReason.LOADING_KEYS and all(check.good for check in served.missing)
    since = snapshot.unserved_since
    if loading and (since is None or snapshot.clock - since < _LOADING_SECONDS):
        return ConditionSpec(
            kind, "False", ConditionReason.LOADING_KEYS, f"{counted} Pods are loading the keys of: {named}."
        )
    pods = without_key([check.address for check in served.missing], snapshot) if loading else ""
    message = f"{counted} Not served: {named}. See theirs. {pods}".strip()
    return ConditionSpec(kind, "False", ConditionReason.SUPPLIERS_NOT_SERVED, message)


def _leaves(check: KeyCheck) -> bool:
    return check.deleting or unstakes(check.supplier)


def _goes(snapshot: Snapshot) -> bool:
    return bool((snapshot.relay_miner or {"metadata": {}})["metadata"].get("deletionTimestamp"))


def not_loaded(subject: str, snapshot: Snapshot) -> tuple[ConditionReason, str]:
    """Return why pods lack a key or key set, which is the `subject`.

    It could not be published, or they have yet to load it.
    """
    if snapshot.unpublished:
        return ConditionReason.API_SERVER_REJECTED, f"{subject} cannot be published: {snapshot.unpublished}"
    return ConditionReason.LOADING_KEYS, f"{subject} is published; not every pod has loaded it yet."
