"""Argo CD and Flux judge every state as they should, by the scripts and expressions that are shipped."""

import functools
import runpy
from pathlib import Path

import cel
import pytest
import yaml
from lupa.lua54 import LuaRuntime

from pocket.api.status import as_status
from pocket_operator.decide.plan import plan
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources import names
from snapshots import MINER_POD, POD, RM, snapshot, with_uid

ROOT = Path(__file__).resolve().parents[2]
ARGO = ROOT / "manifests/argocd"
SCRIPT = (ARGO / "health.lua").read_text()
SITUATIONS = runpy.run_path(str(Path(__file__).with_name("test_condition_reasons.py")))["SITUATIONS"]

ROLLING = {
    (kind, name): {
        "metadata": {"name": name, "generation": 2, "annotations": {}, "labels": {}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"image": "i"}]}}},
        "status": {"observedGeneration": 2, "readyReplicas": 0, "updatedReplicas": 1, "replicas": 1},
    }
    for kind, name in (("Deployment", names.relayer("main")), ("StatefulSet", names.miner("main")))
}
BY_REASON = {
    "Ready": "Healthy", "NoSuppliers": "Healthy", "Paused": "Suspended",
    **dict.fromkeys(
        ("RollingOut", "Draining", "LoadingKeys", "RelayMinerMissing", "RelayMinerNotReady", "SuppliersNotReady",
         "SecretMissing", "RedisSecretMissing"), "Progressing",
    ),
}  # fmt: skip
"""Health by the reason of Ready. All others are Degraded."""


def condition(kind, status, reason="R", message="m"):
    return {"type": kind, "status": status, "reason": reason, "message": message}


def resource(status=None, generation=2):
    return {"metadata": {"generation": generation}, **({} if status is None else {"status": status})}


def argo(body, script=SCRIPT):
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    lua.globals().obj = lua.table_from(body, recursive=True)
    found = lua.execute(script)
    return found.status, found.message


@functools.cache
def flux_checks() -> list[dict]:
    """Return the health checks of the Kustomization."""
    documents = yaml.safe_load_all((ROOT / "manifests/flux/kustomizations.yaml").read_text())
    return next(d["spec"]["healthCheckExprs"] for d in documents if "healthCheckExprs" in d["spec"])


def flux(body, kind="RelayMiner"):
    """Return the status as Flux computes it: the first expression that is true, in this order."""
    (row,) = (check for check in flux_checks() if check["kind"] == kind)
    for name, status in (("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")):
        if cel.evaluate(row[name], body):
            return status
    return "InProgress"


def kstatus(body):
    """Return the status as kstatus computes it, which `flux` and `helm --wait` use for kinds without expressions."""
    metadata, status = body["metadata"], body.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if "observedGeneration" in status and status["observedGeneration"] != metadata["generation"]:
        return "InProgress"
    rows = status.get("conditions") or ()
    for row in rows:
        if row["type"] in ("Reconciling", "Stalled") and row["status"] == "True":
            return "InProgress" if row["type"] == "Reconciling" else "Failed"
    ready = next((row["status"] for row in rows if row["type"] == "Ready"), "True")
    return "Current" if ready == "True" else "InProgress"


WELL = [condition("Ready", "True"), condition("Reconciling", "False"), condition("Stalled", "False")]


@pytest.mark.parametrize(
    ("status", "wanted", "of_flux"),
    [
        ({}, "Progressing", "InProgress"),
        ({"observedGeneration": 2}, "Progressing", "InProgress"),
        ({"observedGeneration": 1, "conditions": WELL}, "Progressing", "InProgress"),
        ({"observedGeneration": 2, "conditions": WELL}, "Healthy", "Current"),
        ({"observedGeneration": 2, "conditions": [condition("Ready", "False")]}, "Degraded", "InProgress"),
        ({"observedGeneration": 2, "conditions": [condition("Ready", "Unknown")]}, "Progressing", "InProgress"),
        (
            {"observedGeneration": 2, "conditions": [condition("Ready", "False"), condition("Reconciling", "True")]},
            "Progressing",
            "InProgress",
        ),
        (
            {"observedGeneration": 2, "conditions": [condition("Stalled", "True"), condition("Reconciling", "True")]},
            "Degraded",
            "Failed",
        ),
        (
            {
                "observedGeneration": 2,
                "conditions": [condition("Ready", "Unknown", "Paused"), condition("Paused", "True")],
            },
            "Suspended",
            "Current",
        ),
    ],
)
def test_the_health_follows_the_conditions(status, wanted, of_flux):
    assert argo(resource(status))[0] == wanted
    assert flux(resource(status)) == of_flux


@pytest.mark.parametrize(("of", "change"), [row[:2] for row in SITUATIONS])
def test_every_state_that_the_operator_reports_has_its_health(of, change):
    seen = snapshot(**change)
    decided = plan(seen)
    found = relay_miner_status(seen, decided) if of == "rm" else supplier_status(decided.key_checks[0], seen, decided)
    body = resource(as_status(found), found.observed_generation)
    rows = {row.type: row for row in found.conditions}
    stalled = rows["Stalled"].status == "True"
    wanted = "Degraded" if stalled else BY_REASON.get(rows["Ready"].reason, "Degraded")
    assert argo(body)[0] == wanted, rows
    of_flux = {"Healthy": "Current", "Suspended": "Current"}.get(wanted, "Failed" if stalled else "InProgress")
    assert flux(body, "RelayMiner" if of == "rm" else "Supplier") == of_flux, rows
    plain = "Failed" if stalled else "Current" if rows["Ready"].status == "True" else "InProgress"
    if rows["Reconciling"].status == "True":
        assert not stalled, "what cannot go on is not going on"
        plain = "InProgress"
    assert kstatus(body) == plain, rows


