"""Determine which Suppliers of a RelayMiner are served and mined."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pocket.api.problems import ProblemCode
from pocket.api.status import ConditionType
from pocket_operator.decide.conditions import ConditionSpec
from pocket_operator.decide.plan import Plan
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.snapshot import Snapshot
from pocket_operator.decide.stake_decision import unstakes
from pocket_operator.decide.supplier_keys import KeyCheck
from pocket_operator.resources import names

NO_CHAIN = frozenset({ProblemCode.NO_NEW_BLOCK, ProblemCode.CHAIN_UNAVAILABLE})
"""Problems of a pod that has no current chain."""
_NAMED = 5
_HAND_OVER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """The Suppliers that stay, divided into those that are served and mined and the others."""

    served: tuple[KeyCheck, ...]
    missing: tuple[KeyCheck, ...]

    @property
    def declared(self) -> int:
        """The number of Suppliers that stay."""
        return len(self.served) + len(self.missing)


def served_suppliers(snapshot: Snapshot, plan: Plan) -> Served:
    """Return which of the Suppliers that stay are served.

    A Supplier is served while a relayer reports its key and a miner reports mining for it. When the RelayMiner is being
    deleted, all of its Suppliers leave.
    """
    staying = [] if _goes(snapshot) else [check for check in plan.key_checks if not _leaves(check)]
    found = {check.name: is_served(check, snapshot) for check in staying}
    return Served(
        tuple(check for check in staying if found[check.name]),
        tuple(check for check in staying if not found[check.name]),
    )


def is_served(check: KeyCheck, snapshot: Snapshot) -> bool:
    """Return True if a relayer reports the Supplier's key and a miner that can mine for it reports doing so."""
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
    """Return True if Suppliers of the RelayMiner are not served for longer than a shard takes to change hands."""
    rows = ((snapshot.relay_miner or {}).get("status") or {}).get("conditions") or ()
    row: Mapping[str, Any] = next((row for row in rows if row.get("type") == ConditionType.SUPPLIERS_SERVED), {})
    since = row.get("lastTransitionTime")
    if row.get("status") != "False" or not since:
        return False
    return (snapshot.now - datetime.fromisoformat(str(since))).total_seconds() >= _HAND_OVER_SECONDS


def served_condition(snapshot: Snapshot, found: Served, keys: ConditionSpec) -> ConditionSpec:
    """Return the condition. `keys` is the condition of the keys: pods that are loading them serve soon."""
    kind = ConditionType.SUPPLIERS_SERVED
    if _goes(snapshot):
        return ConditionSpec(kind, "False", ConditionReason.DRAINING, "Being deleted: relays are not served any more.")
    if not found.declared:
        return ConditionSpec(
            kind, "False", ConditionReason.NO_SUPPLIERS, "No Supplier that stays names this RelayMiner."
        )
    if not found.missing:
        return ConditionSpec(kind, "True", ConditionReason.ALL_SERVED, "Relayers and miners report all Suppliers.")
    missing = sorted(check.name for check in found.missing)
    named = ", ".join(missing[:_NAMED]) + (" ..." if len(missing) > _NAMED else "")
    counted = f"{len(found.served)} of {found.declared} Suppliers are served."
    if keys.reason is ConditionReason.LOADING_KEYS and all(check.good for check in found.missing):
        return ConditionSpec(
            kind, "False", ConditionReason.LOADING_KEYS, f"{counted} Pods are loading the keys of: {named}."
        )
    return ConditionSpec(
        kind, "False", ConditionReason.SUPPLIERS_NOT_SERVED, f"{counted} Not served: {named}. See theirs."
    )


def _leaves(check: KeyCheck) -> bool:
    return check.deleting or unstakes(check.supplier)


def _goes(snapshot: Snapshot) -> bool:
    return bool((snapshot.relay_miner or {"metadata": {}})["metadata"].get("deletionTimestamp"))
