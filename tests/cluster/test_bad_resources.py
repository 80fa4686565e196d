"""The API server itself refuses what cannot work, in words that say what to change."""

import pytest

from pocket.kube.api_client import KubeApi, KubeError
from pocket_operator.resources.kinds import RELAY_MINERS, SUPPLIERS
from resources import address, changed, relay_miner, supplier

GOOD_MINER = relay_miner("ns")
GOOD_SUPPLIER = supplier("ns")
TWO = [GOOD_MINER["spec"]["services"][0]] * 2
URLS = "spec.services.0.backends.jsonRpc.urls"
BACKEND = "spec.services.0.backends.jsonRpc"

KEY_HEX = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
IDENTITY = {"keyId": "canary", "applicationPublicKey": KEY_HEX, "gatewayPublicKeys": [KEY_HEX]}
SIMULATION = "spec.relayer.simulation"

BAD_MINERS = [
    (SIMULATION, {"enabled": True}, "at least one identity that is enabled"),
    (SIMULATION, {"enabled": True, "identities": [IDENTITY | {"enabled": False}]}, "one identity that is enabled"),
    (SIMULATION, {"identities": [IDENTITY, IDENTITY]}, "Duplicate value"),
    (SIMULATION, {"identities": [IDENTITY | {"applicationPublicKey": "04" + "0" * 64}]}, "compressed public key"),
    (SIMULATION, {"identities": [IDENTITY | {"gatewayPublicKeys": []}]}, "at least 1 items"),
    (SIMULATION, {"identities": [IDENTITY | {"notAfter": "tomorrow"}]}, "such as 2027-01-31T00:00:00Z"),
    (SIMULATION, {"identities": [IDENTITY | {"keyId": "a b"}]}, "letters, digits"),
    ("spec", ..., "Required"),
    ("spec.chain", ..., "Required"),
    ("spec.chain.nodes", ..., "Required"),
    ("spec.chain.nodes", [], "at least 1 items"),
    ("spec.chain.nodes.0.grpc", ..., "Required"),
    ("spec.chain.nodes.0.rpc", ..., "Required"),
    ("spec.chain.nodes.0.grpc", "http://node:9090", "grpc://host:port or grpcs://host:port"),
    ("spec.chain.nodes.0.grpc", "node:9090", "grpc://host:port or grpcs://host:port"),
    ("spec.chain.nodes.0.grpc", "grpc://u:p@node:9090", "without credentials"),
    ("spec.chain.nodes.0.rpc", "ws://node:26657", "http://host:port or https://host:port"),
    ("spec.chain.nodes.0.rpc", "http://", "http://host:port or https://host:port"),
    ("spec.chain.nodes.0.rpc", "http://node:port", "http://host:port or https://host:port"),
    ("spec.chain.nodes.0.rpc", "http://node:100000", "http://host:port or https://host:port"),
    ("spec.chain.nodes.0.rpc", "http://fd00::1:26657", "http://host:port or https://host:port"),
    ("spec.chain.id", "", "at least 1 chars"),
    ("spec.chain.blockSeconds", 0, "greater than 0"),
    ("spec.chain.blockSeconds", "30s", "must be of type number"),
    ("spec.chain.gasPrice", "0.001", "such as 0.000001upokt"),
    ("spec.chain.gasPrice", "1 upokt", "such as 0.000001upokt"),
    ("spec.chain.gasAdjustment", 0.5, "greater than or equal to 1"),
    ("spec.chain.gasAdjustment", 11, "less than or equal to 10"),
    ("spec.chain.queryTimeoutSeconds", 0, "greater than 0"),
    ("spec.redis", ..., "Required"),
    ("spec.redis", {}, "exactly one of url, urlSecretRef, sentinel, cluster and trial"),
    (
        "spec.redis",
        {"url": "redis://r:1/0", "trial": {}},
        "exactly one of url, urlSecretRef, sentinel, cluster and trial",
    ),
    ("spec.redis.url", "http://redis:6379", "redis://host:6379/0"),
    ("spec.redis.url", "redis://user:pw@redis:6379", "without credentials"),
    ("spec.redis.url", "redis://redis:0", "redis://host:6379/0"),
    ("spec.redis", {"urlSecretRef": {"name": "x"}}, "Required"),
    ("spec.redis", {"urlSecretRef": {"name": "X_y", "key": "k"}}, "Kubernetes name"),
    ("spec.redis", {"trial": {"storage": "lots"}}, "quantity"),
    ("spec.services", ..., "Required"),
    ("spec.services", [], "at least 1 items"),
    ("spec.services", TWO, "Duplicate value"),
    ("spec.services.0.id", "a b", "service id"),
    ("spec.services.0.id", "x" * 43, "42"),
    ("spec.services.0.id", ..., "Required"),
    ("spec.services.0.backends", {}, "one of jsonRpc, rest, cometBft, webSocket and grpc"),
    ("spec.services.0.backends", ..., "Required"),
    ("spec.services.0.validation", "lazy", 'supported values: "eager", "optimistic"'),
    ("spec.services.0.defaultBackend", "grpc", "supported values"),
    ("spec.services.0.maxBodyBytes", 0, "greater than or equal to 1"),
    (URLS, [], "at least 1 items"),
    (URLS, ["ftp://x"], "http://host:port/path"),
    (URLS, ["ws://geth:8546"], "http://host:port/path"),
    (URLS, ["http://a:1", "http://a:1"], "Duplicate value"),
    (URLS, [f"http://h{n}:1" for n in range(9)], "at most 8 items"),
    (f"{BACKEND}.timeoutSeconds", 0, "greater than 0"),
    (f"{BACKEND}.maxRetries", 4, "less than or equal to 3"),
    (f"{BACKEND}.maxRetries", -1, "greater than or equal to 0"),
    (f"{BACKEND}.strategy", "random", "supported values"),
    (f"{BACKEND}.unhealthyThreshold", 0, "greater than or equal to 1"),
    (f"{BACKEND}.maxConnections", 0, "greater than or equal to 1"),
    ("spec.relayer.replicas", -1, "greater than or equal to 0"),
    ("spec.relayer.workers", 0, "greater than or equal to 1"),
    ("spec.relayer.port", 70000, "less than or equal to 65535"),
    ("spec.relayer.recording", "sometimes", 'supported values: "strict", "fast"'),
    ("spec.relayer", {"replicas": 2, "autoscaling": {"maxReplicas": 3}}, "replicas or autoscaling, not both"),
    ("spec.relayer.autoscaling", {"minReplicas": 5, "maxReplicas": 3}, "minReplicas must not be above maxReplicas"),
    ("spec.relayer.autoscaling", {"minReplicas": 1}, "Required"),
    ("spec.miner", {"replicas": 2, "autoscaling": {"maxReplicas": 3}}, "replicas or autoscaling, not both"),
    ("spec.miner.autoscaling", {"maxReplicas": 17}, "more replicas than shards"),
    ("spec.relayer.rollout.strategy", "BlueGreen", 'supported values: "RollingUpdate", "Canary"'),
    ("spec.relayer.rollout.maxLatencyFactor", 0.5, "greater than or equal to 1"),
    ("spec.relayer.service.type", "ExternalName", "supported values"),
    ("spec.relayer.resources.limits", {"memory": "much"}, "quantity"),
    ("spec.relayer.ingress", {}, "Required"),
    ("spec.relayer.gateway", {"parentRefs": []}, "at least 1 items"),
    ("spec.relayer.podTemplate.terminationGraceSeconds", 0, "greater than or equal to 1"),
    ("spec.miner", {"replicas": 3, "shards": 2}, "more replicas than shards"),
    ("spec.miner.replicas", 0, "greater than or equal to 1"),
    ("spec.miner.storage", "10 GB", "quantity"),
    ("spec.miner.shards", 2000, "less than or equal to 1024"),
    ("spec.prefix", "a b", "letters, digits"),
    ("spec.deletion.drainDeadlineSeconds", -1, "greater than or equal to 0"),
    ("metadata.name", "x" * 41, "at most 40"),
    ("metadata.name", "a.b", "at most 40"),
]
BAD_SUPPLIERS = [
    ("spec.operatorAddress", "pokt1short", "pokt1 and 38"),
    ("spec.operatorAddress", "cosmos1nh8l853v6232xvcty6qukay73faqht9rv8jvm6", "43"),
    ("spec.operatorAddress", ..., "Required"),
    ("spec.relayMinerRef", ..., "Required"),
    ("spec.relayMinerRef.name", "", "at least 1 chars"),
    ("spec.key", {}, "exactly one of secretRef and sealed"),
    ("spec.key", {"sealed": "A" * 60, "secretRef": {"name": "a", "key": "b"}}, "exactly one of secretRef and sealed"),
    ("spec.key", {"sealed": "not base64!"}, "relayctl keys seal"),
    ("spec.key", {"secretRef": {"name": "a"}}, "Required"),
    ("spec.services", ["eth", "eth"], "Duplicate value"),
    ("spec.services", ["e th"], "service id"),
]
IMMUTABLE = [
    ("spec.chain.id", "other", "immutable: create another RelayMiner for another chain"),
    ("spec.miner.shards", 8, "immutable: create another RelayMiner with more shards"),
    ("spec.miner.storage", "20Gi", "immutable: grow the claims"),
    ("spec.prefix", "other", "prefix is immutable"),
]


