"""Earlier releases of the operator: their code, and clusters as they left them."""

import contextlib
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from conftest import OperatorProcess, await_kinds

from kube import CRDS, NAMESPACES, ROOT, SCRIPTS, Cluster, eventually, kubeconfig_of
from pocket.kube.api_client import KubeApi, ResourceKind
from pocket_operator import install
from pocket_operator.resources import names
from pocket_operator.resources.kinds import BY_KIND, PODS, RELAY_MINERS, SUPPLIERS, WATCHED_CHILDREN
from resources import changed, key_secret, relay_miner, secret, supplier

Object = dict[str, Any]
RECORDED = Path(__file__).parent / "recorded"
NAMESPACE = "recorded"
OPTIONS = ("--relayer-image", "r:1", "--miner-image", "m:1", "--redis-image", "redis:1", "--update-delay-seconds", "1")
REPLICA_SETS = ResourceKind("apps/v1", "replicasets", "ReplicaSet")
REVISIONS = ResourceKind("apps/v1", "controllerrevisions", "ControllerRevision")
CLAIMS = ResourceKind("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
WRITTEN = (*WATCHED_CHILDREN, BY_KIND["Secret"], RELAY_MINERS, SUPPLIERS, REPLICA_SETS, REVISIONS, CLAIMS, PODS)
_KINDS = {kind.name: kind for kind in WRITTEN}
_CREATED = ("Service", "ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget", "PersistentVolumeClaim")
"""Kinds that are restored through the API: it gives addresses, and the controllers volumes."""
_PRINT_RIGHTS = """
import sys, yaml
from pocket_operator import install
print(yaml.safe_dump_all(install.rights(install.Values(namespace=sys.argv[1]), cluster_wide=False)))
"""


def resources() -> list[Object]:
    """Return three RelayMiners with a Supplier each: defaults, one that waits for approvals, one with all options."""
    main = changed(changed(relay_miner(NAMESPACE), "spec.miner.replicas", 2), "spec.relayer.replicas", 2)
    template = {"labels": {"team": "a"}, "spec": {"containers": [{"name": "relayer", "env": [{"name": "A"}]}]}}
    careful = changed(changed(main, "metadata.name", "careful"), "spec.updateStrategy", "supervised")
    careful = changed(careful, "spec.relayer.podTemplate", template)
    careful = changed(careful, "spec.redis", {"urlSecretRef": {"name": "redis", "key": "url"}})
    options = relay_miner(
        NAMESPACE, "options", redis={"trial": {}}, debug=True, networkPolicy={"enabled": True},
        relayer={"rollout": {"strategy": "Canary"}, "autoscaling": {"minReplicas": 1, "maxReplicas": 3}},
        miner={"storage": "2Gi", "shards": 4, "resources": {"limits": {"memory": "1Gi"}}},
    )  # fmt: skip
    found = [secret(NAMESPACE, "redis", url="redis://redis:6379/1"), main, careful, options]
    for name, owner in (("alice", "main"), ("bob", "careful"), ("carol", "options")):
        found += [key_secret(NAMESPACE, name), supplier(NAMESPACE, name, owner)]
    return sorted(found, key=lambda row: row["kind"] != "Secret")


@dataclass(frozen=True)
class Release:
    """The code of a release in a folder, with the libraries that it was locked to."""

    folder: Path

    @classmethod
    def checkout(cls, commit: str, folder: Path) -> "Release":
        """Take the code out of the repository's history."""
        parts = ("core", "operator", "crds", "requirements")
        packed = subprocess.run(["git", "-C", ROOT, "archive", commit, *parts], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        release = cls(folder)
        uv, locked = ROOT / ".venv/bin/uv", folder / "requirements/images/operator.txt"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / ".venv"], check=True)
        install_all = [uv, "pip", "install", "--quiet", "--python", release.python, "--require-hashes", "-r", locked]
        subprocess.run(install_all, check=True)
        return release

    @property
    def python(self) -> str:
        return str(self.folder / ".venv/bin/python")

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": f"{self.folder / 'core'}:{self.folder / 'operator'}"}

    def definitions(self) -> list[Object]:
        files = sorted(self.folder.glob("crds/*.yaml"))
        rows = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
        return [row for row in rows if row["kind"] == CRDS.name]

    def run(self, program: str, *arguments: str) -> str:
        """Run a program with this release's packages and return its output."""
        done = subprocess.run(
            [self.python, "-c", program, *arguments], env={**os.environ, **self.environment},
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return done.stdout

    def operator(self, own: Cluster, folder: Path) -> OperatorProcess:
        """Return a process of its operator that is not started, with the rights that this release gives."""
        own.kubectl("apply", "-f", "-", stdin=self.run(_PRINT_RIGHTS, NAMESPACE))
        kubeconfig = kubeconfig_of(own, NAMESPACE, install.NAME, folder / "release.kubeconfig")
        log = folder / "release.log"
        return OperatorProcess(own, NAMESPACE, kubeconfig, log, arguments=OPTIONS, environment=self.environment,
                               python=self.python)  # fmt: skip


async def define(own: Cluster, api: KubeApi, crds: list[Object]) -> None:
    """Install definitions as they are, without what others before them had."""
    for crd in crds:
        known = await api.get_or_none(CRDS, "", crd["metadata"]["name"])
        if known is None:
            await api.create(CRDS, "", crd)
        else:
            await api.replace(CRDS, "", {**known, "spec": crd["spec"]})
    await_kinds(own)


async def prepare(own: Cluster, api: KubeApi, definitions: list[Object]) -> None:
    """Define our kinds and create the namespace."""
    await define(own, api, definitions)
    await api.create(NAMESPACES, "", {"metadata": {"name": NAMESPACE}})


async def served(api: KubeApi, seconds: float = 120) -> None:
    """Wait until all RelayMiners and Suppliers of `resources` are ready, whatever a release calls that."""

    async def ready() -> bool:
        waiting = {}
        for body in resources():
            if body["kind"] != "Secret":
                found = await api.get(BY_KIND[body["kind"]], NAMESPACE, body["metadata"]["name"])
                rows = {row["type"]: row for row in (found.get("status") or {}).get("conditions") or ()}
                row = rows.get("Ready") or {}
                settled = row.get("status") == "True" and (rows.get("Reconciling") or {}).get("status") != "True"
                if not settled:
                    waiting[body["metadata"]["name"]] = row
        if waiting:
            raise AssertionError(waiting)
        return True

    await eventually(ready, seconds, "all RelayMiners and Suppliers are ready")


@dataclass(frozen=True)
class Recording:
    """A cluster as a release left it, with the uids and field managers of all objects."""

    commit: str
    definitions: list[Object]
    objects: list[Object] = field(repr=False)

    @classmethod
    def load(cls, file: Path) -> "Recording":
        return cls(**json.loads(gzip.decompress(file.read_bytes())))

    def save(self, file: Path) -> None:
        body = {"commit": self.commit, "definitions": self.definitions, "objects": self.objects}
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(gzip.compress(text.encode(), mtime=0))

    @classmethod
    async def take(cls, api: KubeApi, commit: str, definitions: list[Object]) -> "Recording":
        """Record the namespace without what belongs to this cluster or to no RelayMiner."""
        found = []
        for kind in WRITTEN:
            for row in await api.list(kind, NAMESPACE):
                labels = row["metadata"].get("labels") or {}
                if kind in (RELAY_MINERS, SUPPLIERS, REVISIONS) or names.LABEL_RELAY_MINER in labels:
                    found.append(_portable({"apiVersion": kind.api_version, "kind": kind.name, **row}))
        return cls(commit, definitions, found)

    @property
    def pods(self) -> dict[str, str]:
        """The uids of the pods by name."""
        return {r["metadata"]["name"]: r["metadata"]["uid"] for r in self.objects if r["kind"] == PODS.name}

    async def restore(self, own: Cluster, api: KubeApi) -> None:
        """Put the recorded objects back, with their uids, which no API server accepts from a client.

        Digests of configurations depend on the uids of RelayMiners. The controllers start afterwards: else they would
        delete and replace what does not have its owner or its pods yet.
        """
        with _without_controllers(own.kubeconfig.parent):
            for row in self.objects:
                kind = _KINDS[row["kind"]]
                if kind.name in _CREATED:
                    await api.create(kind, NAMESPACE, row)
                    continue
                group = "pocket.network/" if kind in (RELAY_MINERS, SUPPLIERS) else ""
                own.store(f"{group}{kind.plural}/{NAMESPACE}/{row['metadata']['name']}", json.dumps(row).encode())


@contextlib.contextmanager
def _without_controllers(state: Path) -> Iterator[None]:
    pid = (state / "pids/kube-controller-manager").read_text(encoding="utf-8").strip()
    command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")[:-1]
    _shell(state, "stop kube-controller-manager")
    yield
    _shell(state, 'start kube-controller-manager "$@"', *command)


def _shell(state: Path, text: str, *arguments: str) -> None:
    """Run a function of the scripts that start control planes."""
    script = f'. "{SCRIPTS}/lib.sh"; {text}'
    environment = {**os.environ, "STATE": str(state)}
    subprocess.run(["bash", "-c", script, "bash", *arguments], env=environment, check=True, timeout=60)


def _portable(row: Object) -> Object:
    """Return an object without what only its cluster can know."""
    metadata = {key: value for key, value in row["metadata"].items() if key not in ("resourceVersion", "selfLink")}
    kept = {**row, "metadata": metadata}
    if row["kind"] == "Service":
        kept["spec"] = {key: value for key, value in row["spec"].items() if key not in ("clusterIP", "clusterIPs")}
        if row["spec"].get("clusterIP") == "None":
            kept["spec"]["clusterIP"] = "None"
    if row["kind"] == "PersistentVolumeClaim":
        kept["spec"] = {key: value for key, value in row["spec"].items() if key != "volumeName"}
        metadata["annotations"] = {}
    if row["kind"] in ("PersistentVolumeClaim", "Pod"):
        kept["status"] = {"phase": "Pending"}
    if row["kind"] in _CREATED:
        for name in ("uid", "creationTimestamp", "managedFields", "generation"):
            metadata.pop(name, None)
        if row["kind"] == "PersistentVolumeClaim":
            metadata.pop("finalizers", None)
    return kept
