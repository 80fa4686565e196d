"""The trial of manifests/samples/trial in a cluster, as tests look at it."""

import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from kube import ROOT, Cluster
from nodes import await_that, render
from pocket.api.manifests import load_manifests
from pocket.chain.failover import NodeAddress
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE, Controller
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.local_stack import key_of
from traffic import Traffic

TRIAL = ROOT / "manifests/samples/trial"
NAMESPACE = "pocket-trial"
UPOKT_PER_RELAY = 84  # what reaches the supplier: 0.7 of 120


def secrets_of_the_samples() -> set[str]:
    """Every key in the samples, of suppliers and for sealing: what no output may show."""
    manifests = load_manifests([TRIAL / "suppliers.yaml"])
    return {text for entries in manifests.secrets.values() for text in entries.values()} | {
        key_in_the_samples(supplier.metadata.name) for supplier in manifests.suppliers
    }


def key_in_the_samples(supplier: str) -> str:
    """Return a supplier's key as hex, unsealed if necessary."""
    manifests = load_manifests([TRIAL / "suppliers.yaml"])
    found = next(row for row in manifests.suppliers if row.metadata.name == supplier)
    return key_of(found, manifests, Controller.of_texts(manifests.secrets[SECRET_OF_NAMESPACE]))


def remote_samples(folder: Path, address: Path) -> tuple[Path, Path]:
    """Copy the samples with the keys of all suppliers at a signer, and write its keys. Returns both folders."""
    samples, keys = folder / "samples", folder / "keys"
    shutil.copytree(TRIAL, samples)
    keys.mkdir()
    documents = list(yaml.safe_load_all((samples / "suppliers.yaml").read_text()))
    suppliers = [row for row in documents if row["kind"] == "Supplier"]
    for supplier in suppliers:
        text = key_in_the_samples(supplier["metadata"]["name"])
        file = keys / supplier["spec"]["operatorAddress"]
        file.touch(mode=0o600)
        file.write_text(text)
        supplier["spec"]["key"] = {"remote": {"publicKey": PrivateKey.from_hex(text).public_key.hex()}}
    (samples / "suppliers.yaml").write_text(yaml.safe_dump_all(suppliers))
    (relay_miner,) = yaml.safe_load_all((samples / "relayminer.yaml").read_text())
    relay_miner["spec"]["signer"] = {"url": f"unix:{address}"}
    (samples / "relayminer.yaml").write_text(yaml.safe_dump(relay_miner))
    return samples, keys


@dataclass
class Trial:
    """The trial that runs in the cluster.

    `by_node`: Services are reached through a port of a node. Else the addresses of Services lead from this machine into
    the cluster, as those of nodes that are part of this machine do.
    """

    cluster: Cluster
    by_node: bool = False
    spec: dict = field(default_factory=dict)
    traffics: list[tuple[str, Traffic]] = field(default_factory=list)
    test: str = ""

    def get(self, kind: str, name: str = "", namespace: str = NAMESPACE) -> dict:
        arguments = ["-n", namespace, "get", kind, "-o", "json"]
        return json.loads(self.cluster.kubectl(*arguments, *([name] if name else [])).stdout)

    def leader(self) -> str:
        """Return the operator's leading pod, or an empty string."""
        lease = self.get("lease", "pocket-operator", "pocket-system")
        return str(lease["spec"].get("holderIdentity") or "").partition("_")[0]

    def pods(self, component: str) -> list[dict]:
        rows = self.get("pods")["items"]
        return [
            row for row in rows
            if row["metadata"].get("labels", {}).get("app.kubernetes.io/component") == component
            and not row["metadata"].get("deletionTimestamp")
        ]  # fmt: skip

    def ready(self, seconds: float = 90) -> None:
        for kind in ("relayminer", "suppliers"):

            def all_ready(kind=kind):
                rows = self.get(kind)["items"]
                if any(r.get("status", {}).get("observedGeneration") != r["metadata"]["generation"] for r in rows):
                    return False
                ready = [c["status"] for r in rows for c in r.get("status", {}).get("conditions", ())
                         if c["type"] == "Ready"]  # fmt: skip
                return rows and len(ready) == len(rows) and set(ready) == {"True"}

            await_that(all_ready, seconds, f"all {kind} ready")

    def restore(self, test: str) -> None:
        """Restore the RelayMiner for the next test of this trial."""
        self.test = test
        if self.spec and self.get("relayminer", "trial")["spec"] != self.spec:
            patch = json.dumps([{"op": "replace", "path": "/spec", "value": self.spec}])
            self.cluster.kubectl("-n", NAMESPACE, "patch", "relayminer/trial", "--type=json", "-p", patch)
        self.ready()
        await_that(lambda: [len(self.pods(c)) for c in ("relayer", "miner")] == [1, 1], 90, "a relayer and a miner")
        self.ready()
        self.spec = self.get("relayminer", "trial")["spec"]

    def place(self, service: str) -> dict[int, str]:
        """Host and port where this machine reaches each port of a Service, through the balancer."""
        spec = self.get("service", service)["spec"]
        if not self.by_node:
            return {row["port"]: f"{spec['clusterIP']}:{row['port']}" for row in spec["ports"]}
        door = {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": f"door-{service}", "namespace": NAMESPACE},
            "spec": {"type": "NodePort", "selector": spec["selector"], "ports": [
                {key: row[key] for key in ("name", "port", "targetPort", "protocol") if key in row}
                for row in spec["ports"]
            ]},
        }  # fmt: skip
        made = json.loads(self.cluster.kubectl("apply", "-o", "json", "-f", "-", stdin=json.dumps(door)).stdout)
        addresses = self.get("nodes")["items"][0]["status"]["addresses"]
        host = next(row["address"] for row in addresses if row["type"] == "InternalIP")
        ports = {row["port"]: int(row["nodePort"]) for row in made["spec"]["ports"]}
        await_that(lambda: all(_open(host, port) for port in ports.values()), 30, f"the node's ports of {service}")
        return {port: f"{host}:{node_port}" for port, node_port in ports.items()}

    def traffic(self) -> Traffic:
        gateway = yaml.safe_load((TRIAL / "gateway.yaml").read_text())
        chain, relayers = self.place("localnet"), self.place("trial-relayer")
        found = Traffic(
            f"http://{relayers[80]}", NodeAddress.parse(f"grpc://{chain[9090]}", f"http://{chain[26657]}"),
            PrivateKey.from_hex(gateway["key"]), gateway["applications"]["eth"],
        )  # fmt: skip
        self.traffics.append((self.test, found))
        return found

    def earned(self) -> int:
        return sum(row["status"].get("earnedUpokt", 0) for row in self.get("suppliers")["items"])

    def lost(self) -> list[str]:
        return [loss for row in self.get("suppliers")["items"] if (loss := row["status"]["last"].get("loss"))]

    def miners(self) -> str:
        """Return the miners' own reports, for a failed test."""
        names = [pod["metadata"]["name"] for pod in self.pods("miner")]
        kubectl = self.cluster.kubectl
        logs = [kubectl("-n", NAMESPACE, "logs", name, "--tail=60", check=False).stdout for name in names]
        shown = kubectl("-n", NAMESPACE, "get", "pods,suppliers", "-o", "wide", check=False).stdout
        return "\n".join([shown, *(f"{name}:\n{log}" for name, log in zip(names, logs, strict=True))])

    def settled(self, seconds: float = 180) -> None:
        """Wait until the suppliers earned exactly what all traffic so far is worth."""
        expected = sum(traffic.acknowledged.total() for _, traffic in self.traffics) * UPOKT_PER_RELAY
        try:
            await_that(lambda: self.earned() >= expected, seconds, f"{expected} upokt earned")
            assert self.earned() == expected
            assert not self.lost()
        except AssertionError as error:
            relays = ", ".join(f"{traffic.acknowledged.total()} in {test}" for test, traffic in self.traffics)
            told = f"{self.earned()} earned of {expected}, lost: {self.lost()}, relays: {relays}"
            raise AssertionError(f"{error}: {told}\n{self.miners()}") from None


