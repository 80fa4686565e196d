"""Compare the heads of the miners' audit trails with the published ones.

Those were published before.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from pocket.api.status import AuditHeadStatus, ConditionType
from pocket_operator.decide.conditions import ConditionSpec
from pocket_operator.decide.pod_report import Report, ReportedAudit
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.resources import names

_MOST: Final = 64


def published_heads(status: Mapping[str, Any]) -> dict[str, AuditHeadStatus]:
    """Return the heads in a RelayMiner's status by pod, without unreadable ones."""
    heads = {}
    for row in status.get("audit") or ():
        try:
            head = AuditHeadStatus.model_validate(row)
        except ValidationError:
            continue
        heads[head.pod] = head
    return heads


def _continues(known: AuditHeadStatus, head: ReportedAudit) -> bool:
    """Return False if a trail contradicts a published head.

    It ends before it or has another outcome in its place.
    """
    return head.number > known.number or (head.number == known.number and head.hash == known.hash)


def audit_heads(
    before: Mapping[str, AuditHeadStatus], reports: Iterable[Report]
) -> tuple[tuple[AuditHeadStatus, ...], tuple[str, ...]]:
    """Return the heads to publish, and the pods whose trail lost published outcomes.

    A head stays when its pod reports none or an earlier one.
    """
    heads, cut = dict(before), []
    for report in reports:
        head = report.answer.audit
        if report.component != names.MINER or head is None:
            continue
        known = before.get(report.pod)
        if known is not None and not _continues(known, head):
            cut.append(report.pod)
            continue
        if head.number:
            heads[report.pod] = AuditHeadStatus(pod=report.pod, number=head.number, hash=head.hash)
    kept = sorted(heads.values(), key=lambda head: (-head.number, head.pod))[:_MOST]
    return tuple(sorted(kept, key=lambda head: head.pod)), tuple(sorted(cut))


def audit_condition(cut: Sequence[str], *, reported: bool) -> ConditionSpec:
    """Return the condition of the audit trails."""
    kind = ConditionType.AUDIT_TRAILS_INTACT
    if cut:
        return ConditionSpec(
            kind, "False", ConditionReason.AUDIT_TRAIL_CUT,
            f"The audit trail of {', '.join(cut)} lacks outcomes that were published before, as after a restored or "
            "new volume: compare with `relayctl ledger verify --published`, and delete the pod's entry from "
            "status.audit to accept the trail as it is.",
        )  # fmt: skip
    if not reported:
        return ConditionSpec(kind, "Unknown", ConditionReason.NO_REPORT, "No miner has reported its audit trail.")
    return ConditionSpec(kind, "True", ConditionReason.AUDIT_TRAILS_INTACT, "No published outcome is missing.")
