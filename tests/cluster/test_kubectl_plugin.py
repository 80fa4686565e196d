"""`kubectl pocket` on a real API server, run as a plugin of the real kubectl."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from waits import create

from kube import NAMESPACES, Cluster, condition, eventually
from pocket_operator.resources import names
from pocket_operator.resources.kinds import CONFIG_MAPS, RELAY_MINERS, SUPPLIERS
from resources import address, key_of, key_secret, relay_miner, supplier

TOKEN = "tok-5b1f9a7c33"
DAY = {"date": "2026-01-02", "earned_by": {"pokt1owner": 70, "pokt1op": 30}, "fees_upokt": 9, "settled": 2, "lost": 1}
ROW = {
    "open": 3, "sessions": {"active": 2, "claimable": 1}, "earned_by": {"pokt1owner": 700}, "balance_upokt": 5_000_000,
    "fees_per_day_upokt": 1_000_000, "day": DAY, "deadline": {"kind": "claim", "height": 19, "sessions": 2},
    "last": {"loss": "abcd at 9: claim_missed: no node answered"},
}  # fmt: skip


@pytest.fixture
def plugin(cluster: Cluster, namespace: str, tmp_path: Path):
    """Run `kubectl pocket ...` with the installed plugin in PATH."""
    programs = Path(sys.executable).parent
    environment = {
        **os.environ, "KUBECONFIG": str(cluster.kubeconfig), "KUBECTL": cluster.kubectl_path,
        "PATH": f"{programs}:{os.environ['PATH']}",
    }  # fmt: skip

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [cluster.kubectl_path, "pocket", *words, "-n", namespace]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path, timeout=60
        )

    return run


async def prepared(api, namespace, nodes, operator):
    nodes.rows[address("alice")] = ROW
    body = relay_miner(namespace)
    body["spec"]["services"][0]["backends"]["jsonRpc"]["headers"] = {"X-Token": TOKEN}
    await create(api, key_secret(namespace, "alice"), body, supplier(namespace))

    async def mined():
        status = (await api.get(SUPPLIERS, namespace, "alice")).get("status") or {}
        height = ((await api.get(RELAY_MINERS, namespace, "main")).get("status") or {}).get("height")
        return height and status.get("day") and condition({"status": status}, "Ready").get("status") == "True"

    await eventually(mined, what="alice is served, and her day and the height are known")


async def test_status_shows_what_the_miner_reports(api, namespace, nodes, operator, plugin):
    await prepared(api, namespace, nodes, operator)
    done = plugin("status", "-o", "json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    expected = {
        "name": "alice", "relay_miner": "main", "ready": "yes", "in_session": 2, "open_sessions": 3,
        "earned_upokt": 700, "balance_upokt": 5_000_000, "days_left": 5, "last_loss": ROW["last"]["loss"],
        "address": address("alice"), "deadline": "claim before 19 (12 blocks, 6m00s)",
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    table = plugin("status", "alice").stdout.splitlines()
    assert table[0].split()[:3] == ["NAME", "RELAY", "MINER"]
    assert table[1].startswith("alice ")
    assert yaml.safe_load(plugin("status", "-o", "yaml").stdout) == [row]
    missing = plugin("status", "bob")
    assert missing.returncode == 1
    assert "no Supplier bob" in missing.stderr


async def test_doctor_names_the_remedy_and_fails_for_an_error(api, namespace, nodes, operator, plugin):
    await prepared(api, namespace, nodes, operator)
    await create(api, supplier(namespace, "bob", "none"))

    async def refused():
        return condition(await api.get(SUPPLIERS, namespace, "bob"), "KeysLoaded").get("reason")

    await eventually(refused)
    done = plugin("doctor", "-o", "json")
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    found = {row["code"]: row for row in rows if row["subject"] == f"Supplier/bob in {namespace}"}
    assert "Create RelayMiner none" in found["no-relay-miner"]["remedy"]
    assert not [row for row in rows if row["severity"] == "error" and "alice" in row["subject"]]


async def test_the_bundle_has_resources_and_no_secret(api, namespace, nodes, operator, plugin, tmp_path):
    await prepared(api, namespace, nodes, operator)
    done = plugin("bundle", "b.tar.gz")
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        members = {m.name: archive.extractfile(m).read().decode() for m in archive.getmembers()}
    whole = "\n".join(members.values())
    assert TOKEN not in whole
    assert key_of("alice") not in whole
    assert address("alice") in members["b/resources/suppliers.yaml"]
    assert "main-miner" in members["b/children/statefulsets.yaml"]
    assert "kind: Secret" not in whole
    assert members[f"b/pods/{namespace}/main-miner-0/report.json"].startswith("# not read: ")  # there is no kubelet
    raw = await api.list(CONFIG_MAPS, namespace)
    assert TOKEN in json.dumps(raw)  # it is in what the bundle was made of


async def test_heads_of_audit_trails_reach_status_and_a_configmap_that_stays(api, namespace, nodes, operator):
    nodes.audit = {"number": 7, "hash": "a" * 64}
    await prepared(api, namespace, nodes, operator)

    async def archived():
        found = await api.get_or_none(CONFIG_MAPS, namespace, names.audit("main"))
        return (found or {}).get("data", {}).get("main-miner-0", "")

    line = await eventually(archived)
    assert line.split()[1:] == ["7", "a" * 64]
    whole = await api.get(RELAY_MINERS, namespace, "main")
    assert whole["status"]["audit"] == [{"pod": "main-miner-0", "number": 7, "hash": "a" * 64}]
    assert condition(whole, "AuditTrailsIntact")["status"] == "True"
    nodes.audit = {"number": 3, "hash": "b" * 64}

    async def cut():
        return condition(await api.get(RELAY_MINERS, namespace, "main"), "AuditTrailsIntact").get("reason")

    await eventually(lambda: _equals(cut, "AuditTrailCut"))
    assert (await api.get(RELAY_MINERS, namespace, "main"))["status"]["audit"][0]["number"] == 7
    await api.call(
        "PATCH", RELAY_MINERS.path(namespace, "main", "status"), body=[{"op": "remove", "path": "/status/audit/0"}],
        content_type="application/json-patch+json",
    )  # fmt: skip
    await eventually(lambda: _equals(cut, "AuditTrailsIntact"))
    nodes.rows[address("alice")] = {**ROW, "open": 0, "sessions": {}}
    await api.delete(SUPPLIERS, namespace, "alice")
    await api.delete(RELAY_MINERS, namespace, "main")

    async def gone():
        return await api.get_or_none(RELAY_MINERS, namespace, "main") is None

    await eventually(gone)
    assert await archived() == line
    assert await api.get(NAMESPACES, "", namespace)


async def _equals(read, wanted):
    return await read() == wanted


def test_kubectl_completes_the_plugin(plugin, cluster, namespace):
    done = subprocess.run(
        [Path(sys.executable).parent / "kubectl_complete-pocket", "doc"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0].startswith("doctor")
