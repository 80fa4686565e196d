"""What is installed is generated, consistent, and has no more rights than it needs."""

import functools
import json
import re
import textwrap
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
from pocket_operator.install import Values, monitors, objects, policies
from pocket_operator.resources.monitoring import ALERTS

ROOT = Path(__file__).resolve().parents[2]


def test_every_generated_file_is_what_the_models_say():
    assert differing({**generate_manifests.documents(), **generate_reference.documents()}) == []


@pytest.mark.parametrize("crd", definitions().values(), ids=definitions())
def test_every_field_of_the_schemas_is_structural(crd):
    def walk(node, path):
        assert not {"$ref", "anyOf", "allOf", "title"} & set(node), path
        assert all(set(choice) == {"required"} for choice in node.get("oneOf", ())), f"{path}: only which field is set"
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        for name, child in node.get("properties", {}).items():
            walk(child, f"{path}.{name}")
        for part in ("items", "additionalProperties"):
            if isinstance(node.get(part), dict):
                walk(node[part], f"{path}[]")

    walk(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], crd["spec"]["names"]["kind"])


def objects_of(folder):
    """Return the objects of a kustomization and of those that it names."""
    (file,) = folder.glob("kustomization.yaml")
    for name in yaml.safe_load(file.read_text())["resources"]:
        path = (folder / name).resolve()
        yield from objects_of(path) if path.is_dir() else yaml.load_all(path.read_text(), yaml.CSafeLoader)


def test_each_flavours_commands_make_the_namespace_before_what_is_in_it():
    flavours = re.findall(
        r"^\| (?:cluster-wide|namespaced) \|.*$", (ROOT / "docs/install.md").read_text(), re.MULTILINE
    )
    assert len(flavours) == 2
    for row in flavours:
        made = set()
        for folder in re.findall(r"`kubectl apply [^`]*-k (manifests[^` ]*)`", row):
            rows = list(objects_of(ROOT / folder))
            made |= {row["metadata"]["name"] for row in rows if row["kind"] == "Namespace"}
            assert {row["metadata"].get("namespace") for row in rows} - {None} <= made, f"{folder} in {made}"


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
    template = "".join(
        (chart / f"templates/{name}.yaml").read_text() for name in ("operator", "policies", "monitoring")
    )
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


@pytest.mark.parametrize("namespaced", [False, True])
def test_the_charts_policies_are_those_of_the_kustomize_folder(namespaced):
    """Those of a namespaced release have names of their own, so that two of them do not claim the same object."""
    text = (ROOT / "manifests/chart/templates/policies.yaml").read_text()
    condition = '(eq .Values.policies "always") (and (eq .Values.policies "auto") (not .Values.namespaced))'
    inside = text.split(f"{{{{- if or {condition} }}}}")[1].removesuffix("{{- end }}\n")
    suffix = "-{{ .Release.Namespace }}" if namespaced else ""
    inside = inside.replace("{{ if .Values.namespaced }}-{{ .Release.Namespace }}{{ end }}", suffix)
    names = f"pocket-operator{suffix}".replace("{{ .Release.Namespace }}", "pocket-system")
    found = list(yaml.safe_load_all(inside.replace("{{ .Release.Namespace }}", "pocket-system")))
    assert found == policies(Values(policies=names))


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
    cluster = cluster.rpartition("{{- end }}")[0]
    assert rendered(namespaced) == objects(Values(), cluster_wide=False)
    assert rendered(cluster) == objects(Values(), cluster_wide=True)


CHART = ROOT / "manifests/chart"
_BLOCK = re.compile(r"\s*\{\{- with \.Values\.([\w.]+) \}\}(.*?)\s*\{\{- end \}\}", re.DOTALL)
_INSERTED = re.compile(r"\s*\{\{- toYaml (\S+) \| nindent (\d+) \}\}")


def rendered(template: str, **pod) -> list[dict]:
    """Return the objects of a template of the chart with values below `pod`, merged with the defaults as Helm does.

    Of Helm's language it knows what the generator writes: `with`, `toYaml` and `nindent`.
    """
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for name, value in pod.items():
        known = values["pod"][name]
        values["pod"][name] = known | value if isinstance(known, dict) else value

    def of(path: str):
        return functools.reduce(lambda found, key: found[key], path.removeprefix(".Values.").split("."), values)

    def inserted(text: str, dot: object) -> str:
        def lines(found: re.Match) -> str:
            value = dot if found[1] == "." else of(found[1])
            return textwrap.indent("\n" + yaml.safe_dump(value).rstrip("\n."), " " * int(found[2])).rstrip()

        return _INSERTED.sub(lines, text)

    blocks = _BLOCK.sub(lambda found: inserted(found[2], of(found[1])) if of(found[1]) else "", template)
    return list(yaml.safe_load_all(inserted(blocks, None)))


