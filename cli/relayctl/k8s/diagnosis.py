"""Find what is wrong in a reading of the cluster, with the remedy of each finding.

Pure functions.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from pocket_operator.decide.reasons import PASSING
from pocket_operator.resources import names
from relayctl.k8s.cluster_view import ClusterView, namespaced_name
from relayctl.k8s.supplier_rows import blocks_left

Object = Mapping[str, Any]
_NEGATIVE: Final = frozenset({"Reconciling", "Stalled", "Paused", "OperatorConflict"})
_SUMMARY: Final = frozenset({"Ready", "Reconciling", "Stalled"})
"""Conditions that repeat another one."""
_WARNED_WHILE_TRUE: Final = frozenset(
    {"StakedServiceNotConfigured", "EndpointsBroken", "ClockSkewed", "ChainNodesDisagree"}
)
_FEW_DAYS: Final = 3
_FEW_BLOCKS: Final = 2
_MANY_RESTARTS: Final = 5
_STATUS_OVERDUE: Final = timedelta(minutes=2)
_STUCK: Final = timedelta(hours=6)
_RECENT: Final = timedelta(hours=1)
_START: Final = timedelta(minutes=5)


class FindingCode(StrEnum):
    """Codes of what is found wrong."""

    CONDITION = "condition"
    NO_OPERATOR = "no-operator"
    OPERATOR_NOT_READY = "operator-not-ready"
    STATUS_BEHIND = "status-behind"
    DELETION_STUCK = "deletion-stuck"
    POD_WAITING = "pod-waiting"
    POD_RESTARTS = "pod-restarts"
    POD_PENDING = "pod-pending"
    VOLUME_PENDING = "volume-pending"
    FUNDS_SHORT = "funds-short"
    DEADLINE_NEAR = "deadline-near"
    LEASE_EXPIRED = "lease-expired"
    SAME_ADDRESS = "same-address"
    NO_RELAY_MINER = "no-relay-miner"
    WARNINGS = "warnings"
    NOT_CHECKED = "not-checked"


class Severity(StrEnum):
    """How bad a finding is. An error loses relays or money, or will."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: the object, what is wrong with it, and what to do."""

    severity: Severity
    code: FindingCode
    subject: str
    message: str
    remedy: str

    def row(self) -> dict[str, str]:
        """Return the finding as a row of the output."""
        return {name: str(value) for name, value in asdict(self).items()}


def diagnose(view: ClusterView) -> list[Finding]:
    """Return all findings, the worst first."""
    findings = [finding for check in _CHECKS for finding in check(view)]
    order = list(Severity)
    return sorted(findings, key=lambda finding: (order.index(finding.severity), finding.subject, finding.code))


def _subject(resource: Object) -> str:
    namespace, name = namespaced_name(dict(resource))
    return f"{resource.get('kind', 'object')}/{name} in {namespace}"


