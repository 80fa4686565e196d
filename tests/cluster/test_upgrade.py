"""This release takes over from recorded ones, with their definitions and with its own, and goes back."""

import gzip
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import OperatorProcess
from record_release import NAMESPACE, OPTIONS, RECORDED, resources
from rest import at_rest
from waits import all_well, reason

from kube import CRDS, NAMESPACES, Cluster, assets, eventually, kubeconfig_of, kubelet, started
from pocket.api.crd import definitions
from pocket.kube.api_client import KubeApi
from pocket_operator import install
from pocket_operator.decide.snapshot import Settings
from pocket_operator.resources import names
from pocket_operator.resources.kinds import BY_KIND, PODS, RELAY_MINERS, SUPPLIERS
from resources import address

FIRST = ("RelayMiner", "Supplier", "ServiceAccount", "ConfigMap", "Secret")
OWNED = {names.relayer: "Deployment", names.miner: "StatefulSet"}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    programs = None if os.environ.get("TEST_CLUSTER") == "existing" else assets()
    if programs is None or not programs[1]:
        pytest.skip("needs a control plane of its own with controllers: its definitions are changed")
    (tmp_path / "cluster").mkdir()
    with started(programs[0], tmp_path / "cluster/state", controllers=True) as found:
        yield found


@pytest.fixture
async def api(own: Cluster) -> AsyncIterator[KubeApi]:
    async with own.api() as client:
        yield client


async def define(own: Cluster, api: KubeApi, crds: list[dict[str, Any]]) -> None:
    """Install definitions as they are, without what others before them had."""
    for crd in crds:
        known = await api.get_or_none(CRDS, "", crd["metadata"]["name"])
        if known is None:
            await api.create(CRDS, "", crd)
        else:
            await api.replace(CRDS, "", {**known, "spec": crd["spec"]})
    await eventually(lambda: served(own), 60, "the definitions are served")


async def served(own: Cluster) -> bool:
    return all(own.kubectl("get", p, "-A", check=False).returncode == 0 for p in ("relayminers", "suppliers"))


async def restore(api: KubeApi, objects: list[dict[str, Any]]) -> None:
    """Create what a release had written, with the uids of this cluster in its owner references."""
    uids: dict[str, str] = {}
    rank = {kind: at for at, kind in enumerate(FIRST)}
    anchors = {names.drain_anchor(row["metadata"]["name"]) for row in objects if row["kind"] == "RelayMiner"}

    def order(row: dict[str, Any]) -> tuple[bool, int]:
        return row["metadata"]["name"] not in anchors, rank.get(row["kind"], len(rank))

    for row in sorted(objects, key=lambda row: (row["kind"] != "RelayMiner", *order(row))):
        text = json.dumps(row)
        for before, after in uids.items():
            text = text.replace(before, after)
        body = json.loads(text)
        before = body["metadata"].pop("uid")
        status = body.pop("status", None)
        kind = BY_KIND[body["kind"]]
        made = await api.apply(kind, body, names.FIELD_MANAGER)
        uids[before] = made["metadata"]["uid"]
        if status is not None:
            name = body["metadata"]["name"]
            patch = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}, "status": status}
            await api.call(
                "PATCH", kind.path(NAMESPACE, name, "status"), body=patch,
                query={"fieldManager": names.FIELD_MANAGER, "force": "true"},
                content_type="application/apply-patch+yaml",
            )  # fmt: skip


async def pods_of(api: KubeApi) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in await api.list(PODS, NAMESPACE)}


async def workloads(api: KubeApi, relay_miner: str) -> dict[str, int]:
    found = {}
    for name, kind in OWNED.items():
        row = await api.get(BY_KIND[kind], NAMESPACE, name(relay_miner))
        found[kind] = row["metadata"]["generation"]
    return found


@pytest.mark.parametrize("recorded", sorted(RECORDED.glob("*.json.gz")), ids=lambda path: path.name.split(".json")[0])
async def test_an_upgrade_and_a_downgrade_of_operator_and_definitions_touch_no_pod(own, api, tmp_path, recorded):
    release = json.loads(gzip.decompress(recorded.read_bytes()))
    await define(own, api, release["definitions"])
    await api.create(NAMESPACES, "", {"metadata": {"name": NAMESPACE}})
    rights = install.rights(install.Values(namespace=NAMESPACE), cluster_wide=False)
    own.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))
    for body in resources():
        if body["kind"] == "Secret":
            await api.create(BY_KIND["Secret"], NAMESPACE, body)
    written = {(body["kind"], body["metadata"]["name"]) for body in resources() if body["kind"] == "Secret"}
    objects = [row for row in release["objects"] if (row["kind"], row["metadata"]["name"]) not in written]
    rendering = {
        row["metadata"]["annotations"].get(names.ANNOTATION_RENDERING)
        for row in objects
        if row["kind"] == "StatefulSet"
    }
    same_templates = rendering == {Settings().rendering}
    kubeconfig = kubeconfig_of(own, NAMESPACE, install.NAME, tmp_path / "operator.kubeconfig")
    operator = OperatorProcess(own, NAMESPACE, kubeconfig, tmp_path / "operator.log", arguments=OPTIONS)
    async with kubelet(api, NAMESPACE) as nodes:
        await restore(api, objects)

        async def ready():
            found = {}
            for rm in ("main", "careful"):
                for name, kind in OWNED.items():
                    row = await api.get(BY_KIND[kind], NAMESPACE, name(rm))
                    found[name(rm)] = (row.get("status") or {}).get("readyReplicas")
            if set(found.values()) != {2}:
                raise AssertionError(f"{found}, pods {await pods_of(api)}")
            return True

        await eventually(ready, 120, "the recorded release runs")
        before, generations = await pods_of(api), await workloads(api, "careful")
        assert len(before) == 8
        operator.start()
        try:

            async def untouched(schema: str) -> None:
                for name in ("main", "careful"):
                    await reason(api, RELAY_MINERS, NAMESPACE, name, schema, of="SchemaCurrent", seconds=60)
                await all_well(api, NAMESPACE, "bob", relay_miner="careful", seconds=60)
                await at_rest(api, operator, NAMESPACE)
                found = await pods_of(api)
                kept = {name: uid for name, uid in before.items() if same_templates or name.startswith("careful")}
                assert found == found | kept, "no pod is touched whose image and spec are unchanged or not approved"
                assert await workloads(api, "careful") == generations

            older = "SchemaMatches" if release["definitions"] == list(definitions().values()) else None
            schema = older or await differing(api)
            await untouched(schema)
            await define(own, api, list(definitions().values()))
            operator.stop(kill=True)
            operator.start()
            await untouched("SchemaMatches")
            await define(own, api, release["definitions"])
            operator.stop()
            operator.start()
            await untouched(schema)
            assert "failed unexpectedly" not in operator.text()

            # What the recorded release had protected still waits for its sessions.
            nodes.open[address("bob")] = 1
            await reason(api, SUPPLIERS, NAMESPACE, "bob", "Ready")
            await api.delete(SUPPLIERS, NAMESPACE, "bob")
            await reason(api, SUPPLIERS, NAMESPACE, "bob", "Draining")
        finally:
            operator.stop(kill=True)


async def differing(api: KubeApi) -> str:
    """Return what this release says of the recorded definitions: it may have added fields, or only rules."""

    async def said():
        rows = ((await api.get(RELAY_MINERS, NAMESPACE, "main")).get("status") or {}).get("conditions") or ()
        return next((row["reason"] for row in rows if row["type"] == "SchemaCurrent"), "")

    return await eventually(said, 60, "SchemaCurrent")
