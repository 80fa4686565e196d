"""What is installed is generated, consistent, and has no more rights than it needs."""

import json
import re
from pathlib import Path

import pytest
import yaml

import generate_manifests
import generate_reference
import pocket_miner.miner_metrics
import pocket_operator.controller.operator_metrics
import pocket_relayer.relayer_metrics
from generated import differing
from pocket.api.crd import definitions
from pocket.api.manifests import load_manifests
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.install import Values, monitors, objects
from pocket_operator.resources.monitoring import ALERTS

ROOT = Path(__file__).resolve().parents[2]


def test_every_generated_file_is_what_the_models_say():
    assert differing({**generate_manifests.documents(), **generate_reference.documents()}) == []


@pytest.mark.parametrize("crd", definitions().values(), ids=definitions())
def test_every_field_of_the_schemas_is_structural(crd):
    def walk(node, path):
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title"} & set(node), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        for name, child in node.get("properties", {}).items():
            walk(child, f"{path}.{name}")
        for part in ("items", "additionalProperties"):
            if isinstance(node.get(part), dict):
                walk(node[part], f"{path}[]")

    walk(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], crd["spec"]["names"]["kind"])


@pytest.mark.parametrize("cluster_wide", [True, False])
def test_the_flavours_bind_the_operators_own_account_in_its_own_namespace(cluster_wide):
    rows = objects(Values(namespace="here"), cluster_wide=cluster_wide)
    for row in rows:
        assert row["metadata"].get("namespace", "here") == "here"
        for subject in row.get("subjects", ()):
            assert subject == {"kind": "ServiceAccount", "name": "pocket-operator", "namespace": "here"}
    kinds = {row["kind"] for row in rows}
    assert ("ClusterRole" in kinds) == cluster_wide


def test_the_chart_names_every_value_that_its_templates_use_and_no_other():
    chart = ROOT / "manifests/chart"
    template = "".join((chart / f"templates/{name}.yaml").read_text() for name in ("operator", "monitoring"))
    values = yaml.safe_load((chart / "values.yaml").read_text())
    flat = {f"{k}.{s}" for k, v in values.items() if isinstance(v, dict) for s in v}
    flat |= {k for k, v in values.items() if not isinstance(v, dict)}
    assert all(f".Values.{name}" in template for name in flat)
    schema = json.loads((chart / "values.schema.json").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    assert set(values["images"]) == set(schema["properties"]["images"]["properties"])
    assert "@" not in template.replace("@sha256", "")


def test_the_charts_monitoring_is_that_of_the_kustomize_folder():
    text = (ROOT / "manifests/chart/templates/monitoring.yaml").read_text()
    inside = text.split("{{- if .Values.monitoring.enabled }}")[1].split("{{- end }}")[0]
    assert list(yaml.safe_load_all(inside.replace("{{ .Release.Namespace }}", "pocket-system"))) == monitors(Values())


def test_the_charts_two_flavours_are_the_kustomize_ones_with_other_values():
    text = (ROOT / "manifests/chart/templates/operator.yaml").read_text()
    for expression, value in (
        ("{{ .Release.Namespace }}", "pocket-system"), ("{{ .Values.replicas }}", "2"),
        ("{{ .Values.logLevel }}", "INFO"), ("{{ .Values.images.pullPolicy }}", "IfNotPresent"),
        ("{{ .Values.images.operator }}", Values().operator_image),
        ("{{ .Values.images.relayer }}", Values().relayer_image),
        ("{{ .Values.images.console }}", Values().console_image),
        ("{{ .Values.images.miner }}", Values().miner_image), ("{{ .Values.images.redis }}", Values().redis_image),
    ):  # fmt: skip
        text = text.replace(expression, value)
    namespaced, cluster = text.split("{{- else }}")
    namespaced = namespaced.split("{{- if .Values.namespaced }}")[1]
    cluster = cluster.split("{{- end }}")[0]
    assert list(yaml.safe_load_all(namespaced)) == objects(Values(), cluster_wide=False)
    assert list(yaml.safe_load_all(cluster)) == objects(Values(), cluster_wide=True)


def test_every_reason_and_every_alert_has_an_entry_that_says_what_to_do():
    troubleshoot = (ROOT / "docs/troubleshoot.md").read_text()
    assert [reason for reason in ConditionReason if f"`{reason.value}`" not in troubleshoot] == []
    runbook = (ROOT / "docs/runbook.md").read_text()
    assert [alert.name for alert in ALERTS if f"## {alert.name}\n" not in runbook] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_resources_in_the_docs_are_valid(page, tmp_path):
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)):
        if "pocket.network/v1beta1" not in block:
            continue
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        manifests = load_manifests([file])
        assert manifests.relay_miners or manifests.suppliers


def test_every_file_that_the_docs_link_to_exists():
    broken = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            if not (page.parent / link).exists():
                broken.append(f"{page.name}: {link}")
    assert broken == []


def test_every_metric_that_an_alert_names_exists():
    known = set()
    for module in (
        pocket_relayer.relayer_metrics,
        pocket_miner.miner_metrics,
        pocket_operator.controller.operator_metrics,
    ):
        known |= {m._name for m in vars(module).values() if hasattr(m, "_name")}
    named = {name for alert in ALERTS for name in re.findall(r"pocket_\w+", alert.expression)}
    assert {name.removesuffix("_total").removesuffix("_bucket") for name in named} <= known
