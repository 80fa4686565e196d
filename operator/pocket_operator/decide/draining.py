"""Whether a Supplier or a RelayMiner that is being deleted may go: not before its claims and proofs are done."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pocket_operator.decide.snapshot import Snapshot
from pocket_operator.resources import names

PASSAGE_SECONDS = 2.5
"""A report may be so much older than the moment in which it is taken in: asking waits no longer than two seconds."""
_UNKNOWN = (
    "no miner reports that it mines for it: its open sessions are not known. It goes once a miner says that nothing is "
    f"open, at the deadline, or with {names.ANNOTATION_FORCE_DELETE}=true"
)


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """`since`: since when no relayer may record relays of it (monotonic), None while one may. `why` is for people."""

    done: bool
    since: float | None = None
    why: str = ""


def is_held(resource: Mapping[str, Any]) -> bool:
    """Whether our finalizer is on it."""
    return names.FINALIZER in (resource["metadata"].get("finalizers") or ())


def forced(resource: Mapping[str, Any]) -> bool:
    """Whether somebody gave the escape annotation."""
    annotations = resource["metadata"].get("annotations") or {}
    return annotations.get(names.ANNOTATION_FORCE_DELETE) == "true"


def overdue(resource: Mapping[str, Any], now: datetime, deadline_seconds: float) -> bool:
    """Whether the deadline since the deletion has passed."""
    stamp = resource["metadata"].get("deletionTimestamp")
    if not stamp:
        return False
    return (now - datetime.fromisoformat(str(stamp))).total_seconds() >= deadline_seconds


def drain_of(address: str, supplier: Mapping[str, Any], snapshot: Snapshot) -> DrainStatus:
    """Return what is left to do for one supplier that should go.

    First no relayer may record anything of it any more. Then every miner that mines for it must have looked for relays
    once more, and must say that nothing is open. Missing Secrets, pods and reports say nothing: what is not known is
    taken for open.
    """
    if snapshot.relay_miner is None:
        return DrainStatus(True, why="no RelayMiner serves it")
    if not _may_be_published(address, supplier, snapshot):
        return DrainStatus(True, why="its key was never published")
    if serving := _serving(address, snapshot):
        return DrainStatus(False, why=serving)
    since = snapshot.quiet_since.get(address, snapshot.clock)
    owners = [report for report in snapshot.reports if report.owns(address)]
    rows = [row for report in owners if (row := report.supplier(address)) is not None]
    if not owners or len(rows) < len(owners):
        return DrainStatus(False, since, _UNKNOWN)
    if open_sessions := max(row.open for row in rows):
        return DrainStatus(False, since, f"{open_sessions} sessions are on their way to settlement")
    for owner in owners:
        if owner.looked_at(address) <= since + PASSAGE_SECONDS:
            return DrainStatus(False, since, f"{owner.pod} has yet to look for the last relays")
    return DrainStatus(True, since, "nothing is open")


def drains_without_supplier(known: Collection[str], snapshot: Snapshot) -> dict[str, DrainStatus]:
    """Return, by address, what miners say is open of suppliers that have no Supplier any more.

    Somebody took its finalizer away, or forced it. Its miner goes on while it may, so the RelayMiner waits for it.
    """
    return {
        address: DrainStatus(
            False, why=f"{row.open} sessions of a Supplier that is gone are on their way to settlement"
        )
        for report in snapshot.reports
        for address, row in report.answer.suppliers.items()
        if row.open and report.owns(address) and address not in known
    }


def published_generation(supplier: Mapping[str, Any]) -> int:
    """Return the generation whose key was handed to pods last, 0 for none, as the status records it."""
    return int((supplier.get("status") or {}).get("publishedGeneration") or 0)


def _may_be_published(address: str, supplier: Mapping[str, Any], snapshot: Snapshot) -> bool:
    """Return whether any pod may ever have had the key.

    A key is published only after our finalizer is on its Supplier, and then recorded in its status. So a Supplier that
    has neither was never published, unless pods or the published keys tell otherwise. What they do not tell is no
    evidence: they can vanish together while sessions are open.
    """
    if is_held(supplier) or published_generation(supplier):
        return True
    if snapshot.published is not None and address in snapshot.published.entries:
        return True
    return any(address in report.addresses or report.owns(address) for report in snapshot.reports)


def _serving(address: str, snapshot: Snapshot) -> str:
    """Why a relayer may still record relays of a supplier; empty: none may."""
    reports = {report.pod: report for report in snapshot.reports}
    for pod in snapshot.pods:
        if pod.component != names.RELAYER:
            continue
        report = reports.get(pod.name)
        if report is None and (pod.ready or pod.restarts):
            # One that was started again may have relays in its local log.
            return f"waiting for a report of {pod.name}"
        if report is not None and report.may_record(address):
            return f"{pod.name} still serves it, or has relays of it to record"
    return ""
