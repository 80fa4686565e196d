"""Which revision of the relayers runs where: pure.

A revision is a pod template with the configuration that it reads. With the strategy `Canary` the revision that all
relayers run is kept in a ConfigMap; a new one runs in a Deployment of its own first, and reaches the others only once
that canary was good for long enough. A canary that failed stays, scaled to none and marked with the reason. That mark
and the time at which the try began are all that is remembered, so any operator goes on from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pocket.api.relayminer import Rollout
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.snapshot import Pod
from pocket_operator.resources import names
from pocket_operator.resources.revision import Revision, RolloutPlan

Object = dict[str, Any]
_FEWEST_RELAYS: Final = 20
"""Fewer relays of the canary, or of the others, say nothing about errors or times."""
_LEAST_SECONDS: Final = 0.05
"""A mean time below this is never too slow."""
_FLAPPING: Final = 2
"""So many times the time to watch it has a canary to stay ready for that time once."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """What is seen of a rollout."""

    now: datetime
    steady_exists: bool
    """Whether there are relayers to be careful with."""
    kept: Revision | None
    canary: Object | None
    pods: Sequence[Pod]
    reports: Sequence[Report]
    promoted: str = ""


def plan_rollout(wanted: Revision, chosen: Rollout, sight: RolloutState) -> RolloutPlan:
    """Where `wanted` goes."""
    if chosen.strategy == "RollingUpdate":
        return RolloutPlan(wanted)
    kept = sight.kept
    if kept is None or not sight.steady_exists or wanted.name in (kept.name, sight.promoted):
        return RolloutPlan(wanted, keeps=True)
    since = _since(wanted.name, sight)
    failure, waiting = _judge(wanted.name, chosen, sight, since)
    if failure or waiting:
        return RolloutPlan(kept, wanted, failed=failure, message=waiting, since=since, keeps=True)
    return RolloutPlan(wanted, keeps=True)


def _annotations(sight: RolloutState) -> Mapping[str, str]:
    return ((sight.canary or {}).get("metadata") or {}).get("annotations") or {}


def _since(revision: str, sight: RolloutState) -> datetime:
    """When this revision's canary was begun; now, where it is to be."""
    annotations = _annotations(sight)
    if annotations.get(names.ANNOTATION_REVISION) != revision:
        return sight.now
    try:
        return datetime.fromisoformat(annotations.get(names.ANNOTATION_TRIED, ""))
    except ValueError:
        return sight.now


def _judge(revision: str, chosen: Rollout, sight: RolloutState, since: datetime) -> tuple[str, str]:
    """(why it failed, what it waits for); both empty once it passed."""
    annotations = _annotations(sight)
    if annotations.get(names.ANNOTATION_REVISION) != revision:
        return "", "it is being started"
    if mark := annotations.get(names.ANNOTATION_FAILED):
        return mark, ""
    pod = next((p for p in sight.pods if p.revision == revision and not p.deleting), None)
    if pod is not None and pod.restarts:
        return f"its container was restarted: {pod.problem or 'see the log of its last run'}", ""
    report = next((r for r in sight.reports if pod is not None and r.pod == pod.name), None)
    overdue = sight.now >= since + timedelta(seconds=chosen.ready_seconds + _FLAPPING * chosen.observe_seconds)
    if pod is None or not pod.ready or pod.ready_changed_at is None or report is None:
        why = _unready(pod, report)
        unready_since = max(since, pod.ready_changed_at) if pod is not None and pod.ready_changed_at else since
        if overdue or sight.now >= unready_since + timedelta(seconds=chosen.ready_seconds):
            return f"not ready within {chosen.ready_seconds} s: {why}", ""
        return "", f"it is not ready: {why}"
    canaries = {p.name for p in sight.pods}
    others = [r for r in sight.reports if r.component == names.RELAYER and r.pod not in canaries]
    if worse := _worse(report, others, chosen):
        return worse, ""
    until = pod.ready_changed_at + timedelta(seconds=chosen.observe_seconds)
    if sight.now >= until:
        return "", ""
    if overdue:
        return f"it did not stay ready for {chosen.observe_seconds} s", ""
    return "", f"it is watched until {until:%H:%M:%S} UTC"


def _unready(pod: Pod | None, report: Report | None) -> str:
    if pod is None:
        return "there is no pod yet"
    if pod.problem:
        return pod.problem
    if report is None:
        return "its pod has not reported yet" if pod.ready else "its pod is being started"
    return "; ".join(problem.message for problem in report.answer.problems) or "its pod is being started"


def _worse(canary: Report, others: Sequence[Report], chosen: Rollout) -> str:
    """Why the canary's relays are worse than the others'; empty where they are not or too few tell."""
    ours, theirs = _Figures.of([canary]), _Figures.of(others)
    if ours.relays >= _FEWEST_RELAYS:
        more = ours.failed_percent - theirs.failed_percent
        if more > chosen.max_more_errors_percent:
            return (
                f"{ours.failed_percent:.1f} % of its relays failed, {theirs.failed_percent:.1f} % of the other "
                f"relayers' (at most {chosen.max_more_errors_percent:g} points more)"
            )
    if min(ours.timed, theirs.timed) >= _FEWEST_RELAYS:
        most = max(_LEAST_SECONDS, theirs.mean_seconds * chosen.max_latency_factor)
        if ours.mean_seconds > most:
            return (
                f"its relays take {ours.mean_seconds:.3f} s, the other relayers' {theirs.mean_seconds:.3f} s "
                f"(at most {chosen.max_latency_factor:g} times as long)"
            )
    return ""


@dataclass(frozen=True, slots=True)
class _Figures:
    served: float
    failed: float
    timed: float
    seconds: float

    @classmethod
    def of(cls, reports: Sequence[Report]) -> "_Figures":
        rows = [report.answer.recent for report in reports]
        return cls(
            sum(r.served for r in rows), sum(r.failed for r in rows), sum(r.timed for r in rows),
            sum(r.seconds for r in rows),
        )  # fmt: skip

    @property
    def relays(self) -> float:
        return self.served + self.failed

    @property
    def failed_percent(self) -> float:
        return 100 * self.failed / self.relays if self.relays else 0.0

    @property
    def mean_seconds(self) -> float:
        return self.seconds / self.timed if self.timed else 0.0
