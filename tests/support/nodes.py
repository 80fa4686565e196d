"""A cluster with real pods for the e2e tier: the nodes of this machine, or one that the user names."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from kube import ROOT, SCRIPTS, Cluster

_VOLUMES = 8
_LOCK = Path("/run/lock/k8s-test-nodes")
_LOCAL = {
    "ghcr.io/pocket-relay-mining/operator:0.1.0": "local/pocket-operator:1",
    "ghcr.io/pocket-relay-mining/relayer:0.1.0": "local/pocket-relayer:1",
    "ghcr.io/pocket-relay-mining/miner:0.1.0": "local/pocket-miner:1",
    "ghcr.io/pocket-relay-mining/localnet:0.1.0": "local/pocket-localnet:1",
    "docker.io/library/redis:8.2-alpine": "local/redis:1",
    "value: IfNotPresent": "value: Never",
    "imagePullPolicy: IfNotPresent": "imagePullPolicy: Never",
}
WHY_NOT = "TEST_CLUSTER=node (root, Debian's containerd and runc) or TEST_CLUSTER=existing with KUBECONFIG"


def localised(text: str) -> str:
    """Manifests as they are, with the images that were built here."""
    for released, built in _LOCAL.items():
        text = text.replace(released, built)
    return text


def render(cluster: Cluster, folder: Path) -> str:
    return localised(cluster.kubectl("kustomize", str(folder)).stdout)


@contextlib.contextmanager
def node_cluster(state: Path) -> Iterator[Cluster]:
    """Start two nodes with containerd, kubelet, DNS, volumes and the images of this checkout."""
    with _only_run():
        yield from _node_cluster(state)


@contextlib.contextmanager
def _only_run() -> Iterator[None]:
    """Hold the machine's nodes: their names and addresses are the machine's, and what a dead run left is removed."""
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssertionError(f"another test run has the nodes of this machine ({_LOCK}): wait for it") from None
        yield


def _node_cluster(state: Path) -> Iterator[Cluster]:
    programs = subprocess.run([SCRIPTS / "prepare"], capture_output=True, text=True, check=True).stdout.strip()
    archives = state / "images"
    _run([ROOT / "hack/image-archives", str(archives)], {}, 900)
    environment = {"STATE": str(state / "k8s"), "BIN": programs}
    nodes = str(SCRIPTS / "start-node.sh")
    _run([nodes, "stop"], environment, 120, check=False)
    try:
        _run([nodes, "bridge"], environment, 30)
        _run([SCRIPTS / "start-control-plane.sh"], {**environment, "ADDRESS": "10.98.0.1", "PORT": "6443"}, 150)
        tars = sorted(str(path) for path in archives.glob("*.tar"))
        for number in ("1", "2"):
            _run([nodes, "node", number], environment, 150)
            _run([nodes, "images", f"node-{number}", *tars], environment, 300)
        _run([nodes, "dns"], environment, 120)
        cluster = Cluster(state / "k8s/kubeconfig", f"{programs}/kubectl", "pods")
        _volumes(cluster, state / "volumes")
        yield cluster
    finally:
        _run([nodes, "stop"], environment, 180, check=False)
        shutil.rmtree(archives, ignore_errors=True)


def _run(command: list[object], extra: dict[str, str], seconds: float, *, check: bool = True) -> None:
    environment = {**os.environ, **extra}
    environment.pop("KUBECONFIG", None)
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"{command[0]} {command[1:]}: {done.stdout[-1500:]}{done.stderr[-1500:]}")


def _volumes(cluster: Cluster, folder: Path) -> None:
    """Volumes that a pod without root may write to, as a storage driver with fsGroup gives them."""
    rows = []
    for number in range(_VOLUMES):
        path = folder / str(number)
        path.mkdir(parents=True)
        path.chmod(0o777)
        rows.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"volume-{number}"},
                "spec": {
                    "capacity": {"storage": "5Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": str(path)},
                },
            }
        )
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rows))


def await_that(check: object, seconds: float, what: str) -> object:
    """Poll a function until it returns a true value."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            last = check()  # type: ignore[operator]  # any callable
        except (AssertionError, KeyError, IndexError, ValueError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {last!r}")
