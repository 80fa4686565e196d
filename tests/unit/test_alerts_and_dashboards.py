"""Alerts fire when they should, by promtool, and dashboards query existing metrics."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from check_fragile import loss_rows
from pocket.api.relayminer import RelayMiner
from pocket_miner import miner_metrics
from pocket_miner.storage.outcomes import SessionOutcome
from pocket_operator import install
from pocket_operator.controller import operator_metrics
from pocket_operator.resources.context import Context, Images
from pocket_operator.resources.dashboard_panels import ROLES, ROWS
from pocket_operator.resources.dashboards import dashboard, dashboards
from pocket_operator.resources.monitoring import ALERTS, rules
from pocket_relayer import relayer_metrics
from promtool import passes, promtool, without_others
from resources import relay_miner

RUNBOOK = Path(__file__).parents[2] / "docs/runbook.md"
OF_PODS = 'namespace="pocket",pocket_network_relayminer="{name}"'
PODS = OF_PODS.format(name="main")
OF_OPERATOR = 'namespace="pocket-system",relay_miner_namespace="pocket",relay_miner="{name}"'

# Alert → series (name with further labels → values a minute) that make it fire, and series that do not.
CASES = {
    "PocketMinerAbsent": ({}, {"pocket_miner_block_height": "1+1x60"}),
    "PocketRelayerAbsent": ({}, {"pocket_relayer_supplier_keys": "2x60"}),
    "PocketSuppliersNotServed": (
        {
            'pocket_operator_suppliers_declared{instance="a"}': "3x60",
            'pocket_operator_suppliers_served{instance="a"}': "1x60",
        },
        {
            'pocket_operator_suppliers_declared{instance="a"}': "2x60",
            'pocket_operator_suppliers_served{instance="a"}': "2x60",
        },
    ),
    "PocketBlocksStale": ({"pocket_miner_block_height": "7x60"}, {"pocket_miner_block_height": "1+1x60"}),
    "PocketSessionLost": (
        {'pocket_miner_session_outcomes_total{outcome="claim_missed"}': "0x30 1x30"},
        {'pocket_miner_session_outcomes_total{outcome="settled"}': "0+5x60"},
    ),
    "PocketRelaysNotRecorded": (
        {'pocket_relayer_relays_not_recorded_total{reason="unavailable"}': "0x55 1x5"},
        {'pocket_relayer_relays_not_recorded_total{reason="unavailable"}': "9x60"},
    ),
    "PocketEntriesRefused": (
        {'pocket_miner_relays_refused_total{reason="not a relay"}': "0x55 1x5"},
        {'pocket_miner_relays_refused_total{reason="not a relay"}': "9x60"},
    ),
    "PocketRelaysUnprovable": (
        {'pocket_relayer_relays_unprovable_total{service="eth"}': "0x50 1x10"},
        {'pocket_relayer_relays_unprovable_total{service="eth"}': "7x60"},
    ),
    "PocketRelaysRejected": (
        {"pocket_relayer_relays_rejected_total": "0+30x60", "pocket_relayer_relays_received_total": "0+100x60"},
        {"pocket_relayer_relays_rejected_total": "0+10x60", "pocket_relayer_relays_received_total": "0+100x60"},
    ),
    "PocketRelaysWaiting": (
        {'pocket_relayer_relays_queued{pod="a"}': "3000x60", 'pocket_relayer_relays_queued{pod="b"}': "3000x60"},
        {'pocket_relayer_relays_queued{pod="a"}': "3000x60"},
    ),
    "PocketSupplierKeysMissing": (
        {'pocket_relayer_supplier_keys{pod="a"}': "2x60", 'pocket_relayer_supplier_keys{pod="b"}': "0x60"},
        {'pocket_relayer_supplier_keys{pod="a"}': "2x60"},
    ),
    "PocketConflictingClaim": (
        {"pocket_miner_conflicting_claims_total": "0x50 1x10"},
        {"pocket_miner_conflicting_claims_total": "4x60"},
    ),
    "PocketUnknownClaim": (
        {"pocket_miner_unknown_claims_total": "0x50 1x10"},
        {"pocket_miner_unknown_claims_total": "4x60"},
    ),
    "PocketShardsUnheld": (
        {'pocket_miner_shards{pod="a"}': "8x60", 'pocket_miner_shards{pod="b"}': "7x60"},
        {'pocket_miner_shards{pod="a"}': "8x60", 'pocket_miner_shards{pod="b"}': "8x60"},
    ),
    "PocketWindowsTight": (
        {
            'pocket_miner_window_margin_blocks_bucket{message="claim",le="1"}': "0+5x60",
            'pocket_miner_window_margin_blocks_bucket{message="claim",le="5"}': "0+9x60",
            'pocket_miner_window_margin_blocks_bucket{message="claim",le="+Inf"}': "0+10x60",
        },
        {
            'pocket_miner_window_margin_blocks_bucket{message="claim",le="1"}': "0x60",
            'pocket_miner_window_margin_blocks_bucket{message="claim",le="5"}': "0+1x60",
            'pocket_miner_window_margin_blocks_bucket{message="claim",le="+Inf"}': "0+10x60",
        },
    ),
    "PocketBalanceLow": (
        {'pocket_miner_balance_upokt{supplier="a"}': "999999x60", 'pocket_miner_balance_upokt{supplier="b"}': "9e9x60"},
        {'pocket_miner_balance_upokt{supplier="a"}': "1000000x60"},
    ),
    "PocketStakeRunwayShort": (
        {'pocket_miner_stake_runway_penalties{supplier="a"}': "2x60"},
        {'pocket_miner_stake_runway_penalties{supplier="a"}': "3x60"},
    ),
    "PocketStakeRunwayLow": (
        {'pocket_miner_stake_runway_penalties{supplier="a"}': "9x60"},
        {'pocket_miner_stake_runway_penalties{supplier="a"}': "10x60"},
    ),
    "PocketEndpointsBroken": (
        {
            'pocket_miner_endpoint_problems{supplier="a"}': "1x60",
            'pocket_miner_endpoint_problems{supplier="b"}': "0x60",
        },
        {'pocket_miner_endpoint_problems{supplier="a"}': "0x60"},
    ),
    "PocketChainDiverges": (
        {
            'pocket_relayer_chain_cache_requests_total{pod="r",source="divergent"}': "0x50 1x10",
            'pocket_miner_chain_cache_requests_total{pod="m",source="divergent"}': "0x60",
        },
        {
            'pocket_relayer_chain_cache_requests_total{source="divergent"}': "1x60",
            'pocket_miner_chain_cache_requests_total{source="divergent"}': "0x60",
        },
    ),
    "PocketChainNodesDisagree": (
        {
            'pocket_miner_chain_nodes{health="healthy"}': "1x60",
            'pocket_miner_chain_nodes{health="lagging"}': "1x60",
        },
        {
            'pocket_miner_chain_nodes{health="healthy"}': "2x60",
            'pocket_miner_chain_nodes{health="lagging"}': "0x60",
        },
    ),
    "PocketClockSkewed": (
        {'pocket_miner_block_age_seconds{pod="a"}': "-6x60", 'pocket_miner_block_age_seconds{pod="b"}': "30x60"},
        {'pocket_miner_block_age_seconds{pod="a"}': "-4x60"},
    ),
    "PocketProbesFail": (
        {'pocket_relayer_simulated_relays_total{result="backend_failed"}': "0+1x60"},
        {'pocket_relayer_simulated_relays_total{result="served"}': "0+1x60"},
    ),
    "PocketRedisMemoryHigh": (
        {
            'pocket_miner_redis_memory_bytes{type="used"}': "81x60",
            'pocket_miner_redis_memory_bytes{type="max"}': "100x60",
        },
        {
            'pocket_miner_redis_memory_bytes{type="used"}': "99x60",
            'pocket_miner_redis_memory_bytes{type="max"}': "0x60",
        },
    ),
    "PocketMinerVolumeFilling": (
        {
            'pocket_miner_volume_bytes{pod="a",type="total"}': "100x60",
            'pocket_miner_volume_bytes{pod="a",type="free"}': "9x60",
            'pocket_miner_volume_bytes{pod="a",type="reserved"}': "5x60",
        },
        {
            'pocket_miner_volume_bytes{pod="a",type="total"}': "100x60",
            'pocket_miner_volume_bytes{pod="a",type="free"}': "50x60",
            'pocket_miner_volume_bytes{pod="a",type="reserved"}': "5x60",
        },
    ),
    "PocketMinerVolumeReadOnly": (
        {"pocket_miner_volume_read_only": "1x60"},
        {"pocket_miner_volume_read_only": "0x60"},
    ),
    "PocketMinerVolumeHangs": ({"pocket_miner_volume_hangs": "1x60"}, {"pocket_miner_volume_hangs": "0x60"}),
    "PocketRelayerLogDamaged": (
        {"pocket_relayer_local_log_damaged_segments": "0x60", "pocket_relayer_local_log_damaged_records": "0x10 1x50"},
        {"pocket_relayer_local_log_damaged_segments": "0x60", "pocket_relayer_local_log_damaged_records": "0x60"},
    ),
    "PocketMinerStepsFail": (
        {'pocket_miner_errors_total{step="seal"}': "0+12x60"},
        {'pocket_miner_errors_total{step="seal"}': "0+1x60"},
    ),
}  # fmt: skip


def families(*modules):
    """Names as Prometheus stores them, with their labels."""
    found = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, MetricWrapperBase):
                name, labels = value._name, set(value._labelnames)
                if value._type == "counter":
                    found[f"{name}_total"] = labels
                elif value._type == "histogram":
                    found |= {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels, f"{name}_sum": labels}
                else:
                    found[name] = labels
    return found


def context():
    resource = RelayMiner.model_validate(relay_miner("pocket"))
    capabilities = frozenset({"PodMonitor", "PrometheusRule"})
    return Context(resource, "uid-1", Images(), "pocket-system", capabilities=capabilities)


def series(rows, relay_miner_name):
    for name, values in rows.items():
        family, _, more = name.rstrip("}").partition("{")
        labels = (OF_OPERATOR if family.startswith("pocket_operator_") else OF_PODS).format(name=relay_miner_name)
        yield {"series": f"{family}{{{labels}{',' + more if more else ''}}}", "values": values}


def test_every_alert_has_a_case_a_runbook_entry_and_asks_for_what_there_is():
    assert {alert.name for alert in ALERTS} == set(CASES)
    entries = set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE))
    assert {alert.name for alert in ALERTS} <= entries
    known = families(relayer_metrics, miner_metrics, operator_metrics)
    for fires, _ in CASES.values():
        for name in fires:
            family, _, labels = name.partition("{")
            assert set(re.findall(r"(\w+)=", labels)) <= known[family] | {"pod", "instance"}, name


@pytest.mark.processes
@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_for_its_own_relayminer_and_not_for_a_sound_one(tmp_path, name):
    (rule,) = rules(context())
    alert = next(row for group in rule["spec"]["groups"] for row in group["rules"] if row.get("alert") == name)
    fires, quiet = CASES[name]
    # Another RelayMiner's trouble, beside our sound series, must not fire ours.
    sound = [*series(quiet, "main"), *series(fires, "other")]
    tests = []
    for rows, expected in ((list(series(fires, "main")), True), (sound, False)):
        tests.append({"interval": "1m", "input_series": rows, "alert_rule_test": [_expected(alert, expected)]})
    passes(tmp_path, without_others(rule["spec"], name), *tests)


OF_REPLICAS = 'namespace="pocket-system",pod="{pod}"'
OPERATOR_CASES = {
    "PocketOperatorDown": (
        {"pocket_operator_leader{a}": "0x60", "pocket_operator_leader{b}": "1x20 _x40"},
        {"pocket_operator_leader{a}": "0x60", "pocket_operator_leader{b}": "1x60"},
        {},
    ),
    "PocketOperatorReconcilesFail": (
        {'pocket_operator_reconciles_total{a,result="failed"}': "0+4x60"},
        {'pocket_operator_reconciles_total{a,result="failed"}': "0+1x60",
         'pocket_operator_reconciles_total{a,result="done"}': "0+90x60"},
        {},
    ),
    "PocketOperatorRejected": (
        {'pocket_operator_api_refusals_total{a,status="403"}': "0+1x60"},
        {'pocket_operator_api_refusals_total{a,status="403"}': "5x60"},
        {"status": "403"},
    ),
    "PocketOperatorContested": (
        {'pocket_operator_contested_writes_total{a,kind="Deployment"}': "0+1x60"},
        {'pocket_operator_contested_writes_total{a,kind="Deployment"}': "0+0x30 3x30"},
        {"kind": "Deployment"},
    ),
}  # fmt: skip


@pytest.mark.processes
@pytest.mark.parametrize("name", OPERATOR_CASES)
def test_an_alert_on_the_operator_fires_and_stays_quiet(tmp_path, name):
    assert set(OPERATOR_CASES) == {row[0] for row in install.OPERATOR_ALERTS}
    entries = set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE))
    assert set(OPERATOR_CASES) <= entries
    fires, quiet, labels = OPERATOR_CASES[name]
    (rule,) = (row for row in install.monitors(install.Values()) if row["kind"] == "PrometheusRule")
    alert = next(row for group in rule["spec"]["groups"] for row in group["rules"] if row.get("alert") == name)
    shown = {**labels, **alert["labels"]}
    tests = []
    for rows, expected in ((fires, True), (quiet, False)):
        inputs = [
            {"series": re.sub(r"\{([ab])", lambda m: "{" + OF_REPLICAS.format(pod=m[1]), series_name), "values": values}
            for series_name, values in rows.items()
        ]
        told = [{"exp_labels": shown, "exp_annotations": alert["annotations"]}] if expected else []
        case = {"eval_time": "59m", "alertname": name, "exp_alerts": told}
        tests.append({"interval": "1m", "input_series": inputs, "alert_rule_test": [case]})
    passes(tmp_path, without_others(rule["spec"], name), *tests)


def _expected(alert, fires):
    labels = {
        "PocketBalanceLow": {"supplier": "a"}, "PocketStakeRunwayShort": {"supplier": "a"},
        "PocketEndpointsBroken": {"supplier": "a"}, "PocketStakeRunwayLow": {"supplier": "a"},
        "PocketMinerStepsFail": {"step": "seal"}, "PocketWindowsTight": {"message": "claim"},
        "PocketSessionLost": {"outcome": "claim_missed"}, "PocketRelaysNotRecorded": {"reason": "unavailable"},
        "PocketRelaysUnprovable": {"service": "eth"}, "PocketEntriesRefused": {"reason": "not a relay"},
        "PocketChainNodesDisagree": {"health": "lagging"},
    }.get(alert["alert"], {})  # fmt: skip
    apart = {"namespace": "pocket", "pocket_network_relayminer": "main"}
    shown = {**labels, **apart, "severity": alert["labels"]["severity"]}
    told = [{"exp_labels": shown, "exp_annotations": alert["annotations"]}] if fires else []
    return {"eval_time": "59m", "alertname": alert["alert"], "exp_alerts": told}


INCREASES = [alert for alert in ALERTS if "increase(" in alert.expression]


def counted_events(alert):
    """Return the families in `increase(...)` with the alert's label values, or None for all of them."""
    for family, matcher in re.findall(r"increase\((pocket_\w+)\{\{\{pods\}(?:,([^}]*))?\}\}", alert.expression):
        label, _, values = matcher.partition("=")
        if family == "pocket_relayer_relays_not_recorded_total":
            yield family, "reason", list(relayer_metrics.Unrecorded)
        yield family, label, values.strip('~"').split("|") if values and "!" not in matcher else None


