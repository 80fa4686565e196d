"""Whether a Supplier or a RelayMiner that is being deleted may go: not before its claims and proofs are done."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pocket_operator import names
from pocket_operator.snapshot import Snapshot

PASSAGE_SECONDS = 2.5
"""A report may be so much older than the moment in which it is taken in: asking waits no longer than two seconds."""


@dataclass(frozen=True, slots=True)
class Drain:
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


def drain_of(address: str, snapshot: Snapshot) -> Drain:
    """What is left to do for one supplier that should go.

    First no relayer may record anything of it any more; then its miner must have looked for relays once more, and must
    have nothing open. What is not known is taken for open.
    """
    if snapshot.relay_miner is None:
        return Drain(True, why="no RelayMiner serves it")
    if not _was_published(address, snapshot):
        return Drain(True, why="its key was never published")
    if serving := _serving(address, snapshot):
        return Drain(False, why=serving)
    since = snapshot.quiet_since.get(address, snapshot.clock)
    owner = next((report for report in snapshot.reports if report.owns(address)), None)
    row = owner.supplier(address) if owner is not None else None
    if owner is None or row is None:
        return Drain(False, since, "no miner reports that it mines for it: its open sessions are not known")
    if row.open:
        return Drain(False, since, f"{row.open} sessions are on their way to settlement")
    if owner.looked_at(address) <= since + PASSAGE_SECONDS:
        return Drain(False, since, f"{owner.pod} has yet to look for the last relays")
    return Drain(True, since, "nothing is open")


def _was_published(address: str, snapshot: Snapshot) -> bool:
    """Whether any pod ever had its key, as far as the published keys and the pods tell."""
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
