"""Service level objectives: what is recorded, and which speed of burning the budget fires which alert."""

import re
from pathlib import Path

import pytest

from pocket.api.relayminer import RelayMiner
from pocket_miner.storage import outcomes
from pocket_operator.resources.context import Context, Images
from pocket_operator.resources.monitoring import rules
from pocket_operator.resources.objectives import LOSSES, OBJECTIVES, UNSERVED_REASONS
from pocket_relayer.limits.rejection import RejectionReason
from promtool import passes, without_others
from resources import relay_miner

RUNBOOK = Path(__file__).parents[2] / "docs/runbook.md"
SERVED, REJECTED = "pocket_relayer_relays_served_total", "pocket_relayer_relays_rejected_total"
MINED, NOT_RECORDED = "pocket_relayer_relays_mined_total", "pocket_relayer_relays_not_recorded_total"
SESSIONS = "pocket_miner_session_outcomes_total"
OURS, THEIRS = f'{REJECTED}{{reason="backend_failed"}}', f'{REJECTED}{{reason="invalid_signature"}}'
UNRECORDED, UNPROVABLE = f'{NOT_RECORDED}{{reason="full"}}', 'pocket_relayer_relays_unprovable_total{service="eth"}'
SETTLED, LOST = f'{SESSIONS}{{outcome="settled"}}', f'{SESSIONS}{{outcome="claim_missed"}}'
SOUND = {SERVED: "0+1000x60", OURS: "0x60", MINED: "0+1000x60", UNRECORDED: "0x60", SETTLED: "0+10x60", LOST: "0x60"}

# Alert → series that make it fire, and series that are just not bad enough.
CASES = {
    "PocketServingBudgetBurnsFast": ({OURS: "0+90x60"}, {OURS: "0+60x60"}),
    "PocketServingBudgetBurns": ({OURS: "0+40x60"}, {OURS: "0+20x60"}),
    "PocketServingBudgetBurnsSlowly": ({OURS: "0+6x60"}, {OURS: "0+4x60"}),
    "PocketUnpaidRelaysBudgetBurnsFast": ({UNRECORDED: "0+16x60"}, {UNRECORDED: "0+10x60"}),
    "PocketUnpaidRelaysBudgetBurns": ({UNPROVABLE: "0+7x60"}, {UNPROVABLE: "0+5x60"}),
    "PocketUnpaidSessionsBudgetBurnsFast": ({LOST: "0x50 4x10"}, {LOST: "0x50 3x10"}),
    "PocketUnpaidSessionsBudgetBurns": ({LOST: "0x50 1x10"}, {LOST: "1x60"}),
}
# Ratio → series before and in the last two minutes, so that every window has another value, and what they count.
RATIOS = {
    "pocket:relays_unserved": ({SERVED: "0+90x60", OURS: "0+10x60", THEIRS: "0+500x60"}, 0.1),
    "pocket:relays_unpaid": ({MINED: "0+60x60", UNRECORDED: "0+30x60", UNPROVABLE: "0+10x60"}, 0.4),
    "pocket:sessions_unpaid": ({SETTLED: "0+3x60", LOST: "0+1x60"}, 0.25),
}


def rule():
    resource = RelayMiner.model_validate(relay_miner("pocket"))
    (found,) = rules(Context(resource, "u", Images(), "o", capabilities=frozenset({"PrometheusRule"})))
    return found["spec"]


def rows():
    return [row for group in rule()["groups"] for row in group["rules"]]


def series(values, name="main"):
    for text, numbers in values.items():
        family, _, more = text.rstrip("}").partition("{")
        labels = f'namespace="pocket",pocket_network_relayminer="{name}",pod="a"{"," + more if more else ""}'
        yield {"series": f"{family}{{{labels}}}", "values": numbers}


def test_what_counts_as_unserved_and_as_unpaid_is_what_the_workloads_mean():
    assert set(UNSERVED_REASONS) == {reason.label for reason in RejectionReason if reason.status >= 500}
    assert set(LOSSES) == {outcome.value for outcome in outcomes.LOSSES}


def test_every_burn_alert_has_a_case_and_a_runbook_entry():
    alerts = {alert.name for objective in OBJECTIVES for alert in objective.alerts}
    assert alerts == set(CASES)
    assert alerts <= set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE))


