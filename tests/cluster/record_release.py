"""Record what a release of the operator writes, for test_upgrade.py to upgrade from.

Usage: python tests/cluster/record_release.py NAME, with the release's checkout on PYTHONPATH (core, operator,
workloads, cli, tests/support) and KUBEBUILDER_ASSETS set. Writes tests/cluster/recorded/NAME.json.gz.
"""

import asyncio
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from conftest import OperatorProcess
from rest import at_rest
from waits import all_well, create

from kube import NAMESPACES, assets, kubeconfig_of, kubelet, started
from pocket.api.crd import definitions
from pocket_operator import install
from pocket_operator.resources import names
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS, SECRETS, SUPPLIERS, WATCHED_CHILDREN
from resources import address, changed, key_secret, relay_miner, secret, supplier

RECORDED = Path(__file__).parent / "recorded"
NAMESPACE = "recorded"
OPTIONS = ("--relayer-image", "r:1", "--miner-image", "m:1", "--update-delay-seconds", "1")
_OURS = ("RelayMiner", "Supplier")
_OF_SERVER = ("managedFields", "resourceVersion", "creationTimestamp", "generation", "selfLink", "deletionTimestamp")


def resources() -> list[dict[str, Any]]:
    """Return two RelayMiners, one of which waits for approvals, with a Supplier each."""
    first = changed(changed(relay_miner(NAMESPACE), "spec.miner.replicas", 2), "spec.relayer.replicas", 2)
    template = {"labels": {"team": "a"}, "spec": {"containers": [{"name": "relayer", "env": [{"name": "A"}]}]}}
    second = changed(changed(first, "metadata.name", "careful"), "spec.updateStrategy", "supervised")
    second = changed(second, "spec.relayer.podTemplate", template)
    second = changed(second, "spec.redis", {"urlSecretRef": {"name": "redis", "key": "url"}})
    bob = changed(changed(supplier(NAMESPACE), "metadata.name", "bob"), "spec.operatorAddress", address("bob"))
    bob = changed(changed(bob, "spec.relayMinerRef.name", "careful"), "spec.key.secretRef.name", "bob-key")
    url = secret(NAMESPACE, "redis", url="redis://redis:6379/1")
    return [url, key_secret(NAMESPACE), key_secret(NAMESPACE, "bob"), first, second, supplier(NAMESPACE), bob]


def _portable(found: dict[str, Any]) -> dict[str, Any]:
    kept = dict(found)
    if found["kind"] not in _OURS:
        kept.pop("status", None)
    kept["metadata"] = {key: value for key, value in found["metadata"].items() if key not in _OF_SERVER}
    if found["kind"] == "Service":
        kept["spec"] = {key: value for key, value in found["spec"].items() if key not in ("clusterIP", "clusterIPs")}
    return kept


async def _record() -> dict[str, Any]:
    programs = assets()
    if programs is None or not programs[1]:
        sys.exit("needs a control plane with controllers: see hack/kubernetes/prepare")
    with tempfile.TemporaryDirectory() as folder, started(programs[0], Path(folder) / "state", controllers=True) as own:
        crds = definitions()
        own.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(list(crds.values())))
        async with own.api() as api:
            await api.create(NAMESPACES, "", {"metadata": {"name": NAMESPACE}})
            rights = install.rights(install.Values(namespace=NAMESPACE), cluster_wide=False)
            own.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))
            kubeconfig = kubeconfig_of(own, NAMESPACE, install.NAME, Path(folder) / "operator.kubeconfig")
            operator = OperatorProcess(own, NAMESPACE, kubeconfig, Path(folder) / "operator.log", arguments=OPTIONS)
            operator.start()
            try:
                async with kubelet(api, NAMESPACE):
                    await create(api, *resources())
                    await all_well(api, NAMESPACE, "alice", seconds=90)
                    await all_well(api, NAMESPACE, "bob", relay_miner="careful", seconds=90)
                    await at_rest(api, operator, NAMESPACE)
                    found = []
                    for kind in (RELAY_MINERS, SUPPLIERS, SECRETS, *WATCHED_CHILDREN):
                        if kind.name in BY_KIND and kind.name != "Pod":
                            rows = await api.list(kind, NAMESPACE)
                            found += [{"apiVersion": kind.api_version, "kind": kind.name, **row} for row in rows]
            finally:
                operator.stop(kill=True)
    of_relay_miners = [row for row in found if names.LABEL_RELAY_MINER in (row["metadata"].get("labels") or {})]
    kept = [_portable(row) for row in found if row["kind"] in _OURS or row in of_relay_miners]
    return {"definitions": list(crds.values()), "objects": kept}


if __name__ == "__main__":
    text = json.dumps(asyncio.run(_record()), sort_keys=True, separators=(",", ":"))
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{sys.argv[1]}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
