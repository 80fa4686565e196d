"""Which Suppliers of a RelayMiner are served and mined: pure."""

from dataclasses import dataclass

from pocket.api.status import ConditionType
from pocket_operator.decide.conditions import ConditionSpec
from pocket_operator.decide.plan import Plan
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.snapshot import Snapshot
from pocket_operator.decide.supplier_keys import KeyCheck
from pocket_operator.resources import names

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Served:
    """The Suppliers that stay: those that are served and mined, and the others."""

    served: tuple[KeyCheck, ...]
    missing: tuple[KeyCheck, ...]

    @property
    def declared(self) -> int:
        """How many stay."""
        return len(self.served) + len(self.missing)


def served_suppliers(snapshot: Snapshot, plan: Plan) -> Served:
    """Return who of those that stay is served.

    One is served while a relayer has its key and a miner mines for it, by their own reports. With the RelayMiner, all
    of its Suppliers leave.
    """
    staying = [] if _goes(snapshot) else [finding for finding in plan.findings if not finding.deleting]
    reports = snapshot.steady_reports
    loaded = {address for r in reports if r.component == names.RELAYER for address in r.addresses}

    def is_served(finding: KeyCheck) -> bool:
        ours = finding.reason is not ConditionReason.KEY_IN_USE and finding.address in loaded
        return ours and any(report.owns(finding.address) for report in reports)

    found = {finding.name: is_served(finding) for finding in staying}
    return Served(
        tuple(finding for finding in staying if found[finding.name]),
        tuple(finding for finding in staying if not found[finding.name]),
    )


def served_fact(snapshot: Snapshot, found: Served, keys: ConditionSpec) -> ConditionSpec:
    """Return the condition; `keys`: the condition of the keys, since pods that take them up serve in a moment."""
    kind = ConditionType.SUPPLIERS_SERVED
    if _goes(snapshot):
        return ConditionSpec(kind, "False", ConditionReason.DRAINING, "Being deleted: relays are not served any more.")
    if not found.declared:
        return ConditionSpec(
            kind, "False", ConditionReason.NO_SUPPLIERS, "No Supplier that stays names this RelayMiner."
        )
    if not found.missing:
        return ConditionSpec(kind, "True", ConditionReason.ALL_SERVED, "Relayers and miners report all Suppliers.")
    missing = sorted(finding.name for finding in found.missing)
    named = ", ".join(missing[:_NAMED]) + (" ..." if len(missing) > _NAMED else "")
    counted = f"{len(found.served)} of {found.declared} Suppliers are served."
    if keys.reason is ConditionReason.LOADING_KEYS and all(finding.good for finding in found.missing):
        return ConditionSpec(
            kind, "False", ConditionReason.LOADING_KEYS, f"{counted} Pods are taking up the keys of: {named}."
        )
    return ConditionSpec(
        kind, "False", ConditionReason.SUPPLIERS_NOT_SERVED, f"{counted} Not served: {named}. See theirs."
    )


def _goes(snapshot: Snapshot) -> bool:
    return bool((snapshot.relay_miner or {"metadata": {}})["metadata"].get("deletionTimestamp"))