def test_series_of_alerts_on_first_events_exist_at_zero_from_the_start():
    miner_metrics.start_at_zero(SessionOutcome)
    relayer_metrics.start_at_zero(["eth"])
    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    checked = set()
    for alert in INCREASES:
        if not alert.expression.endswith("> 0"):
            continue  # alerts on several events fire without the first one
        for family, label, values in counted_events(alert):
            rows = [sample for sample in samples if sample.name == family]
            assert rows, f"{family} does not exist before its first event"
            if values is not None:
                assert set(values) <= {row.labels[label] for row in rows}, family
            checked.add(family)
    assert len(checked) == 8


@pytest.mark.processes
@pytest.mark.parametrize("alert", [alert for alert in INCREASES if alert.expression.endswith("> 0")],
                         ids=lambda alert: alert.name)  # fmt: skip
def test_an_alert_fires_for_the_first_event_of_a_pod_that_restarted(tmp_path, alert):
    fires, _ = CASES[alert.name]
    (name, _), *others = fires.items()
    before, after = name.replace("}", ',pod="old"}'), name.replace("}", ',pod="new"}')
    if "{" not in name:
        before, after = f'{name}{{pod="old"}}', f'{name}{{pod="new"}}'
    if 'pod="r"' in name:
        before, after = name, name.replace('pod="r"', 'pod="new"')
    rows = {before: "7x45", after: "_x47 0x3 1x9", **dict(others)}
    (rule,) = rules(context())
    row = next(r for group in rule["spec"]["groups"] for r in group["rules"] if r.get("alert") == alert.name)
    expected = _expected(row, True)
    for entry in expected["exp_alerts"]:
        if "sum(" not in alert.expression:
            entry["exp_labels"]["pod"] = "new"
    test = {"interval": "1m", "input_series": list(series(rows, "main")), "alert_rule_test": [expected]}
    passes(tmp_path, without_others(rule["spec"], alert.name), test)


