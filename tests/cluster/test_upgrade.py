"""This release takes over from recorded ones, with their definitions and with its own, and they from it."""

import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from conftest import OperatorProcess
from releases import NAMESPACE, OPTIONS, RECORDED, Recording, Release, define, prepare, resources, served
from rest import at_rest, metrics_of
from waits import create, reason

from kube import ROOT, Cluster, FakeKubelet, eventually, kubeconfig_of, kubelet
from pocket.api.crd import definitions
from pocket.kube.api_client import KubeApi
from pocket_operator import install
from pocket_operator.decide.schemas import Schemas
from pocket_operator.resources.kinds import BY_KIND, EVENTS, PODS, RELAY_MINERS, SUPPLIERS
from resources import address

RECORDINGS = sorted(RECORDED.glob("*.json.gz"))
RENDERED_AS_NOW = {"0.1.0"}
"""Releases with the pod templates of this one. An upgrade from any other one reaches the automatic RelayMiners."""
UNKNOWN_FIELDS = re.compile(r'pocket_operator_schema_fields{kind="RelayMiner",\w+="unknown"} (\S+)')
"""The label has another name in earlier releases."""
RELAY_MINER_NAMES = ("careful", "main", "options")


@pytest.fixture
async def api(own: Cluster) -> AsyncIterator[KubeApi]:
    if own.level != "controllers":
        pytest.skip("needs controllers")
    async with own.api() as client:
        yield client


@pytest.fixture
async def nodes(api: KubeApi) -> AsyncIterator[FakeKubelet]:
    async with kubelet(api, NAMESPACE) as fake:
        yield fake


def this_operator(own: Cluster, folder: Path) -> OperatorProcess:
    rights = install.rights(install.Values(namespace=NAMESPACE), cluster_wide=False)
    own.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))
    kubeconfig = kubeconfig_of(own, NAMESPACE, install.NAME, folder / "operator.kubeconfig")
    return OperatorProcess(own, NAMESPACE, kubeconfig, folder / "operator.log", arguments=OPTIONS)


async def pods_of(api: KubeApi) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in await api.list(PODS, NAMESPACE)}


async def running(api: KubeApi, number: int) -> None:
    """Wait until the controllers have seen that so many pods are ready."""

    async def ready() -> bool:
        found = {}
        for kind in ("Deployment", "StatefulSet"):
            for row in await api.list(BY_KIND[kind], NAMESPACE):
                found[row["metadata"]["name"]] = (row.get("status") or {}).get("readyReplicas") or 0
        if sum(found.values()) != number:
            raise AssertionError(found)
        return True

    await eventually(ready, 60, "the pods are ready")


def expected_reason(installed: list[dict]) -> str:
    """Return the reason with which this release should report other definitions."""
    schemas = Schemas({
        row["spec"]["names"]["kind"]: row["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for row in installed
    })  # fmt: skip
    found = schemas.difference("RelayMiner")
    return "CRDOlder" if found.missing else "SchemaMatches"


@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.name.removesuffix(".json.gz"))
async def test_over_a_recorded_release_no_pod_is_touched_whose_image_and_template_are_unchanged(
    own, api, tmp_path, file
):
    recording = Recording.load(file)
    await prepare(own, api, recording.definitions)
    await create(api, *(body for body in resources() if body["kind"] == "Secret"))
    await recording.restore(own, api)
    async with kubelet(api, NAMESPACE) as nodes:
        await running(api, len(recording.pods))
        assert await pods_of(api) == recording.pods
        # What waits for an approval is never touched, anything else only if this release renders it differently.
        same = file.name.removesuffix(".json.gz") in RENDERED_AS_NOW
        kept = {name: uid for name, uid in recording.pods.items() if same or name.startswith("careful")}

        operator = this_operator(own, tmp_path).start()
        try:
            await untouched(own, api, operator, recording.definitions, kept)
            family = 'pocket_operator_schema_fields{kind="RelayMiner",state="missing"}'
            missing = [row for row in metrics_of(operator).splitlines() if row.startswith(family)]
            older = expected_reason(recording.definitions) == "CRDOlder"
            assert (float(missing[0].split()[-1]) > 0) == older, missing
            reasons = {row["reason"] for row in await api.list(EVENTS, NAMESPACE)}
            assert ("CRDOlder" in reasons) == older

            # Definitions change under a running operator, and under one that starts.
            await untouched(own, api, operator, list(definitions().values()), kept)
            operator.stop(kill=True)
            operator.start()
            await untouched(own, api, operator, recording.definitions, kept)
            assert "failed unexpectedly" not in operator.text()

            # What the recorded release had protected still waits for its sessions.
            nodes.open[address("bob")] = 1
            await reason(api, SUPPLIERS, NAMESPACE, "bob", "Ready")
            await api.delete(SUPPLIERS, NAMESPACE, "bob")
            await reason(api, SUPPLIERS, NAMESPACE, "bob", "Draining")
        finally:
            operator.stop(kill=True)


