"""The API server itself refuses what cannot work, in words that say what to change."""

import json
import runpy

import pytest

from kube import ROOT
from pocket.api.crd import definitions
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
PLACEHOLDER = "021066f293709356a33e9c13017867586baf52513e845bc4335233a15ed1e00baf"
SIMULATION = "spec.relayer.simulation"

MISTYPED = address("alice")[:-1] + ("q" if address("alice")[-1] != "q" else "p")

BAD_MINERS = [
    (SIMULATION, {"enabled": True}, "at least one identity that is enabled"),
    (SIMULATION, {"enabled": True, "identities": [IDENTITY | {"enabled": False}]}, "one identity that is enabled"),
    (SIMULATION, {"identities": [IDENTITY, IDENTITY]}, "Duplicate value"),
    (SIMULATION, {"identities": [IDENTITY | {"applicationPublicKey": "04" + "0" * 64}]}, "compressed public key"),
    (SIMULATION, {"identities": [IDENTITY | {"gatewayPublicKeys": []}]}, "at least 1 items"),
    (SIMULATION, {"identities": [IDENTITY | {"notAfter": "tomorrow"}]}, "such as 2027-01-31T00:00:00Z"),
    (SIMULATION, {"identities": [IDENTITY | {"keyId": "a b"}]}, "letters, digits"),
    (SIMULATION, {"identities": [IDENTITY | {"notAfter": "2027-02-31T00:00:00Z"}]}, "must be a date that exists"),
    (SIMULATION, {"enabled": True, "identities": [IDENTITY]}, "keys of a ring must differ"),
    (SIMULATION, {"enabled": True, "identities": [IDENTITY | {"gatewayPublicKeys": [PLACEHOLDER]}]}, "placeholder"),
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
    ("spec.chain.nodes.0.rpc", "http://no\u00a0de:26657", "http://host:port or https://host:port"),
    ("spec.chain.nodes.0.rpc", "http://node:26657/\u2003", "http://host:port or https://host:port"),
    (f"{BACKEND}.basePath", "/v1\u00a0", "basePath in body should match"),
    (f"{BACKEND}.healthCheck", {"intervalSeconds": 0}, "must be at least 0.1"),
    (f"{BACKEND}.healthCheck", {"path": "/health\u00a0"}, "path in body should match"),
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
    ("spec.redis", {"trial": {}, "durability": "none"}, "do not apply to a trial Redis"),
    ("spec.redis", {"cluster": {"addresses": ["a b"]}}, "host or host:port"),
    ("spec.redis", {"cluster": {"addresses": []}}, "at least 1 items"),
    ("spec.redis", {"url": "redis://r:1/0", "durability": "some"}, 'supported values: "aof", "managed", "none"'),
    ("spec.redis", {"url": "rediss://r:1/0", "caBundle": {}}, "exactly one of secretRef and configMapRef"),
    ("spec.redis", {"url": "redis://r:1/0", "credentialsSecretRef": {}}, "Required"),
    (
        "spec.redis",
        {"url": "redis://r:1/0", "credentialsSecretRef": {"name": "x", "passwordKey": "a/b"}},
        "letters, digits",
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
POD = "spec.miner.podTemplate.spec"


def own_container(**more):
    return {"containers": [{"name": "miner", **more}]}


def side_container(**more):
    return {"containers": [{"name": "side", "image": "s", **more}]}


BAD_POD_TEMPLATES = [
    (POD, {"serviceAccountName": "mine"}, "serviceAccountName is the operator's: annotate the ServiceAccount instead"),
    (POD, {"restartPolicy": "Never"}, "restartPolicy is the operator's"),
    (POD, own_container(image="x"), "spec.containers[miner].image is the operator's: use the image"),
    (POD, own_container(livenessProbe={"tcpSocket": {"port": 1}}), "livenessProbe is the operator's"),
    (POD, own_container(readinessProbe={"periodSeconds": 5}), "readinessProbe is the operator's: the operator probes"),
    (POD, own_container(env=[{"name": "POD_UID", "value": "x"}]), "env sets one of the operator's: POCKET_REDIS_URL"),
    (POD, own_container(volumeMounts=[{"name": "x", "mountPath": "/keys"}]), "one of the operator's paths: /config"),
    (POD, {"volumes": [{"name": "auth-0", "emptyDir": {}}]}, "one of the operator's names: config"),
    (POD, side_container(env="A=1"), "must be of type array"),
    (POD, side_container(env=[{"name": "A", "valu": "b"}]), "podTemplate.spec.containers[0].env[0].valu"),
    (POD, side_container(env=[{"name": "A", "value": 1}]), "must be of type string"),
    (POD, side_container(env=[{"name": "A"}, {"name": "A"}]), "Duplicate value"),
    (POD, side_container(envFrom=[{"secretRef": {"nam": "x"}}]), "unknown field"),
    (POD, side_container(volumeMounts=[{"name": "x"}]), "mountPath: Required"),
    (POD, side_container(resources={"limits": {"cpu": "lots"}}), 'Invalid value: "lots"'),
    (POD, {"volumes": [{"name": "v", "configMap": {"name": 7}}]}, "must be of type string"),
    (POD, {"volumes": [{"name": "v"}, {"name": "v"}]}, "Duplicate value"),
    (POD, {"initContainers": [{"image": "w"}]}, "name: Required"),
    (POD, {"securityContext": {"runAsUser": "root"}}, "must be of type integer"),
    (POD, {"dnsConfig": {"nameservers": "10.0.0.1"}}, "must be of type array"),
    (POD, {"runtimeClass": "gvisor"}, "unknown field"),
    ("spec.miner.podTemplate.tolerations", [{"tolerationSeconds": "1"}], "must be of type integer"),
    (POD, {"affinity": {"nodeAffinity": {}}}, "affinity is the operator's: use podTemplate.affinity"),
    ("spec.miner.podTemplate.affinity", {"nodeAfinity": {}}, "unknown field"),
    ("spec.miner.podTemplate.topologySpreadConstraints", [{"maxSkew": 1}], "topologyKey: Required"),
    ("spec.redis", {"trial": {"podTemplate": {"spec": {"hostNetwork": "yes"}}}}, "must be of type boolean"),
    ("spec.relayer.autoscaling", {"maxReplicas": 3, "metrics": [{"pods": {}}]}, "type: Required"),
    ("spec.networkPolicy.relaysFrom", [{"podSelector": "x"}], "must be of type object"),
    ("spec.relayer.gateway", {"parentRefs": [{"namespace": "x"}]}, "name: Required"),
    (
        "spec.miner.resources",
        {"requests": {"cpu": "1"}, "limits": {"cpu": "900m"}},
        "cpu: the limit 900m is below the request 1",
    ),
    (URLS, ["http://geth:70000"], '"http://geth:70000" has a port above 65535'),
    (URLS, ["http://geth:65536/x"], "has a port above 65535"),
    ("spec.prefix", "a b", '"a b" must be at most 100 letters'),
    ("spec.redis.url", "redis://user:pw@redis:6379", "those belong in a Secret that urlSecretRef names"),
]
BAD_SUPPLIERS = [
    ("spec.operatorAddress", "pokt1short", "pokt1 and 38"),
    ("spec.operatorAddress", "cosmos1nh8l853v6232xvcty6qukay73faqht9rv8jvm6", "43"),
    ("spec.operatorAddress", MISTYPED, f'"{MISTYPED}" must have the checksum'),
    ("spec.stake", {"amountUpokt": 5, "owner": MISTYPED}, f'"{MISTYPED}" must have the checksum'),
    ("spec.operatorAddress", ..., "Required"),
    ("spec.relayMinerRef", ..., "Required"),
    ("spec.relayMinerRef.name", "", "at least 1 chars"),
    ("spec.key", {}, "exactly one of secretRef, sealed and remote"),
    (
        "spec.key",
        {"sealed": "A" * 60, "secretRef": {"name": "a", "key": "b"}},
        "exactly one of secretRef, sealed and remote",
    ),
    ("spec.key", {"sealed": "not base64!"}, "relayctl keys seal"),
    ("spec.key", {"secretRef": {"name": "a"}}, "Required"),
    ("spec.services", ["eth", "eth"], "Duplicate value"),
    ("spec.services", ["e th"], "service id"),
]
IMMUTABLE = [
    ("spec.chain.id", "other", "immutable: create another RelayMiner for another chain"),
    ("spec.miner.shards", 8, "immutable: create another RelayMiner with more shards"),
    ("spec.miner.storage", "9.5Gi", "10Gi in the resource, 9.5Gi is smaller"),
    ("spec.miner.storageClassName", "fast", "storageClassName is immutable"),
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


@pytest.mark.parametrize(("path", "value", "said"), BAD_POD_TEMPLATES)
async def test_a_bad_pod_template_or_value_is_refused_by_the_api_server_by_name(api, path, value, said):
    found = await refusal(api, RELAY_MINERS, "default", changed(GOOD_MINER, path, value))
    assert said in found
    assert "pw@" not in found, "a password stays unseen"


async def test_a_key_that_was_pasted_for_a_sealed_one_is_not_shown(api):
    bad = changed(GOOD_SUPPLIER, "spec.key", {"sealed": "0x" + "ab" * 15})
    assert "abab" not in await refusal(api, SUPPLIERS, "default", bad)


@pytest.mark.parametrize("port", [65535, 60000, 9])
async def test_the_highest_ports_and_paths_with_numbers_are_taken(api, port):
    body = changed(GOOD_MINER, URLS, [f"http://geth:{port}/a:70000", f"http://[fd00::1]:{port}?x=:70000"])
    await api.call(
        "POST", RELAY_MINERS.path("default"), body=changed(body, "metadata.namespace", "default"),
        query={"dryRun": "All"},
    )  # fmt: skip


async def test_what_people_need_in_a_pod_template_is_taken_and_null_stays(api, namespace):
    spec = {
        "securityContext": {"runAsUser": None, "fsGroup": None, "supplementalGroups": [7]},
        "runtimeClassName": "gvisor",
        "dnsConfig": {"nameservers": ["10.0.0.1"]}, "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
        "initContainers": [{"name": "wait", "image": "w", "restartPolicy": "Always"}],
        "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}],
        "volumes": [{"name": "ca", "configMap": {"name": "ca"}}, {"name": "p", "projected": {"sources": []}},
                    {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {}}}}}],
        "containers": [
            {"name": "miner", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
             "envFrom": [{"configMapRef": {"name": "c"}}], "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl"}],
             "securityContext": {"readOnlyRootFilesystem": None}},
            {"name": "side", "image": "s", "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "UDP"}],
             "livenessProbe": {"httpGet": {"port": "http"}}, "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}},
        ],
    }  # fmt: skip
    made = await api.call(
        "POST", RELAY_MINERS.path(namespace), body=changed(relay_miner(namespace), POD, spec),
        query={"fieldValidation": "Strict"},
    )  # fmt: skip
    assert made["spec"]["miner"]["podTemplate"]["spec"] == spec


async def test_a_definition_fits_into_the_annotation_of_a_client_side_apply():
    for definition in definitions().values():
        assert len(json.dumps(definition, separators=(",", ":"))) < 259_500, (
            "of 262144 bytes: other annotations need some, and the next fields"
        )


async def test_the_schemas_of_kubernetes_are_those_of_the_api_server(cluster):
    generator = runpy.run_path(str(ROOT / "scripts/generate_kubernetes_schemas.py"))
    documents = generator["served"](str(cluster.kubeconfig), cluster.kubectl_path)
    if documents[0]["info"]["version"].startswith("v1.34"):
        assert generator["text"](documents) == generator["TARGET"].read_text(encoding="utf-8")


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


async def test_the_volume_of_a_trial_redis_keeps_its_size(api, namespace):
    await api.create(RELAY_MINERS, namespace, changed(relay_miner(namespace), "spec.redis", {"trial": {}}))
    with pytest.raises(KubeError, match="the volume keeps its size"):
        await api.merge(RELAY_MINERS, namespace, "main", {"spec": {"redis": {"trial": {"storage": "2Gi"}}}})


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