LOSSES = [row for row in loss_rows() if row[2] != "none"]


@pytest.mark.processes
@pytest.mark.parametrize(("loss", "metric", "name"), LOSSES, ids=lambda value: value.replace(" ", "_"))
def test_the_alert_that_the_page_of_losses_names_fires_for_that_very_loss(tmp_path, loss, metric, name):
    """A loss that is the value of a label fires it by that value, once, at the first event of a pod."""
    (label,) = families(miner_metrics, relayer_metrics)[metric] & {"outcome", "reason"} or {""}
    fires = {f'{metric}{{{label}="{loss}"}}': "0x50 1x10"} if label else CASES[name][0]
    (rule,) = rules(context())
    alert = next(row for group in rule["spec"]["groups"] for row in group["rules"] if row.get("alert") == name)
    expected = _expected(alert, True)
    for entry in expected["exp_alerts"]:
        entry["exp_labels"] |= {label: loss} if label else {}
    test = {"interval": "1m", "input_series": list(series(fires, "main")), "alert_rule_test": [expected]}
    passes(tmp_path, without_others(rule["spec"], name), test)


@pytest.mark.processes
def test_every_panel_of_the_dashboard_is_a_query_that_prometheus_takes_over_families_that_exist(tmp_path):
    known, shown = families(relayer_metrics, miner_metrics), set()
    model = dashboard("main", "pocket")
    queries = [target["expr"] for panel in model["panels"] for target in panel.get("targets", ())]
    for query in queries:
        assert PODS in query
        names = set(re.findall(r"pocket_\w+(?=\{)", query))
        assert names <= set(known), query
        shown |= names
        for labels in re.findall(r"by \(([^)]*)\)", query):
            wanted = {label.strip() for label in labels.split(",")} - {"pod"}
            assert wanted <= set().union(*(known[name] for name in names)), query
    rule = {"groups": [{"name": "panels", "rules": [{"record": f"p:{n}", "expr": q} for n, q in enumerate(queries)]}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule))
    told = promtool("check", "rules", "--lint=none", str(tmp_path / "rules.yaml"))
    assert told.returncode == 0, told.stdout + told.stderr
    left_out = {name for name in known if not name.endswith(("_count", "_sum"))} - shown
    assert left_out == {"pocket_relayer_simulated_relay_seconds_bucket"}, "metrics that no panel shows"