@pytest.mark.parametrize("kind", ["RelayMiner", "Supplier"])
def test_what_has_no_status_yet_is_in_progress_for_flux(kind):
    metadata = {"generation": 1, "managedFields": [{"manager": "kubectl", "operation": "Apply"}]}
    assert flux({"metadata": metadata}, kind) == "InProgress"
    written = {"manager": "pocket.network/operator", "operation": "Apply", "subresource": "status"}
    metadata = {"generation": 2, "managedFields": [*metadata["managedFields"], written]}
    assert flux({"metadata": metadata, "status": {"observedGeneration": 2, "conditions": WELL}}, kind) == "Current"


def test_a_rollout_that_is_overdue_has_failed_by_every_convention():
    overdue = {"clock": 1e6, "rolling_since": 0.0, "pods": (POD, MINER_POD), "children": ROLLING}
    seen = snapshot(**overdue)
    status = relay_miner_status(seen, plan(seen))
    rows = {row.type: (row.status, row.reason) for row in status.conditions}
    assert rows["Stalled"] == ("True", "ProgressDeadlineExceeded")
    assert rows["Reconciling"] == ("False", "ProgressDeadlineExceeded")
    body = resource(as_status(status), status.observed_generation)
    assert (argo(body)[0], flux(body), kstatus(body)) == ("Degraded", "Failed", "Failed")


def test_a_wave_with_a_relay_miner_lets_the_wave_with_its_suppliers_follow_however_late():
    """Argo CD starts a wave once everything before it is Healthy."""
    alone = {"suppliers": (), "owners": {}, "clock": 1e6, "rolling_since": 0.0, "pods": (), "reports": ()}
    seen = snapshot(relay_miner=with_uid(RM, "rm"), **alone)
    status = relay_miner_status(seen, plan(seen))
    assert argo(resource(as_status(status), status.observed_generation))[0] == "Healthy"


def test_the_message_is_the_reason_and_what_to_do():
    body = resource({"observedGeneration": 2, "conditions": [condition("Stalled", "True", "KeyInUse", "Delete one.")]})
    assert argo(body) == ("Degraded", "KeyInUse: Delete one.")


def test_the_config_map_for_argo_cd_holds_the_scripts():
    patch = yaml.safe_load((ARGO / "argocd-cm-patch.yaml").read_text())
    of_application = (ARGO / "application-health.lua").read_text()
    scripts = {key.rpartition("_")[2]: script for key, script in patch["data"].items()}
    assert scripts == {"RelayMiner": SCRIPT, "Supplier": SCRIPT, "Application": of_application}
    assert argo({"status": {"health": {"status": "Degraded", "message": "m"}}}, of_application) == ("Degraded", "m")
    assert argo({}, of_application) == ("Progressing", "Waiting for the first comparison")


def test_the_app_of_apps_applies_the_operator_in_a_wave_before_the_resources():
    root = yaml.safe_load((ARGO / "root.yaml").read_text())
    applications = [yaml.safe_load(file.read_text()) for file in (ROOT / root["spec"]["source"]["path"]).glob("*.yaml")]
    waves = {
        row["metadata"]["name"]: int(row["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])
        for row in applications
    }
    assert waves["pocket-operator"] < waves["relay-mining"]
    assert all("ServerSideApply=true" in row["spec"]["syncPolicy"]["syncOptions"] for row in applications)
    assert (ROOT / "manifests/kustomization.yaml").exists(), "the operator's path"


def test_the_application_set_and_flux_have_the_same_order():
    found = yaml.safe_load((ARGO / "applicationset.yaml").read_text())["spec"]
    order = [step["matchExpressions"][0]["values"][0] for step in found["strategy"]["rollingSync"]["steps"]]
    elements = {row["step"]: row["path"] for row in found["generators"][0]["list"]["elements"]}
    assert [elements[step] for step in order] == ["manifests", "production"]
    documents = list(yaml.safe_load_all((ROOT / "manifests/flux/kustomizations.yaml").read_text()))
    by_name = {row["metadata"]["name"]: row["spec"] for row in documents if row["kind"] == "Kustomization"}
    assert by_name["relay-mining"]["dependsOn"] == [{"name": "pocket-operator"}]
    assert all(spec["wait"] for spec in by_name.values())


SOURCE = {"repoURL": "https://git.example.org/a", "path": "manifests", "targetRevision": "v1"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, "Progressing"),
        ({"health": {"status": "Healthy"}}, "Progressing"),
        ({"health": {"status": "Healthy"}, "sync": {"status": "OutOfSync", "comparedTo": {"source": SOURCE}}},
         "Progressing"),
        ({"health": {"status": "Healthy"}, "sync": {"status": "Synced", "comparedTo": {
            "source": {**SOURCE, "targetRevision": "v0"}}}}, "Progressing"),
        ({"health": {"status": "Healthy"}, "sync": {"status": "Synced", "comparedTo": {"source": {**SOURCE}}}},
         "Healthy"),
        ({"health": {"status": "Degraded", "message": "m"}, "sync": {"status": "OutOfSync"}}, "Degraded"),
    ],
    ids=["new", "not compared", "nothing applied yet", "a new source", "applied", "degraded"],
)  # fmt: skip
def test_a_wave_waits_until_an_application_has_applied_its_source(status, expected):
    """Argo CD calls an Application Healthy before its first sync: what is missing does not count."""
    body = {"spec": {"source": SOURCE}} | ({} if status is None else {"status": status})
    assert argo(body, (ARGO / "application-health.lua").read_text())[0] == expected
