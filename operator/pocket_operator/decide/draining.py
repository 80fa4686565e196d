"""Decide when a Supplier that is being deleted may go.

It may once its claims and proofs are done.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pocket_operator.decide.snapshot import Snapshot
from pocket_operator.resources import names

REPORT_LATENCY_SECONDS = 2.5
"""Most seconds between a pod's answer and its arrival here: polling waits no longer than two seconds."""
_UNKNOWN = (
    "no miner reports that it mines for it, so its open sessions are unknown. It goes once a miner reports that none "
    f"is open, at the deadline, or with {names.ANNOTATION_FORCE_DELETE}=true"
)


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """The progress of a supplier's drain.

    `quiet_since` is the time (monotonic seconds) since which no relayer may record its relays, None while one may.
    `reason` is a text for people.
    """

    done: bool
    quiet_since: float | None = None
    reason: str = ""


def has_finalizer(resource: Mapping[str, Any]) -> bool:
    """Return True if the resource has our finalizer."""
    return names.FINALIZER in (resource["metadata"].get("finalizers") or ())


def has_force_annotation(resource: Mapping[str, Any]) -> bool:
    """Return True if the resource has the annotation that skips the drain."""
    annotations = resource["metadata"].get("annotations") or {}
    return annotations.get(names.ANNOTATION_FORCE_DELETE) == "true"


def past_deadline(resource: Mapping[str, Any], now: datetime, deadline_seconds: float) -> bool:
    """Return True if the drain deadline of a deleted resource has passed."""
    deleted_at = datetime.fromisoformat(str(resource["metadata"]["deletionTimestamp"]))
    return (now - deleted_at).total_seconds() >= deadline_seconds


def drain_of(address: str, supplier: Mapping[str, Any], snapshot: Snapshot) -> DrainStatus:
    """Return how far the drain of one supplier is.

    First no relayer may record its relays any more. Then every miner that mines for it must have scanned its streams
    once more, and must report no open session. Missing Secrets, pods and reports are no evidence: what is unknown
    counts as open.
    """
    if snapshot.relay_miner is None and not snapshot.drain_anchor_uid:
        return DrainStatus(True, reason="no RelayMiner serves it")
    if not _may_be_published(address, supplier, snapshot):
        return DrainStatus(True, reason="its key was never published")
    if snapshot.namespace_ends and not any(pod.component == names.MINER for pod in snapshot.pods):
        return DrainStatus(True, reason="its namespace is being deleted, in which no miner can be created again")
    if serving := _serving(address, snapshot):
        return DrainStatus(False, reason=serving)
    quiet_since = snapshot.quiet_since.get(address, snapshot.clock)
    owners = [report for report in snapshot.reports if report.owns(address)]
    rows = [row for report in owners if (row := report.supplier(address)) is not None]
    if not owners or len(rows) < len(owners):
        return DrainStatus(False, quiet_since, _UNKNOWN)
    if open_sessions := max(row.open for row in rows):
        return DrainStatus(False, quiet_since, f"{open_sessions} sessions are on their way to settlement")
    for owner in owners:
        if owner.last_scan_began(address) <= quiet_since + REPORT_LATENCY_SECONDS:
            return DrainStatus(False, quiet_since, f"{owner.pod} has yet to scan for the last relays")
    return DrainStatus(True, quiet_since, "nothing is open")


def drains_without_supplier(known: Collection[str], snapshot: Snapshot) -> dict[str, DrainStatus]:
    """Return the drains of suppliers without a Supplier, by address.

    Miners report open sessions of them. A user removed its finalizer, or forced it. Its miner continues while it may,
    so the RelayMiner waits for it.
    """
    return {
        address: DrainStatus(
            False, reason=f"{row.open} sessions of a Supplier that is gone are on their way to settlement"
        )
        for report in snapshot.reports
        for address, row in report.answer.suppliers.items()
        if row.open and report.owns(address) and address not in known
    }


def open_without_relay_miner(snapshot: Snapshot, quiet_since: float) -> str:
    """Return why the miners of a RelayMiner that is gone must go on.

    The result is empty if nothing of it is open. A user removed its finalizer. `quiet_since` is the time since which no
    relayer runs (monotonic seconds). A miner that has not reported since then is no evidence.
    """
    known_since = quiet_since + REPORT_LATENCY_SECONDS
    reports = {report.pod: report for report in snapshot.reports if report.component == names.MINER}
    for pod in snapshot.pods:
        report = reports.get(pod.name)
        if pod.component == names.RELAYER:
            return f"{pod.name} still runs"
        if pod.component == names.MINER and (report is None or report.at <= known_since):
            return f"{pod.name} has not reported which sessions are open"
    for report in reports.values():
        for address in sorted(report.answer.owned):
            row = report.supplier(address)
            if row is None or row.open:
                number = "unknown" if row is None else row.open
                return f"{number} sessions of {address} are on their way to settlement"
            if report.last_scan_began(address) <= known_since:
                return f"{report.pod} has yet to scan for the last relays of {address}"
    return ""


def published_generation(supplier: Mapping[str, Any]) -> int:
    """Return the generation whose key was last handed to pods.

    The result is 0 for none, as the status records it.
    """
    return int((supplier.get("status") or {}).get("publishedGeneration") or 0)


def _may_be_published(address: str, supplier: Mapping[str, Any], snapshot: Snapshot) -> bool:
    """Return whether any pod may ever have had the key.

    A key is published only after its Supplier has our finalizer, and is then recorded in its status. So the key of a
    Supplier that has neither was never published, unless pods or the published keys show otherwise. Their absence is no
    evidence: they can vanish together while sessions are open.
    """
    if has_finalizer(supplier) or published_generation(supplier):
        return True
    if snapshot.published is not None and address in snapshot.published.entries:
        return True
    return any(address in report.addresses or report.owns(address) for report in snapshot.reports)


def _serving(address: str, snapshot: Snapshot) -> str:
    """Return why a relayer may still record relays of a supplier, empty if none may."""
    reports = {report.pod: report for report in snapshot.reports}
    for pod in snapshot.pods:
        if pod.component != names.RELAYER:
            continue
        report = reports.get(pod.name)
        if report is None and (pod.ready or pod.restarts):
            # One that restarted may have relays in its write-ahead log.
            return f"waiting for a report of {pod.name}"
        if report is not None and report.may_record(address):
            return f"{pod.name} still serves it, or has relays of it to record"
    return ""