async def untouched(own, api, operator, crds, kept) -> None:
    """Install definitions and wait until the operator has reported them and is at rest: the kept pods must remain."""
    await define(own, api, crds)
    for name in RELAY_MINER_NAMES:
        await reason(api, RELAY_MINERS, NAMESPACE, name, expected_reason(crds), of="SchemaCurrent", seconds=60)
    await served(api)
    await at_rest(api, operator, NAMESPACE)
    found = await pods_of(api)
    assert found == found | kept


def has(commit: str) -> bool:
    """Whether the repository's history has the commit: a shallow clone lacks it."""
    command = ["git", "-C", ROOT, "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.name.removesuffix(".json.gz"))
async def test_an_earlier_release_takes_over_from_this_one_and_back(own, api, nodes, tmp_path, file):
    commit = Recording.load(file).commit
    if not has(commit):
        pytest.skip(f"the clone has no commit {commit}")
    (tmp_path / "release").mkdir()
    release = Release.checkout(commit, tmp_path / "release")
    await prepare(own, api, list(definitions().values()))
    operator = this_operator(own, tmp_path).start()
    earlier = release.operator(own, tmp_path)
    try:
        await create(api, *resources())
        await served(api)
        await at_rest(api, operator, NAMESPACE)
        before = await pods_of(api)
        kept = {name: uid for name, uid in before.items() if name.startswith("careful")}

        operator.stop()
        earlier.start()
        # Definitions of a later release: it reports them and goes on.
        await eventually(lambda: reports_unknown_fields(earlier), 60, "the earlier release reports the definitions")
        await served(api)
        await at_rest(api, earlier, NAMESPACE)
        found = await pods_of(api)
        assert found == found | kept
        nodes.open[address("alice")] = 1
        await api.delete(SUPPLIERS, NAMESPACE, "alice")
        await reason(api, SUPPLIERS, NAMESPACE, "alice", "Draining")
        assert "failed unexpectedly" not in earlier.text()

        earlier.stop()
        operator.start()
        await reason(api, RELAY_MINERS, NAMESPACE, "main", "SchemaMatches", of="SchemaCurrent", seconds=60)
        await reason(api, SUPPLIERS, NAMESPACE, "alice", "Draining")
        await at_rest(api, operator, NAMESPACE)
        found = await pods_of(api)
        assert found == found | kept
        nodes.open.clear()
        await gone_supplier(api)
        assert "failed unexpectedly" not in operator.text()
    finally:
        operator.stop(kill=True)
        earlier.stop(kill=True)


async def reports_unknown_fields(operator: OperatorProcess) -> bool:
    rows = (UNKNOWN_FIELDS.fullmatch(line) for line in metrics_of(operator).splitlines())
    return any(row is not None and float(row[1]) > 0 for row in rows)


async def gone_supplier(api: KubeApi) -> None:
    async def look() -> bool:
        return await api.get_or_none(SUPPLIERS, NAMESPACE, "alice") is None

    await eventually(look, 60, "the drained Supplier is gone")
