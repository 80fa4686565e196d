"""The e2e tier: the operator in the cluster, the trial's samples, real pods."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube import ROOT, Cluster
from nodes import WHY_NOT, node_cluster, render
from trial import TRIAL, Trial, remove


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(420))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    chosen = os.environ.get("TEST_CLUSTER")
    if chosen == "existing":
        yield Cluster(Path(os.environ["KUBECONFIG"]), "kubectl", "pods")
    elif chosen == "node":
        with node_cluster(tmp_path_factory.mktemp("nodes")) as found:
            yield found
    else:
        pytest.skip(f"no cluster with real pods: {WHY_NOT}")


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The operator, as `kubectl apply -k manifests/` installs it."""
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=render(cluster, ROOT / "manifests"))
    cluster.kubectl("-n", "pocket-system", "rollout", "status", "deployment/pocket-operator", "--timeout=90s")
    return cluster


@pytest.fixture
def windows() -> int:
    """Blocks of the claim and of the proof window; a second each."""
    return 8


@pytest.fixture
def trial(installed: Cluster, windows: int) -> Iterator[Trial]:
    """A fresh trial, removed afterwards."""
    text = render(installed, TRIAL)
    for window in ("claim", "proof"):
        line = f"{window}_window_close_offset_blocks: "
        assert line + "8" in text
        text = text.replace(line + "8", f"{line}{windows}")
    installed.kubectl("apply", "-f", "-", stdin=text)
    found = Trial(installed, by_node=os.environ.get("TEST_CLUSTER") == "existing")
    found.ready()
    yield found
    remove(found)
