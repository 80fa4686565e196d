"""docs/install.md, "Remove", word by word: nothing is lost, nothing is left, and what was sealed opens again later."""

import asyncio
import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from conftest import OperatorProcess
from waits import all_well, create, published, reason

from kube import ROOT, Cluster, assets, eventually, kubelet, started
from pocket.keys.sealed_box import Subject, seal
from pocket.kube.api_client import ResourceKind
from pocket_operator.resources.kinds import CONFIG_MAPS, RELAY_MINERS, SUPPLIERS
from resources import address, changed, key_of, relay_miner, supplier

NAMESPACE = "pocket"
LEFT = (
    "crd,clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding,namespace,"
    "role,rolebinding,serviceaccount,configmap,secret,service,deployment,statefulset,replicaset,pod,lease,"
    "poddisruptionbudget,networkpolicy,horizontalpodautoscaler"
)
VOLUMES = ResourceKind("v1", "persistentvolumeclaims", "PersistentVolumeClaim")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    programs = None if os.environ.get("TEST_CLUSTER") == "existing" else assets()
    if programs is None or not programs[1]:
        pytest.skip("needs a control plane with controllers of its own: it is installed and removed")
    (tmp_path / "cluster").mkdir()
    with started(programs[0], tmp_path / "cluster/state", controllers=True) as found:
        yield found


@pytest.fixture
async def api(own: Cluster) -> AsyncIterator[object]:
    async with own.api() as client:
        yield client


def commands() -> list[str]:
    """Return the commands of the section, in order."""
    section = (ROOT / "docs/install.md").read_text().partition("\n## Remove\n")[2].partition("\n**A whole")[0]
    return re.findall(r"`(kubectl [^`]+)`", section.replace("\n   ", " "))


def installation(flavour: str) -> str:
    """Return the command that installs a flavour."""
    rows = (ROOT / "docs/install.md").read_text().splitlines()
    (command,) = (row.split("`")[1] for row in rows if row.startswith(f"| {flavour} |"))
    return command


class Shell:
    """A user's shell in a checkout."""

    def __init__(self, own: Cluster, folder: Path) -> None:
        path = f"{Path(own.kubectl_path).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "KUBECONFIG": str(own.kubeconfig), "PATH": path}
        self.folder = folder
        for name in ("manifests", "crds"):
            (folder / name).symlink_to(ROOT / name)

    def start(self, command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", "-ec", command], cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    async def run(self, command: str) -> str:
        child = self.start(command)
        output, _ = await asyncio.to_thread(child.communicate, timeout=120)
        assert child.returncode == 0, f"{command}: {output}"
        return output

    async def refusal(self, command: str) -> str:
        child = self.start(command)
        output, _ = await asyncio.to_thread(child.communicate, timeout=120)
        assert child.returncode != 0, f"{command}: {output}"
        return output


class WholeCluster(OperatorProcess):
    """The operator as the cluster-wide installation starts it."""

    def start(self) -> "WholeCluster":
        self.program = ("-m", "pocket_operator")
        command = [sys.executable, *self.program, "--own-namespace", "pocket-system", "--health-host", "127.0.0.1",
                   "--health-port", str(self.port)]  # fmt: skip
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "POD_NAME": f"operator-{self.port}"}
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        return self


async def ours(shell: Shell) -> set[str]:
    """Return the names of everything in the cluster that the project made."""
    rows = (await shell.run(f"kubectl get {LEFT} -A --no-headers -o name")).split()
    return {row for row in rows if "pocket" in row or "/main-" in row or row == "namespace/pocket-system"}


async def public_key(api) -> bytes:
    async def found():
        return await api.get_or_none(CONFIG_MAPS, "pocket-system", "pocket-operator-sealing-public")

    return base64.b64decode((await eventually(found, 60))["data"]["public-key"])


@pytest.mark.parametrize("flavour", ["cluster-wide", "Helm"])
async def test_removing_loses_nothing_leaves_nothing_and_the_exported_sealing_key_opens_what_is_in_git(
    own, api, tmp_path, flavour
):
    if flavour == "Helm" and shutil.which("helm") is None:
        pytest.skip("helm is not installed")
    shell = Shell(own, tmp_path)
    export, drain, remove, remove_with_helm, _alone, volumes, namespace_again, key_again = commands()
    remove = remove_with_helm if flavour == "Helm" else remove
    install = f"{installation(flavour)} && kubectl wait --for=condition=Established crd --all"
    await shell.run(f"kubectl create namespace {NAMESPACE}")
    await shell.run(install)
    operator = WholeCluster(own, "pocket-system", own.kubeconfig, tmp_path / "operator.log").start()
    try:
        subject = Subject(NAMESPACE, "alice", address("alice"))
        sealed = seal(await public_key(api), subject, key_of("alice"))
        alice = changed(supplier(NAMESPACE), "spec.key", {"sealed": sealed})
        async with kubelet(api, NAMESPACE) as nodes:
            await create(api, relay_miner(NAMESPACE), alice)
            await all_well(api, NAMESPACE, "alice", seconds=90)
            await shell.run(export)
            nodes.open[address("alice")] = 1
            deletion = shell.start(drain)
            await reason(api, SUPPLIERS, NAMESPACE, "alice", "Draining", seconds=60)
            assert deletion.poll() is None, "it waits for the open session"
            assert await published(api, NAMESPACE, "miner") == {address("alice")}
            installed = await ours(shell)
            assert "may not be settled yet" in await shell.refusal(remove)
            assert await ours(shell) == installed, "a removal that is refused removes nothing"
            nodes.open.clear()
            output, _ = await asyncio.to_thread(deletion.communicate, timeout=90)
            assert deletion.returncode == 0, output
        assert {"namespace/pocket-system", "configmap/pocket-operator-sealing-public"} < await ours(shell)
        await shell.run(remove)
        operator.stop()

        async def clean():
            left = await ours(shell) - {f"namespace/{NAMESPACE}"}
            assert left == set(), left
            return True

        await eventually(clean, 60, "nothing is left")
        assert [v["metadata"]["name"] for v in await api.list(VOLUMES, NAMESPACE)] == ["data-main-miner-0"]
        await shell.run(volumes)
        assert await api.list(VOLUMES, NAMESPACE) == []

        await shell.run(f"{namespace_again} && {key_again}")
        await shell.run(install)
        operator.start()
        async with kubelet(api, NAMESPACE):
            await create(api, relay_miner(NAMESPACE), alice)
            await all_well(api, NAMESPACE, "alice", seconds=90)
            for kind, name in ((RELAY_MINERS, "main"), (SUPPLIERS, "alice")):
                await api.delete(kind, NAMESPACE, name)
    finally:
        operator.stop(kill=True)
