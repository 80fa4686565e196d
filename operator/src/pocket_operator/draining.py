"""Whether a Supplier or a RelayMiner that is being deleted may go: not before its claims and proofs are done."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pocket_operator import names
from pocket_operator.snapshot import Snapshot

SETTLE_SECONDS = 5.0
"""How long a supplier must be seen without open sessions: relays recorded last must have reached the miner."""


@dataclass(frozen=True, slots=True)
class Drain:
    """`since`: since when nothing is open (monotonic), None while something is. `why` is for people."""

    done: bool
    since: float | None = None
    why: str = ""


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
    """What is left to do for one supplier that should go."""
    if snapshot.relay_miner is None:
        return Drain(True, why="no RelayMiner serves it")
    if snapshot.published is None or address not in snapshot.published.entries:
        return Drain(True, why="its key was never published")
    reports = {report.pod: report for report in snapshot.reports}
    for pod in snapshot.pods:
        if pod.component != names.RELAYER:
            continue
        report = reports.get(pod.name)
        if report is None and pod.ready:
            return Drain(False, why=f"waiting for a report of {pod.name}")
        if report is not None and address in report.addresses:
            return Drain(False, why=f"{pod.name} still serves it")
    owner = next((report for report in snapshot.reports if report.owns(address)), None)
    if owner is None:
        return Drain(False, why="no miner reports that it mines for it: its open sessions are not known")
    row = owner.supplier(address)
    still_open = int(row.get("open") or 0)
    if still_open:
        return Drain(False, why=f"{still_open} sessions are on their way to settlement")
    since = snapshot.idle_since.get(address, snapshot.clock)
    return Drain(snapshot.clock - since >= SETTLE_SECONDS, since, "nothing is open")