async def refusal(api: KubeApi, kind, namespace: str, body) -> str:
    body = changed(body, "metadata.namespace", namespace)
    with pytest.raises(KubeError) as caught:
        await api.call("POST", kind.path(namespace), body=body, query={"fieldValidation": "Strict", "dryRun": "All"})
    assert caught.value.status in (400, 422), caught.value
    return str(caught.value)


@pytest.mark.parametrize(("path", "value", "said"), BAD_MINERS)
async def test_a_bad_relay_miner_is_refused_by_the_api_server_with_a_remedy(api, path, value, said):
    assert said in await refusal(api, RELAY_MINERS, "default", changed(GOOD_MINER, path, value))


@pytest.mark.parametrize(("path", "value", "said"), BAD_SUPPLIERS)
async def test_a_bad_supplier_is_refused_by_the_api_server_with_a_remedy(api, path, value, said):
    assert said in await refusal(api, SUPPLIERS, "default", changed(GOOD_SUPPLIER, path, value))


@pytest.mark.parametrize("place", ["spec.colour", "spec.chain.node", "spec.services.0.url", "spec.relayer.replica"])
async def test_an_unknown_field_is_refused_by_strict_validation(api, place):
    assert "unknown field" in await refusal(api, RELAY_MINERS, "default", changed(GOOD_MINER, place, 1))


