"""What is in Git is what is in the cluster: Argo CD compares the two."""

import pytest
from waits import all_well, create

from pocket.kube.api_client import KubeApi, ResourceKind
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket_operator import install
from pocket_operator.resources.kinds import RELAY_MINERS, SUPPLIERS
from resources import address, changed, key_secret, relay_miner, supplier

APPLICATION_KEY, GATEWAY_KEY = (PrivateKey.from_hex(f"{number:064x}").public_key.hex() for number in (2, 3))
SERVICES = [
    {
        "id": "eth",
        "backends": {
            "jsonRpc": {
                "urls": ["http://geth:8545"], "auth": {"type": "bearer", "secretRef": {"name": "auth"}},
                "healthCheck": {"freshness": {}},
            },
            "rest": {"urls": ["http://a"]}, "cometBft": {"urls": ["http://a"]}, "webSocket": {"urls": ["ws://a"]},
            "grpc": {"urls": ["grpc://a"]},
        },
        "applications": {"allow": [address("app")]}, "rateLimit": {"relaysPerSecond": 5},
    }
]  # fmt: skip
POD = {
    "tolerations": [{"operator": "Exists"}], "imagePullSecrets": [{"name": "r"}],
    "spec": {"containers": [{"name": "relayer", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}]},
                            {"name": "side", "image": "s", "ports": [{"containerPort": 1}]}],
             "volumes": [{"name": "v", "configMap": {"name": "c"}}, {"name": "s", "secret": {"secretName": "s"}}]},
}  # fmt: skip
POLICIES = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


def added_to_lists(wanted, found, path=""):
    """Yield what is in the entries of lists but not in Git."""
    if isinstance(wanted, dict):
        for name, value in wanted.items():
            yield from added_to_lists(value, found[name], f"{path}.{name}")
    elif isinstance(wanted, list) and wanted != found:
        yield f"{path}: {found}"


async def apply(api: KubeApi, kind: ResourceKind, body, *, server_side: bool):
    if server_side:
        return await api.apply(kind, body, "argocd-controller")
    return await api.create(kind, body["metadata"]["namespace"], body)


@pytest.mark.parametrize("server_side", [True, False])
async def test_the_api_server_adds_nothing_to_entries_of_lists(api, namespace, server_side):
    miner = changed(relay_miner(namespace), "spec.services", SERVICES)
    miner = changed(changed(miner, "spec.relayer.podTemplate", POD), "spec.relayer.autoscaling", {
        "maxReplicas": 3, "metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "Value"}}}],
    })  # fmt: skip
    identities = [{"keyId": "canary", "applicationPublicKey": APPLICATION_KEY, "gatewayPublicKeys": [GATEWAY_KEY]}]
    miner = changed(miner, "spec.relayer.simulation", {"enabled": True, "identities": identities})
    endpoints = [{"url": "https://a.example", "rpcType": "jsonRpc"}]
    staked = {
        "amountUpokt": 1, "services": [{"id": "eth", "endpoints": endpoints}],
        "revenueShares": [{"address": address("owner"), "percent": 100}],
    }  # fmt: skip
    alice = changed(supplier(namespace), "spec.stake", staked)
    for kind, body in ((RELAY_MINERS, miner), (SUPPLIERS, alice)):
        found = await apply(api, kind, body, server_side=server_side)
        assert list(added_to_lists(body["spec"], found["spec"])) == []


@pytest.mark.parametrize("server_side", [True, False])
async def test_the_api_server_adds_nothing_to_the_lists_of_the_installed_policies(api, server_side):
    for row in install.policies(install.Values()):
        body = changed(row, "metadata.name", f"{row['metadata']['name']}-tried")
        path = f"/apis/{row['apiVersion']}/{POLICIES[row['kind']]}"
        if server_side:
            query = {"dryRun": "All", "fieldManager": "argocd-controller"}
            place = f"{path}/{body['metadata']['name']}"
            found = await api.call("PATCH", place, body=body, query=query, content_type="application/apply-patch+yaml")
        else:
            found = await api.call("POST", path, body=body, query={"dryRun": "All"})
        assert list(added_to_lists(body["spec"], found["spec"])) == []


async def test_the_operator_serves_what_has_no_defaults_and_writes_nothing_into_the_spec(
    api, namespace, operator, nodes
):
    miner = changed(relay_miner(namespace), "spec.services", SERVICES)
    await create(api, key_secret(namespace), miner, supplier(namespace))
    await all_well(api, namespace, "alice")
    found = await api.get(RELAY_MINERS, namespace, "main")
    assert found["metadata"]["generation"] == 1
    assert found["spec"]["services"] == SERVICES
