"""The cluster tier: a real API server with controllers, one namespace and one operator process per test."""

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube import CHOICES, NAMESPACES, ROOT, Cluster, FakeKubelet, assets, kubeconfig_of, kubelet, started
from nodes import await_that
from pocket.kube.api_client import KubeApi, ObjectNotFound
from pocket_operator import install
from relayctl.local_ports import free_port


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        if os.environ.get("TEST_CLUSTER") == "existing":
            found = Cluster(Path(os.environ["KUBECONFIG"]), "kubectl", "pods")
        else:
            programs = assets()
            if programs is None:
                message = f"no control plane for the cluster tests: {CHOICES}"
                if os.environ.get("CI"):
                    pytest.fail(message)
                pytest.skip(message)
            folder, controllers = programs
            base = tmp_path_factory.getbasetemp()
            place = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one for all workers of a run
            (place / "cluster").mkdir(exist_ok=True)
            found = stack.enter_context(started(folder, place / "cluster/state", controllers=controllers))
        found.kubectl("apply", "--server-side", "-k", str(ROOT / "crds"))
        await_kinds(found)
        yield found


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[KubeApi]:
    async with cluster.api() as client:
        yield client


@pytest.fixture
async def namespace(api: KubeApi) -> AsyncIterator[str]:
    created = await api.create(NAMESPACES, "", {"metadata": {"generateName": "t-"}})
    name = created["metadata"]["name"]
    yield name
    # Whatever still holds a finalizer of ours would hold the namespace for ever.
    for plural in ("suppliers", "relayminers"):
        path = f"/apis/pocket.network/v1beta1/namespaces/{name}/{plural}"
        for item in (await api.call("GET", path))["items"]:
            with contextlib.suppress(ObjectNotFound):  # what held it may have let go meanwhile
                await api.call(
                    "PATCH", f"{path}/{item['metadata']['name']}", body={"metadata": {"finalizers": []}},
                    content_type="application/merge-patch+json",
                )  # fmt: skip
    await api.delete(NAMESPACES, "", name)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """Start a control plane for one test, which changes the definitions or what is stored."""
    programs = None if os.environ.get("TEST_CLUSTER") == "existing" else assets()
    if programs is None:
        pytest.skip("needs a control plane of its own")
    (tmp_path / "cluster").mkdir()
    with started(programs[0], tmp_path / "cluster/state", controllers=programs[1]) as found:
        yield found


@dataclass
class OperatorProcess:
    """A replica of the operator for one namespace."""

    cluster: Cluster
    namespace: str
    kubeconfig: Path
    log: Path
    port: int = field(default_factory=free_port)
    child: subprocess.Popen[bytes] | None = None
    arguments: tuple[str, ...] = ()
    program: tuple[str, ...] = ("-m", "pocket_operator")
    environment: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable

    def start(self) -> "OperatorProcess":
        command = [
            self.python, *self.program, "--namespace", self.namespace,
            "--own-namespace", self.namespace, "--health-host", "127.0.0.1", "--health-port", str(self.port),
            *self.arguments,
        ]  # fmt: skip
        place = {"KUBECONFIG": str(self.kubeconfig), "POD_NAME": f"operator-{self.port}"}
        environment = {**os.environ, **self.environment, **place}
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self, *, kill: bool = False) -> int:
        if self.child is None or self.child.poll() is not None:
            return -1 if self.child is None else self.child.returncode
        self.child.kill() if kill else self.child.terminate()
        return self.child.wait(20)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")


def await_kinds(cluster: Cluster) -> None:
    """Wait until the API server serves our kinds."""
    # `kubectl wait` ends with an error where a definition has no status at all yet.
    for plural in ("relayminers", "suppliers"):
        await_that(lambda p=plural: cluster.kubectl("get", p, "-A", check=False).returncode == 0, 60, plural)


def define_kinds(cluster: Cluster, crds: Iterable[dict[str, Any]]) -> None:
    """Install definitions of our kinds and wait until the API server serves them."""
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(list(crds)))
    await_kinds(cluster)


async def operator_of_new_namespace(cluster: Cluster, api: KubeApi, folder: Path) -> OperatorProcess:
    """Make a namespace and return a running operator that has the rights of a namespaced install there."""
    namespace = (await api.create(NAMESPACES, "", {"metadata": {"generateName": "t-"}}))["metadata"]["name"]
    rights = install.rights(install.Values(namespace=namespace), cluster_wide=False)
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))
    kubeconfig = kubeconfig_of(cluster, namespace, install.NAME, folder / "operator.kubeconfig")
    return OperatorProcess(cluster, namespace, kubeconfig, folder / "operator.log").start()


@pytest.fixture
def replicas(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[list[OperatorProcess]]:
    """Two replicas that are not started yet, with the rights that the namespaced install gives."""
    rights = install.rights(install.Values(namespace=namespace), cluster_wide=False)
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))
    kubeconfig = kubeconfig_of(cluster, namespace, install.NAME, tmp_path / "operator.kubeconfig")
    found = [OperatorProcess(cluster, namespace, kubeconfig, tmp_path / f"operator-{n}.log") for n in range(2)]
    yield found
    for replica in found:
        replica.stop(kill=True)


@pytest.fixture
def operator(replicas: list[OperatorProcess]) -> OperatorProcess:
    """One running replica."""
    return replicas[0].start()


@pytest.fixture
async def nodes(api: KubeApi, namespace: str) -> AsyncIterator[FakeKubelet]:
    """Pods of the namespace run."""
    async with kubelet(api, namespace) as fake:
        yield fake


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/cluster" in str(item.path):
            item.add_marker(pytest.mark.cluster)