def _time(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _older(view: ClusterView, text: Any, age: timedelta) -> bool:
    moment = _time(text)
    return moment is not None and view.now - moment > age


def _conditions(view: ClusterView) -> Iterator[Finding]:
    for resource in (*view.relay_miners, *view.suppliers):
        for row in (resource.get("status") or {}).get("conditions") or ():
            kind, state, reason = str(row.get("type")), str(row.get("status")), str(row.get("reason"))
            message = str(row.get("message") or reason)
            bad = state == ("True" if kind in _NEGATIVE else "False")
            if kind in _SUMMARY or (not bad and reason not in _WARNED_WHILE_TRUE):
                continue
            passing = reason in PASSING or kind in {"Paused", "UpToDate", "SchemaCurrent"}
            severity = Severity.INFO if passing else Severity.ERROR if bad else Severity.WARNING
            if kind == "StakeAsDeclared" and bad:
                severity = Severity.WARNING
            problem, _, remedy = message.partition(". ")
            yield Finding(
                severity, FindingCode.CONDITION, _subject(resource),
                f"{kind} is {state} ({reason}): {problem.rstrip('.')}",
                remedy or f"See {reason} in docs/troubleshoot.md.",
            )  # fmt: skip


def _operator(view: ClusterView) -> Iterator[Finding]:
    for resource in (*view.relay_miners, *view.suppliers):
        generation = int(resource["metadata"].get("generation") or 0)
        seen = int((resource.get("status") or {}).get("observedGeneration") or 0)
        if seen < generation and _older(view, _changed_at(resource), _STATUS_OVERDUE):
            code, words = (
                FindingCode.STATUS_BEHIND,
                f"its status is of generation {seen}, the object is at {generation}",
            )
            if not seen:
                code, words = (FindingCode.NO_OPERATOR, "no operator has written its status")
            yield Finding(
                Severity.ERROR, code, _subject(resource), words,
                "Check that an operator runs and watches this namespace: kubectl get pods -A -l "
                f"{names.LABEL_NAME}=pocket-operator, and its log.",
            )  # fmt: skip
    for pod in view.operator_pods:
        if not _is_ready(pod):
            yield Finding(
                Severity.WARNING, FindingCode.OPERATOR_NOT_READY, _subject({"kind": "Pod", **pod}),
                "this replica of the operator is not ready",
                f"kubectl logs -n {pod['metadata']['namespace']} {pod['metadata']['name']}",
            )  # fmt: skip


def _changed_at(resource: Object) -> Any:
    """Return the time of the last change of a spec, as far as the API server shows it."""
    times = [
        str(row.get("time")) for row in resource["metadata"].get("managedFields") or ()
        if row.get("subresource") != "status"
    ]  # fmt: skip
    return max(times, default=resource["metadata"].get("creationTimestamp"))


def _deletions(view: ClusterView) -> Iterator[Finding]:
    for resource in (*view.relay_miners, *view.suppliers):
        since = resource["metadata"].get("deletionTimestamp")
        if since and _older(view, since, _STUCK):
            open_ = (resource.get("status") or {}).get("openSessions")
            yield Finding(
                Severity.WARNING, FindingCode.DELETION_STUCK, _subject(resource),
                f"being deleted since {since}" + (f", with {open_} open sessions" if open_ else ""),
                "Claims and proofs of its open sessions come first. If its miner cannot run any more, see "
                "docs/suppliers.md about forced deletion: open sessions are then not paid.",
            )  # fmt: skip


def _is_ready(pod: Object) -> bool:
    rows = (pod.get("status") or {}).get("conditions") or ()
    return any(row.get("type") == "Ready" and row.get("status") == "True" for row in rows)


def _pods(view: ClusterView) -> Iterator[Finding]:
    for pod in view.pods:
        subject, metadata = _subject({"kind": "Pod", **pod}), pod["metadata"]
        show = f"kubectl describe pod -n {metadata['namespace']} {metadata['name']}"
        status = pod.get("status") or {}
        if status.get("phase") == "Pending" and _older(view, metadata.get("creationTimestamp"), _START):
            reason = next(
                (str(c.get("message")) for c in status.get("conditions") or () if c.get("status") == "False"),
                "no reason",
            )
            yield Finding(Severity.ERROR, FindingCode.POD_PENDING, subject, f"does not start: {reason}", show)
        for container in status.get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                text = f"{container['name']} waits: {waiting['reason']} {waiting.get('message') or ''}".strip()
                yield Finding(Severity.ERROR, FindingCode.POD_WAITING, subject, text, show)
            if int(container.get("restartCount") or 0) >= _MANY_RESTARTS:
                yield _restarted(subject, metadata, container)


def _restarted(subject: str, metadata: Object, container: Object) -> Finding:
    ended = (container.get("lastState") or {}).get("terminated") or {}
    why = f"last with {ended.get('reason', 'unknown reason')}, exit code {ended.get('exitCode', '?')}"
    remedy = f"kubectl logs -n {metadata['namespace']} {metadata['name']} -c {container['name']} --previous"
    if ended.get("reason") == "OOMKilled":
        remedy = "Raise the memory limit in spec.relayer.resources or spec.miner.resources."
    text = f"{container['name']} restarted {container['restartCount']} times, {why}"
    return Finding(Severity.WARNING, FindingCode.POD_RESTARTS, subject, text, remedy)


def _volumes(view: ClusterView) -> Iterator[Finding]:
    ours = {str(row["metadata"]["name"]) for row in view.relay_miners}
    for claim in view.claims:
        labels = claim["metadata"].get("labels") or {}
        phase = (claim.get("status") or {}).get("phase")
        if labels.get(names.LABEL_RELAY_MINER) not in ours or phase == "Bound":
            continue
        if phase == "Lost" or _older(view, claim["metadata"].get("creationTimestamp"), _START):
            yield Finding(
                Severity.ERROR, FindingCode.VOLUME_PENDING, _subject(claim), f"the volume claim is {phase}",
                "Check spec.miner.storage and the storage classes: kubectl get storageclass.",
            )  # fmt: skip


def _money(view: ClusterView) -> Iterator[Finding]:
    for supplier in view.suppliers:
        status = supplier.get("status") or {}
        left = (status.get("funds") or {}).get("daysLeft")
        if left is not None and left < _FEW_DAYS:
            yield Finding(
                Severity.WARNING, FindingCode.FUNDS_SHORT, _subject(supplier),
                f"its balance pays fees for {left} more days",
                f"Send POKT to {supplier['spec'].get('operatorAddress')}.",
            )  # fmt: skip
        blocks = blocks_left(view, supplier)
        relay_miner = view.relay_miner_of(supplier)
        miners = view.pods_of(relay_miner, names.MINER) if relay_miner is not None else []
        if blocks is not None and 0 <= blocks <= _FEW_BLOCKS and not any(map(_is_ready, miners)):
            kind = status["nextDeadline"].get("kind")
            yield Finding(
                Severity.ERROR, FindingCode.DEADLINE_NEAR, _subject(supplier),
                f"a {kind} is due within {blocks} blocks, and no miner is ready",
                "Bring a miner up now: sealed sessions need only its volume, the key and a chain node.",
            )  # fmt: skip


def _leases(view: ClusterView) -> Iterator[Finding]:
    groups = {names.miner(str(row["metadata"]["name"])): row for row in view.relay_miners}
    late: Counter[tuple[str, str]] = Counter()
    for lease in view.leases:
        group = str((lease["metadata"].get("labels") or {}).get("pocket.network/lease-group") or "")
        spec = lease.get("spec") or {}
        renewed = _time(spec.get("renewTime"))
        seconds = float(spec.get("leaseDurationSeconds") or 0)
        if group in groups and spec.get("holderIdentity") and renewed is not None:
            late[namespaced_name(lease)[0], group] += view.now - renewed > timedelta(seconds=2 * seconds + 5)
    for (namespace, group), number in sorted(late.items()):
        if number:
            yield Finding(
                Severity.ERROR, FindingCode.LEASE_EXPIRED, f"Leases of {group} in {namespace}",
                f"{number} Leases are held but were not renewed: their suppliers are not mined",
                f"kubectl get leases -n {namespace} -l pocket.network/lease-group={group}, and the miners' logs.",
            )  # fmt: skip


def _relations(view: ClusterView) -> Iterator[Finding]:
    addresses: dict[str, list[Object]] = {}
    for supplier in view.suppliers:
        addresses.setdefault(str(supplier["spec"].get("operatorAddress")), []).append(supplier)
        if view.relay_miner_of(supplier) is None:
            name = supplier["spec"].get("relayMinerRef", {}).get("name")
            yield Finding(
                Severity.ERROR, FindingCode.NO_RELAY_MINER, _subject(supplier), f"its RelayMiner {name} does not exist",
                f"Create RelayMiner {name} in its namespace.",
            )  # fmt: skip
    for address, rows in sorted(addresses.items()):
        if len(rows) > 1:
            others = ", ".join(_subject(row) for row in rows[1:])
            yield Finding(
                Severity.ERROR, FindingCode.SAME_ADDRESS, _subject(rows[0]), f"{others} has the same address {address}",
                "Delete one of them: two miners with one key overwrite each other's claims.",
            )  # fmt: skip


def _events(view: ClusterView) -> Iterator[Finding]:
    subjects = {str(row["metadata"].get("uid")) for row in (*view.relay_miners, *view.suppliers, *view.pods)}
    latest: dict[tuple[str, str], Object] = {}
    for event in view.events:
        moment = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
        about = event.get("involvedObject") or {}
        if event.get("type") != "Warning" or _older(view, moment, _RECENT) or str(about.get("uid")) not in subjects:
            continue
        latest[f"{about.get('kind')}/{about.get('name')} in {about.get('namespace')}", str(event.get("reason"))] = event
    for (subject, reason), last in sorted(latest.items(), key=lambda row: row[0]):
        yield Finding(
            Severity.INFO, FindingCode.WARNINGS, subject, f"Event {reason} in the last hour: {last.get('message')}",
            "See the object's conditions and kubectl describe.",
        )  # fmt: skip


def _unread(view: ClusterView) -> Iterator[Finding]:
    for subject, why in sorted(view.unread.items()):
        yield Finding(
            Severity.INFO,
            FindingCode.NOT_CHECKED,
            subject,
            f"not checked: {why}",
            "Run it with the right to list these.",
        )


_CHECKS: Final[tuple[Callable[[ClusterView], Iterable[Finding]], ...]] = (
    _conditions, _operator, _deletions, _pods, _volumes, _money, _leases, _relations, _events, _unread,
)  # fmt: skip