@pytest.mark.parametrize(("path", "value", "said"), IMMUTABLE)
async def test_what_names_the_ledger_or_the_volumes_cannot_be_changed(api, namespace, path, value, said):
    await api.create(RELAY_MINERS, namespace, relay_miner(namespace))
    patch = changed({"spec": {"miner": {}, "chain": {}}}, path, value)
    with pytest.raises(KubeError) as caught:
        await api.merge(RELAY_MINERS, namespace, "main", patch)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"), [("spec.operatorAddress", address("bob")), ("spec.relayMinerRef", {"name": "other"})]
)
async def test_a_supplier_keeps_its_address_and_relay_miner(api, namespace, path, value):
    await api.create(SUPPLIERS, namespace, supplier(namespace))
    with pytest.raises(KubeError, match="immutable"):
        await api.merge(SUPPLIERS, namespace, "alice", changed({"spec": {}}, path, value))


async def test_the_good_resources_are_taken_and_defaults_filled_in(api, namespace):
    made = await api.create(RELAY_MINERS, namespace, relay_miner(namespace))
    assert made["spec"]["chain"]["id"] == "pocket"
    assert made["spec"]["miner"]["storage"] == "10Gi"
    assert "replicas" not in made["spec"]["relayer"], "an autoscaler may own it"
    assert (await api.create(SUPPLIERS, namespace, supplier(namespace)))["spec"]["operatorAddress"] == address("alice")


async def test_a_relay_miner_scales_through_its_scale_subresource(api, namespace, cluster):
    await api.create(RELAY_MINERS, namespace, relay_miner(namespace, relayer={"replicas": 1}))
    cluster.kubectl("-n", namespace, "scale", "relayminer/main", "--replicas=3")
    assert (await api.get(RELAY_MINERS, namespace, "main"))["spec"]["relayer"]["replicas"] == 3


async def test_kubectl_explain_and_the_short_names_and_the_category_work(cluster, api, namespace):
    await api.create(RELAY_MINERS, namespace, relay_miner(namespace))
    await api.create(SUPPLIERS, namespace, supplier(namespace))
    assert "upokt" in cluster.kubectl("explain", "relayminer.spec.chain.gasPrice").stdout
    listed = cluster.kubectl("-n", namespace, "get", "pocket").stdout
    assert "relayminer.pocket.network/main" in listed
    assert "supplier.pocket.network/alice" in listed
    assert "ENDPOINT" in cluster.kubectl("-n", namespace, "get", "rm", "-o", "wide").stdout
    assert "EARNED" in cluster.kubectl("-n", namespace, "get", "sup", "-o", "wide").stdout