def test_panels_do_not_overlap_and_fill_their_rows():
    panels = dashboard("main", "pocket")["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len(panels) == len(ROWS) + sum(len(row.panels) for row in ROWS)


def test_the_dashboards_are_a_configmap_that_grafanas_sidecar_finds():
    (child,) = dashboards(context())
    assert child["metadata"]["labels"]["grafana_dashboard"] == "1"
    titles = {json.loads(text)["title"] for text in child["data"].values()}
    assert titles == {
        "Pocket relay mining: pocket/main", *(f"Pocket {role}: pocket/main" for role in ROLES)
    }  # fmt: skip
    assert len({json.loads(text)["uid"] for text in child["data"].values()}) == len(titles)


def test_every_row_is_on_the_dashboard_of_a_role():
    assert {title for titles in ROLES.values() for title in titles} == {row.title for row in ROWS}


@pytest.mark.processes
@pytest.mark.parametrize("name", ["operator", *ROLES])
def test_the_dashboards_that_are_shipped_as_json_have_queries_that_prometheus_takes(tmp_path, name):
    model = json.loads((RUNBOOK.parents[1] / f"manifests/monitoring/dashboards/{name}.json").read_text())
    queries = [target["expr"] for panel in model["panels"] for target in panel.get("targets", ())]
    known = families(relayer_metrics, miner_metrics, operator_metrics)
    for query in queries:
        assert set(re.findall(r"pocket_(?!network)\w+", query)) <= set(known), query
        assert "$pods" not in query
        assert name == "operator" or 'namespace="$namespace",pocket_network_relayminer="$relayminer"' in query
    rule = {"groups": [{"name": "panels", "rules": [{"record": f"p:{n}", "expr": q} for n, q in enumerate(queries)]}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule))
    told = promtool("check", "rules", "--lint=none", str(tmp_path / "rules.yaml"))
    assert told.returncode == 0, told.stdout + told.stderr
    if name == "operator":
        shown = set(re.findall(r"pocket_\w+", " ".join(queries)))
        assert {f for f in families(operator_metrics) if not f.endswith(("_count", "_sum"))} == shown


def test_the_dashboards_can_be_left_out():
    resource = RelayMiner.model_validate(relay_miner("pocket", monitoring={"dashboards": False}))
    capabilities = frozenset({"PodMonitor"})
    assert dashboards(Context(resource, "u", Images(), "o", capabilities=capabilities)) == []
    assert dashboards(Context(context().relay_miner, "u", Images(), "o")) == []