@pytest.mark.processes
@pytest.mark.parametrize("name", CASES)
def test_a_budget_that_burns_fires_and_one_that_burns_slower_or_is_anothers_does_not(tmp_path, name):
    alert = next(row for row in rows() if row.get("alert") == name)
    fires, quiet = CASES[name]
    tests = []
    for inputs, expected in (
        (list(series(SOUND | fires)), True),
        (list(series(SOUND | quiet)), False),
        ([*series(SOUND), *series(SOUND | fires, "other")], False),
    ):
        told = [{"exp_labels": alert["labels"], "exp_annotations": alert["annotations"]}] if expected else []
        case = {"eval_time": "59m", "alertname": name, "exp_alerts": told}
        tests.append({"interval": "1m", "input_series": inputs, "alert_rule_test": [case]})
    passes(tmp_path, without_others(rule(), name), *tests)


RECORDS = sorted(row["record"] for row in rows() if "record" in row)


def test_every_recording_rule_is_one_of_the_ratios():
    assert {record.rpartition(":")[0] for record in RECORDS} == set(RATIOS)
    windows = {name: {alert.long for alert in o.alerts} | {alert.short for alert in o.alerts}
               for o in OBJECTIVES for name in [o.record]}  # fmt: skip
    assert set(RECORDS) == {f"{name}:ratio_increase{window}" for name in RATIOS for window in windows[name]}


@pytest.mark.processes
@pytest.mark.parametrize("record", RECORDS)
def test_a_ratio_is_that_of_bad_to_all_events(tmp_path, record):
    inputs, value = RATIOS[record.rpartition(":")[0]]
    shown = f'{record}{{namespace="pocket",pocket_network_relayminer="main"}}'
    expected = {"expr": f"round({record}, 0.001)", "eval_time": "59m",
                "exp_samples": [{"labels": shown.replace(record, ""), "value": value}]}  # fmt: skip
    anothers = dict.fromkeys((SERVED, MINED, SETTLED), "0x60") | dict.fromkeys((OURS, UNRECORDED, LOST), "0+900x60")
    rows_ = [*series(inputs), *series(anothers, "other")]
    test = {"interval": "1m", "input_series": rows_, "promql_expr_test": [expected]}
    nothing_bad = {name: values if name in (SERVED, MINED, SETTLED) else "0x60" for name, values in inputs.items()}
    none = {**expected, "exp_samples": [{"labels": shown.replace(record, ""), "value": 0}]}
    sound = {"interval": "1m", "input_series": list(series(nothing_bad)), "promql_expr_test": [none]}
    passes(tmp_path, without_others(rule(), record), test, sound)


@pytest.mark.processes
@pytest.mark.parametrize("record", RECORDS)
def test_a_ratio_counts_what_is_in_its_window_and_forgets_what_is_older(tmp_path, record):
    """Bad events between the third and the fourth quarter: within six quarters' window, outside of eight quarters'."""
    number, unit = re.fullmatch(r"(\d+)([mhd])", record.rpartition(":ratio_increase")[2]).groups()
    quarter = int(number) * {"m": 60, "h": 3600, "d": 86400}[unit] // 4
    bad = dict.fromkeys((OURS, UNRECORDED, LOST), "0x3 9x8")
    good = dict.fromkeys((SERVED, MINED, SETTLED), "0+1x8")
    labels = '{namespace="pocket",pocket_network_relayminer="main"}'
    asked = [
        {
            "expr": f"{record} > bool 0", "eval_time": f"{quarters * quarter}s",
            "exp_samples": [{"labels": labels, "value": value}],
        }
        for quarters, value in ((6, 1), (8, 0))
    ]  # fmt: skip
    step = f"{quarter}s"
    test = {"interval": step, "input_series": list(series(good | bad)), "promql_expr_test": asked}
    passes(tmp_path, without_others(rule(), record), test, step=step)


@pytest.mark.processes
def test_without_any_relay_or_session_nothing_fires(tmp_path):
    cases = [{"eval_time": "59m", "alertname": name, "exp_alerts": []} for name in CASES]
    passes(tmp_path, rule(), {"interval": "1m", "input_series": [], "alert_rule_test": cases})
