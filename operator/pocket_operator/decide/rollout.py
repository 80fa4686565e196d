"""Decide where the revisions of the relayers run.

A revision is a pod template with the configuration that it reads. The revision that all relayers run is saved in a
ConfigMap. With the strategy `Canary` a new one first runs in a Deployment of its own, and reaches the others once that
canary was good for long enough. A failed canary stays, scaled to zero and annotated with the reason. That annotation
and the time at which the canary started are the only state, so any replica of the operator can continue.
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
_MIN_RELAYS: Final = 20
"""Fewer relays of the canary, or of the others, are no basis for comparing errors or times."""
_MIN_SECONDS: Final = 0.05
"""A mean time below this is never too slow."""
_FLAPPING: Final = 2
"""Multiple of the observation time within which a canary must stay ready for that time once."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """The observed state of a rollout."""

    now: datetime
    steady_exists: bool
    """True if there are relayers that a bad revision could harm."""
    saved: Revision | None
    canary: Object | None
    pods: Sequence[Pod]
    reports: Sequence[Report]
    promoted: str = ""


def plan_rollout(wanted: Revision, chosen: Rollout, state: RolloutState) -> RolloutPlan:
    """Return where the revision `wanted` runs."""
    if chosen.strategy == "RollingUpdate":
        return RolloutPlan(wanted)
    saved = state.saved
    if saved is None or not state.steady_exists or wanted.name in (saved.name, state.promoted):
        return RolloutPlan(wanted)
    since = _since(wanted.name, state)
    failure, waiting = _judge(wanted.name, chosen, state, since)
    if failure or waiting:
        return RolloutPlan(saved, wanted, failed=failure, message=waiting, since=since)
    return RolloutPlan(wanted)


def _annotations(state: RolloutState) -> Mapping[str, str]:
    return ((state.canary or {}).get("metadata") or {}).get("annotations") or {}


def _since(revision: str, state: RolloutState) -> datetime:
    """Return when this revision's canary started, now if it has yet to."""
    annotations = _annotations(state)
    if annotations.get(names.ANNOTATION_REVISION) != revision:
        return state.now
    try:
        return datetime.fromisoformat(annotations.get(names.ANNOTATION_TRIED, ""))
    except ValueError:
        return state.now


def _judge(revision: str, chosen: Rollout, state: RolloutState, since: datetime) -> tuple[str, str]:
    """Return why the canary failed and what it waits for, both empty once it passed."""
    annotations = _annotations(state)
    if annotations.get(names.ANNOTATION_REVISION) != revision:
        return "", "it is being started"
    if mark := annotations.get(names.ANNOTATION_FAILED):
        return mark, ""
    pod = next((p for p in state.pods if p.revision == revision and not p.deleting), None)
    if pod is not None and pod.restarts:
        return f"its container restarted: {pod.problem or 'see the log of its last run'}", ""
    report = next((r for r in state.reports if pod is not None and r.pod == pod.name), None)
    past_deadline = state.now >= since + timedelta(seconds=chosen.ready_seconds + _FLAPPING * chosen.observe_seconds)
    if pod is None or not pod.ready or pod.ready_changed_at is None or report is None:
        why = _unready(pod, report)
        unready_since = max(since, pod.ready_changed_at) if pod is not None and pod.ready_changed_at else since
        if past_deadline or state.now >= unready_since + timedelta(seconds=chosen.ready_seconds):
            return f"not ready within {chosen.ready_seconds} s: {why}", ""
        return "", f"it is not ready: {why}"
    canaries = {p.name for p in state.pods}
    others = [r for r in state.reports if r.component == names.RELAYER and r.pod not in canaries]
    if worse := _worse(report, others, chosen):
        return worse, ""
    until = pod.ready_changed_at + timedelta(seconds=chosen.observe_seconds)
    if state.now >= until:
        return "", ""
    if past_deadline:
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
    """Return why the canary's relays are worse than the others'.

    The result is empty if they are not or too few to compare.
    """
    ours, theirs = _RelayStatistics.of([canary]), _RelayStatistics.of(others)
    if ours.relays >= _MIN_RELAYS:
        more = ours.failed_percent - theirs.failed_percent
        if more > chosen.max_more_errors_percent:
            return (
                f"{ours.failed_percent:.1f} % of its relays failed, {theirs.failed_percent:.1f} % of the other "
                f"relayers' (at most {chosen.max_more_errors_percent:g} points more)"
            )
    if min(ours.timed, theirs.timed) >= _MIN_RELAYS:
        limit = max(_MIN_SECONDS, theirs.mean_seconds * chosen.max_latency_factor)
        if ours.mean_seconds > limit:
            return (
                f"its relays take {ours.mean_seconds:.3f} s, the other relayers' {theirs.mean_seconds:.3f} s "
                f"(at most {chosen.max_latency_factor:g} times as long)"
            )
    return ""


@dataclass(frozen=True, slots=True)
class _RelayStatistics:
    served: float
    failed: float
    timed: float
    seconds: float

    @classmethod
    def of(cls, reports: Sequence[Report]) -> "_RelayStatistics":
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
