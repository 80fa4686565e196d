"""The e2e tier: the operator in the cluster, the trial's samples, real pods."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube import ROOT, Cluster
from nodes import WHY_NOT, node_cluster, render
from trial import Trial, running


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
    """Install the operator with `kubectl apply -k manifests/`."""
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=render(cluster, ROOT / "manifests"))
    cluster.kubectl("-n", "pocket-system", "rollout", "status", "deployment/pocket-operator", "--timeout=90s")
    return cluster


@pytest.fixture(scope="module")
def lasting(installed: Cluster) -> Iterator[Trial]:
    """Provide one trial for all tests of a module and check at its end that every relay was paid.

    A miner that is replaced needs some seconds on a busy machine; windows of eight seconds leave no room for that. On a
    real chain a window lasts minutes.
    """
    with running(installed, windows=24) as found:
        yield found
        found.settled()


@pytest.fixture
def trial(lasting: Trial, request: pytest.FixtureRequest) -> Trial:
    """Return the module's trial with a RelayMiner as in the samples."""
    lasting.restore(request.node.name)
    return lasting


@pytest.fixture
def fresh(installed: Cluster) -> Iterator[Trial]:
    """Provide a trial for one test."""
    with running(installed, windows=8) as found:
        yield found