@contextlib.contextmanager
def running(installed: Cluster, windows: int) -> Iterator[Trial]:
    """Run a trial with claim and proof windows of so many blocks of a second, and remove it at the end."""
    text = render(installed, TRIAL)
    for window in ("claim", "proof"):
        line = f"{window}_window_close_offset_blocks: "
        assert line + "8" in text
        text = text.replace(line + "8", f"{line}{windows}")
    installed.kubectl("apply", "-f", "-", stdin=text)
    found = Trial(installed, by_node=os.environ.get("TEST_CLUSTER") == "existing")
    try:
        found.ready()
        yield found
    finally:
        remove(found)


def _open(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def remove(found: Trial) -> None:
    """As a person removes it: everything at once. What drains goes within seconds, as nothing is left open."""
    found.cluster.kubectl("annotate", "namespace", NAMESPACE, "--overwrite", "pocket.network/force-delete=true")
    for kind in ("relayminer", "suppliers"):
        found.cluster.kubectl(
            "-n", NAMESPACE, "annotate", kind, "--all", "--overwrite", "pocket.network/force-delete=true"
        )
    found.cluster.kubectl("-n", NAMESPACE, "delete", "relayminer,suppliers", "--all", "--wait=false")
    found.cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")

    def gone() -> bool:
        return not found.cluster.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found").stdout

    try:
        await_that(gone, 40, "the namespace gone")
    except AssertionError:
        # Slow, not wrong: what a person would look at is worth having before it passes.
        sys.stderr.write(diagnosis(found.cluster))
        await_that(gone, 140, "the namespace gone")
    if found.by_node:
        return  # its storage makes new volumes
    # Volumes are kept by design; the next trial starts with empty ones.
    for volume in json.loads(found.cluster.kubectl("get", "pv", "-o", "json").stdout)["items"]:
        if volume["status"]["phase"] != "Released":
            continue
        name = volume["metadata"]["name"]
        for path in Path(volume["spec"]["hostPath"]["path"]).iterdir():
            _clear(path)
        found.cluster.kubectl("patch", "pv", name, "--type=merge", "-p", '{"spec":{"claimRef":null}}')


def diagnosis(cluster: Cluster) -> str:
    """Return the first things to check after a failure."""
    looks = (
        ("get", "pods", "-A", "-o", "wide"),
        ("-n", NAMESPACE, "get", "rm,sup,sts,deploy", "-o", "wide"),
        ("get", "namespace", NAMESPACE, "-o", "jsonpath={.status.conditions}"),
        ("-n", "pocket-system", "get", "lease", "-o", "yaml"),
        ("-n", "pocket-system", "logs", "-l", "app.kubernetes.io/name=pocket-operator", "--tail=25", "--prefix"),
    )
    return "\n\n".join(cluster.kubectl(*look, check=False).stdout for look in looks)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            _clear(child)
        path.rmdir()
    else:
        path.unlink()
