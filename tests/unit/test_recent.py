"""What became of the relays of the last five minutes."""

from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.sliding_window import SlidingWindowStats, is_our_failure
from pocket_relayer.process.reports import WorkerReport, summary


def test_figures_are_those_of_five_minutes_and_memory_stays_bounded():
    now = [0.0]
    recent = SlidingWindowStats(lambda: now[0])
    for second in range(1000):
        now[0] = float(second)
        recent.served(0.5)
        recent.served(None)
        recent.failed()
    assert recent.totals() == {"served": 600, "failed": 300, "timed": 300, "seconds": 150.0}
    assert len(recent._buckets) <= 31
    now[0] = 5000.0
    assert recent.totals() == {"served": 0, "failed": 0, "timed": 0, "seconds": 0}


def test_only_what_is_the_relayers_own_fault_counts_as_failed():
    ours = {reason.label for reason in RejectionReason if is_our_failure(Rejected(reason, "x"))}
    assert {"internal", "backend_failed", "backend_timeout", "not_recorded", "overloaded", "chain_unavailable"} <= ours
    assert not ours & {"draining", "invalid_signature", "replayed", "over_budget", "session_expired", "body_too_large"}


def test_a_pod_reports_the_sum_over_its_workers():
    rows = [WorkerReport(n, n, "k", 5, 0, recent={"served": n, "seconds": 0.5}) for n in (1, 2)]
    assert summary([*rows, WorkerReport(3, 3, "k", 5, 0)], 3)["recent"] == {"served": 3, "seconds": 1.0}


def test_budgets_of_an_application_are_summed_up_over_workers():
    budget = {"service": "eth", "application": "a", "limit_upokt": 30, "over_budget": 2}
    other = {**budget, "application": "b"}
    rows = [
        WorkerReport(1, 1, "k", 5, 0, budgets=[budget, other]),
        WorkerReport(2, 2, "k", 5, 0, budgets=[{**budget, "limit_upokt": 20, "over_budget": 1}]),
    ]
    assert summary(rows, 2)["budgets"] == [{**budget, "limit_upokt": 20, "over_budget": 3}, other]