def chart_pod(**pod) -> dict:
    text = (
        (CHART / "templates/operator.yaml").read_text().split("{{- else }}")[0].split("{{- if .Values.namespaced }}")[1]
    )
    text = text.replace("{{ .Values.replicas }}", "2")
    (deployment,) = [row for row in rendered(text, **pod) if row["kind"] == "Deployment"]
    return deployment["spec"]["template"]


def test_the_charts_pod_values_reach_the_operators_pod():
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
    template = chart_pod(
        labels={"tier": "control"}, annotations={"a": "b"}, env=[{"name": "HTTPS_PROXY", "value": "http://proxy:1"}],
        envFrom=[{"configMapRef": {"name": "more"}}], volumes=[{"name": "ca", "configMap": {"name": "ca"}}],
        volumeMounts=[{"name": "ca", "mountPath": "/ca"}], containers=[{"name": "sidecar", "image": "s:1"}],
        initContainers=[{"name": "first", "image": "i:1"}], resources={"limits": {"memory": "1Gi"}},
        securityContext={"runAsUser": None, "fsGroup": 7}, containerSecurityContext={"privileged": False},
        nodeSelector={"disk": "fast"}, affinity=affinity, tolerations=[{"key": "control"}], priorityClassName="high",
        runtimeClassName="gvisor", imagePullSecrets=[{"name": "registry"}], hostAliases=[{"ip": "10.0.0.1"}],
        dnsPolicy="None", dnsConfig={"nameservers": ["10.0.0.2"]}, topologySpreadConstraints=[],
    )  # fmt: skip
    plain = chart_pod()
    assert template["metadata"]["labels"] == plain["metadata"]["labels"] | {"tier": "control"}
    assert template["metadata"]["annotations"] == {"a": "b"}
    spec, before = template["spec"], plain["spec"]
    own, sidecar = spec["containers"]
    assert sidecar == {"name": "sidecar", "image": "s:1"}
    assert own["env"] == [*before["containers"][0]["env"], {"name": "HTTPS_PROXY", "value": "http://proxy:1"}]
    assert own["volumeMounts"] == [*before["containers"][0]["volumeMounts"], {"name": "ca", "mountPath": "/ca"}]
    assert (own["envFrom"], own["resources"]["limits"]) == ([{"configMapRef": {"name": "more"}}], {"memory": "1Gi"})
    assert own["securityContext"] == before["containers"][0]["securityContext"] | {"privileged": False}
    assert spec["securityContext"] == before["securityContext"] | {"runAsUser": None, "fsGroup": 7}
    assert spec["volumes"] == [*before["volumes"], {"name": "ca", "configMap": {"name": "ca"}}]
    assert {name: spec[name] for name in (
        "nodeSelector", "affinity", "tolerations", "priorityClassName", "runtimeClassName", "imagePullSecrets",
        "hostAliases", "dnsPolicy", "dnsConfig", "initContainers", "topologySpreadConstraints",
    )} == {
        "nodeSelector": {"disk": "fast"}, "affinity": affinity, "tolerations": [{"key": "control"}],
        "priorityClassName": "high", "runtimeClassName": "gvisor", "imagePullSecrets": [{"name": "registry"}],
        "hostAliases": [{"ip": "10.0.0.1"}], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.2"]},
        "initContainers": [{"name": "first", "image": "i:1"}], "topologySpreadConstraints": [],
    }  # fmt: skip


def test_the_charts_schema_refuses_what_the_operator_owns():
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["pod"]
    assert schema["additionalProperties"] is False
    assert not {"command", "args", "image", "serviceAccountName", "ports", "livenessProbe"} & set(schema["properties"])
    spec = chart_pod()["spec"]
    own = {"env": spec["containers"][0]["env"], "volumes": spec["volumes"], "containers": spec["containers"]}
    for name, rows in own.items():
        refused = schema["properties"][name]["items"]["properties"]["name"]["not"]["enum"]
        assert refused == [row["name"] for row in rows] != []


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
