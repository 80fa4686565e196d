"""What Kubernetes would refuse in the operator's objects, the API server refuses when a RelayMiner is written."""

import pytest

from pocket.api.kubernetes import OWNED_VOLUMES
from pocket.api.relayminer import RelayMiner
from pocket.kube.api_client import KubeApi, KubeError
from pocket_operator.resources import desired
from pocket_operator.resources.context import Context, Images
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS
from resources import changed, relay_miner

LONG = "x" * 64
TEMPLATES = ("spec.relayer.podTemplate", "spec.miner.podTemplate")
BACKEND = "spec.services.0.backends.jsonRpc"
KEY = "each key must be of letters"
VALUE = "in body should match '^(([A-Za-z0-9]"
NAME = "must be a Kubernetes name"
OBJECT = "in body should match '^[a-z0-9]+((-+|"

PLACEMENT = [
    *(("labels", value, said) for value, said in (
        ({"a b": "x"}, KEY), ({"": "x"}, KEY), ({"x/y/z": "1"}, KEY), ({LONG: "1"}, KEY), ({"a": "b c"}, VALUE),
        ({"a": LONG}, "Too long"),
    )),
    ("annotations", {"a b": "x"}, KEY),
    ("nodeSelector", {"a b": "x"}, KEY),
    ("nodeSelector", {"a": "-"}, VALUE),
    ("priorityClassName", "A_b", f'"A_b" {NAME}'),
    ("imagePullSecrets", [{"name": "A_b"}], OBJECT),
    ("imagePullSecrets", [{}], "name: Required"),
    ("tolerations", [{"operator": "Equal", "value": "x"}], "a toleration has a key or operator Exists"),
    ("tolerations", [{"key": "a", "operator": "Exists", "value": "b"}], "Exists, which has no value"),
    ("tolerations", [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}], "only with effect NoExecute"),
    ("topologySpreadConstraints", [{"topologyKey": "z", "maxSkew": 1}], "needs maxSkew and whenUnsatisfiable"),
    ("topologySpreadConstraints", [{"topologyKey": "z", "maxSkew": 0, "whenUnsatisfiable": "DoNotSchedule"}], "to 1"),
    ("topologySpreadConstraints",
     [{"topologyKey": "z", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}] * 2, "have the same topologyKey"),
    ("topologySpreadConstraints", [{"topologyKey": "z", "maxSkew": 1, "whenUnsatisfiable": "x"}], "supported values"),
    ("imagePullSecrets", [{"name": "a"}] * 2, "Duplicate value"),
    ("affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}, "1"),
]  # fmt: skip


def side(**more):
    return {"containers": [{"name": "side", "image": "s", **more}]}


POD_SPECS = [
    ({"containers": [{"name": "mine", "env": []}]}, "needs an image"),
    ({"containers": [{"name": "Side", "image": "s"}]}, "name in body should match"),
    ({"initContainers": [{"name": "wait"}]}, "each container of spec.initContainers needs an image"),
    (side(volumeMounts=[{"name": "nothing", "mountPath": "/x"}]), "needs an entry of spec.volumes with its name"),
    (side(env=[{"name": ""}]), "env[0].name in body should match"),
    (side(env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]), "not"),
    (side(env=[{"name": "A", "valueFrom": {}}]), "at least 1 properties"),
    (side(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"key": "k"}}}]), "secretKeyRef.name: Required"),
    (side(envFrom=[{}]), "oneOf"),
    (side(envFrom=[{"secretRef": {"name": "A_b"}}]), OBJECT),
    (side(ports=[{"containerPort": 70000}]), "less than or equal to 65535"),
    (side(ports=[{"containerPort": 0}]), "greater than or equal to 1"),
    (side(ports=[{"containerPort": 1, "name": "Admin_x"}]), "ports[0].name in body should match"),
    (side(resources={"limits": {"cpu": "-1"}}), 'Invalid value: "-1"'),
    (side(resources={"limits": {"cpuu": "1"}}), "a resource is unknown: use cpu, memory"),
    (side(livenessProbe={"httpGet": {"port": 0}}), "greater than or equal to 1"),
    (side(lifecycle={"preStop": {}}), "at least 1 properties"),
    (side(securityContext={"runAsUser": -1}), "greater than or equal to 0"),
    ({"volumes": [{"name": "V_x", "emptyDir": {}}]}, "name in body should match"),
    ({"volumes": [{"name": "v", "emptyDir": {}, "configMap": {"name": "a"}}]}, "at most 2"),
    ({"volumes": [{"name": "v", "secret": {}}]}, "secretName: Required"),
    ({"volumes": [{"name": "v", "configMap": {"name": "a", "defaultMode": 512}}]}, "less than or equal to 511"),
    *(({"volumes": [{"name": name, "emptyDir": {}}]}, "one of the operator's names") for name in OWNED_VOLUMES),
    ({"securityContext": {"fsGroup": -1}}, "greater than or equal to 0"),
    ({"dnsPolicy": "None"}, "dnsPolicy None needs dnsConfig"),
    ({"nodeSelector": {"a b": "c"}}, "each key of nodeSelector"),
    ({"runtimeClassName": "A_b"}, OBJECT),
    ({"activeDeadlineSeconds": 10}, "unknown field"),
    (side(lifecycle={"postStart": {"tcpSocket": {"port": 1}}}), "unknown field"),
    (side(volumeMounts=[{"name": "data", "mountPath": "/x", "subPath": "../y"}]), "(not)"),
    (side(volumeMounts=[{"name": "data", "mountPath": ""}]), "at least 1 chars"),
    (side(securityContext={"seccompProfile": {"type": "Localhost"}}), "localhostProfile"),
    *(
        ({"initContainers": [{"name": "i", "image": "s", **more}]}, "need restartPolicy Always")
        for more in (
            {"readinessProbe": {"tcpSocket": {"port": 1}}},
            {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
        )
    ),
    ({"volumes": [{"name": "v", "configMap": {"name": "a", "items": [{"key": "a", "path": "../x"}]}}]}, "(not)"),
    (
        {
            "volumes": [
                {
                    "name": "v",
                    "projected": {"sources": [{"serviceAccountToken": {"path": "x", "expirationSeconds": 5}}]},
                }
            ]
        },
        "greater than or equal to 600",
    ),
    ({"volumes": [{"name": "v", "csi": {"driver": "X Y"}}]}, "driver in body should match"),
    ({"volumes": [{"name": "v", "downwardAPI": {"items": [{"path": "x"}]}}]}, "oneOf"),
    ({"volumes": [{"name": "v", "ephemeral": {}}]}, "volumeClaimTemplate: Required"),
    ({"securityContext": {"seccompProfile": {"type": "Localhost"}}}, "localhostProfile"),
    ({"securityContext": {"sysctls": [{"name": "a b", "value": "1"}]}}, "name in body should match"),
    ({"securityContext": {"supplementalGroups": [-1]}}, "greater than or equal to 0"),
    ({"dnsConfig": {"searches": ["a b"]}}, "searches[0] in body should match"),
    ({"dnsConfig": {"options": [{"value": "x"}]}}, "name: Required"),
    ({"dnsConfig": {"nameservers": ["10.0.0.256"]}}, "nameservers[0] in body should match"),
    ({"hostAliases": [{"ip": "300.1.1.1", "hostnames": ["a"]}]}, "ip in body should match"),
    ({"hostAliases": [{"ip": "1.1.1.1", "hostnames": ["a b"]}]}, "hostnames[0] in body should match"),
    ({"readinessGates": [{"conditionType": "a b"}]}, "conditionType in body should match"),
    ({"os": {"name": "windows"}}, "supported values"),
    ({"tolerations": [{"key": "a b"}]}, "key in body should match"),
    (side(resources={"requests": {"cpu": "2"}, "limits": {"cpu": 1}}), "a limit is below its request"),
    (side(resources={"requests": {"memory": "1Gi"}, "limits": {"memory": "1023Mi"}}), "a limit is below its request"),
    (side(ports=[{"containerPort": 1}] * 2), "the same port occurs twice"),
    (side(volumeMounts=[{"name": "data", "mountPath": "/x", "subPath": "a", "subPathExpr": "b"}]), "(not)"),
    (side(securityContext={"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}}), "localhostProfile"),
    (side() | {"initContainers": [{"name": "side", "image": "s"}]}, "a name that no other has"),
    ({"dnsPolicy": "None", "dnsConfig": {"searches": ["a"]}}, "dnsConfig with nameservers"),
    ({"dnsConfig": {"searches": ["a"] * 33}}, "at most 32 items"),
    ({"dnsConfig": {"options": [{"name": ""}]}}, "at least 1 chars"),
    ({"nodeSelector": {"a": "b c"}}, "nodeSelector.a in body should match"),
    ({"volumes": [{"name": "v", "hostPath": {"path": ""}}]}, "at least 1 chars"),
    ({"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]}, "(not)"),
    ({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "x"}}]}, "path in body should match"),
    (
        {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "a"}, "configMap": {"name": "b"}}]}}]},
        "must have at most 1",
    ),
    ({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {}}]}}]}, "name: Required"),
    ({"volumes": [{"name": "v", "projected": {"defaultMode": 512, "sources": []}}]}, "less than or equal to 511"),
    ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "A_b"}}]}, OBJECT),
    ({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": []}}}}]}, "at least 1"),
    ({"overhead": {"cpu": "1"}}, "unknown field"),
]
OWN = [
    ("spec.chain.id", "a b", 'Invalid value: "a b"'),
    ("spec.chain.nodes", [{"grpc": "grpc://a:1", "rpc": "http://a:2"}] * 2, "the same node occurs twice"),
    *(("spec.relayer.image", image, f'"{image}" must be an image such as') for image in ("", "a b", "A/B:c", "a:")),
    ("spec.miner.image", "a@sha256:12", "must be an image such as"),
    ("spec.console", {"image": " a"}, "must be an image such as"),
    ("spec.relayer.port", 9090, "relayer.port is a port of the pods themselves: 9090"),
    ("spec", {**relay_miner("x")["spec"], "debug": True, "relayer": {"port": 6063, "workers": 4}}, "from 6060 on"),
    ("spec.relayer.resources", {"limits": {"cpuu": "1"}}, "each key must be cpu, memory, ephemeral-storage or"),
    ("spec.relayer.resources", {"requests": {"a.com/gpu": "1"}, "limits": {"a.com/gpu": "2"}}, "must be its limit"),
    *(("spec.relayer.resources", {"limits": {"a.com/gpu": v}}, "must be a whole number") for v in ("1.5", "500m")),
    ("spec.miner.storage", "0", "0 must be at least 1Mi"),
    ("spec.redis", {"trial": {"storage": "500m"}}, "must be at least 1Mi"),
    ("spec.redis.url", "redis://a/x", '"redis://a/x" must name the database by its number'),
    ("spec.redis.url", "redis://a/0/1", "must name the database"),
    ("spec.redis.url", "redis://a/0?decode_responses=true", "must have no options but db"),
    ("spec.redis", {"sentinel": {"addresses": ["a:70000"]}}, '"a:70000" must be host or host:port'),
    ("spec.redis", {"sentinel": {"addresses": ["a", "a"]}}, "Duplicate value"),
    ("spec.redis", {"cluster": {"addresses": ["..."]}}, "must be host or host:port"),
    ("spec.redis", {"urlSecretRef": {"name": "a", "key": "a/b"}}, '"a/b" must be of letters, digits'),
    ("spec.redis", {"urlSecretRef": {"name": "a", "key": ".."}}, "must be of letters, digits"),
    ("spec.redis", {"urlSecretRef": {"name": "a..b", "key": "k"}}, NAME),
    ("spec.relayer.ingress", {"host": "a..b"}, '"a..b" must be a host name'),
    ("spec.relayer.ingress", {"host": "10.0.0.1"}, '"10.0.0.1" must be a host name, not an address'),
    ("spec.relayer.ingress", {"host": "a.b", "annotations": {"a b": "c"}}, KEY),
    ("spec.relayer.service", {"annotations": {"x/y/z": "c"}}, KEY),
    ("spec.relayer.gateway", {"parentRefs": [{"name": "a", "group": "A B"}]}, NAME),
    ("spec.relayer.gateway", {"parentRefs": [{"name": "a"}], "hostnames": ["a.b", "a.b"]}, "Duplicate value"),
    ("spec.monitoring", {"labels": {"a b": "c"}}, KEY),
    ("spec.relayer.autoscaling", {"maxReplicas": 3, "metrics": [{"type": "Pods"}]}, "at least 2 properties"),
    ("spec.relayer.autoscaling", {"maxReplicas": 3, "metrics": [{"type": "What", "pods": {}}]}, "supported values"),
    (
        "spec.relayer.autoscaling",
        {
            "maxReplicas": 3,
            "metrics": [
                {
                    "type": "Pods",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}},
                }
            ],
        },
        "the field of that type",
    ),
    (
        "spec.relayer.autoscaling",
        {
            "maxReplicas": 3,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 0}},
                }
            ],
        },
        "greater than or equal to 1",
    ),
    ("spec.networkPolicy.relaysFrom", [{}], "at least 1 properties"),
    ("spec.networkPolicy.relaysFrom", [{"ipBlock": {"cidr": "10.0.0.0/33"}}], "cidr in body should match"),
    ("spec.networkPolicy.relaysFrom", [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}], "part of cidr"),
    ("spec.networkPolicy.relaysFrom", [{"ipBlock": {"cidr": "x"}}], "cidr in body should match"),
    ("spec.networkPolicy.relaysFrom", [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}], "(not)"),
    (f"{BACKEND}.headers", {"a b": "x"}, "each key must be the name of an HTTP header"),
    (f"{BACKEND}.headers", {"X": "a\r\nSet: b"}, "headers.X in body should match"),
    (f"{BACKEND}.auth", {"type": "header", "secretRef": {"name": "a"}, "header": "X:"}, '"X:" must be the name of'),
    (f"{BACKEND}.basePath", "/a?b", "basePath in body should match"),
    (f"{BACKEND}.healthCheck", {"path": "/a b"}, "path in body should match"),
    (f"{BACKEND}.healthCheck", {"expectStatus": [1000]}, "less than or equal to 599"),
    (f"{BACKEND}.healthCheck", {"expectStatus": [200, 200]}, "Duplicate value"),
    ("spec.services.0.applications.allow", ["pokt1" + "b" * 38], "applications.allow[0] in body should match"),
]

GOOD = [
    ("spec.relayer.image", "registry:5000/Team/a".lower() + "/relayer:1.2.3@sha256:" + "0" * 64),
    ("spec.relayer.image", "ghcr.io/pocket-relay-mining/relayer:v0.1.0-rc.1"),
    ("spec.relayer.ingress", {"host": "*.example.org", "className": "nginx"}),
    ("spec.relayer.gateway", {"parentRefs": [{"name": "a"}], "hostnames": ["*.example.org"]}),
    ("spec.redis.url", "redis://redis"),
    ("spec.redis.url", "rediss://redis:6379/15?health_check_interval=3&ssl_cert_reqs=none"),
    ("spec.redis", {"sentinel": {"addresses": ["redis-0.redis.ns.svc.cluster.local:26379", "10.0.0.1"]}}),
    ("spec.redis", {"urlSecretRef": {"name": "a.b-c", "key": ".dotted_KEY-1.x"}}),
    (f"{BACKEND}.headers", {"X-Api-Key": "é, ~ \"quoted\""}),
    (f"{BACKEND}.basePath", "/v1/%7Bid%7D/"),
    (f"{BACKEND}.healthCheck", {"path": "/health?full=1", "expectStatus": [200, 404]}),
    ("spec.relayer.resources", {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": "1", "hugepages-2Mi": "2Mi"}}),
    ("spec.miner.podTemplate", {"labels": {"example.org/Team_a.b": ""}, "nodeSelector": {"kubernetes.io/os": "linux"}}),
    ("spec.miner.podTemplate", {"tolerations": [{"operator": "Exists"}, {"key": "a"}, {"key": "b", "value": "c"}]}),
    ("spec.miner.podTemplate.spec", {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.1", "fd00::1"]}}),
    (
        "spec.miner.podTemplate.spec",
        {
            "dnsConfig": {"searches": ["a.svc.cluster.local", "."], "options": [{"name": "ndots", "value": "2"}]},
            "hostAliases": [{"ip": "255.0.10.1", "hostnames": ["a.b"]}, {"ip": "::1", "hostnames": ["c"]}],
            "securityContext": {
                "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "1024 65535"}],
                "supplementalGroups": [0, 5], "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"},
            },
            "containers": [{
                "name": "miner",
                "volumeMounts": [{"name": "more", "mountPath": "/more", "subPath": "a/..b"}],
            }],
            "initContainers": [{
                "name": "side", "image": "s", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": "x"}},
            }],
            "volumes": [{"name": "more", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"configMap": {"name": "a", "items": [{"key": "a", "path": "b/c..d"}]}},
            ]}}],
            "shareProcessNamespace": True, "os": {"name": "linux"},
            "readinessGates": [{"conditionType": "example.org/Ready"}],
        },
    ),
    (
        "spec.relayer.autoscaling",
        {"maxReplicas": 3, "metrics": [{"type": "Pods", "pods": {
            "metric": {"name": "relays"}, "target": {"type": "AverageValue", "averageValue": "5"}}}]},
    ),
    ("spec.networkPolicy", {"enabled": True, "relaysFrom": [
        {"podSelector": {}, "namespaceSelector": {}}, {"ipBlock": {"cidr": "fd00::/8", "except": ["fd00:1::/128"]}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/32"]}},
    ]}),
    ("spec.miner.podTemplate.spec", {
        "nodeSelector": {"a": ""},
        "containers": [{
            "name": "side", "image": "s",
            "ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": 1, "memory": "1073741824"}},
        }],
    }),
    ("spec.relayer.ingress", {"host": "1.example.org"}),
]  # fmt: skip


async def written(api: KubeApi, body) -> dict:
    query = {"fieldValidation": "Strict", "dryRun": "All"}
    found: dict = await api.call("POST", RELAY_MINERS.path("default"), body=body, query=query)
    return found


async def refused(api: KubeApi, path: str, value) -> str:
    with pytest.raises(KubeError) as caught:
        await written(api, changed(relay_miner("default"), path, value))
    assert caught.value.status in (400, 422), caught.value
    return str(caught.value)


@pytest.mark.parametrize(("field", "value", "said"), PLACEMENT)
async def test_placement_that_no_workload_can_have_is_refused(api, field, value, said):
    for template in TEMPLATES:
        assert said in await refused(api, f"{template}.{field}", value)
    assert said in await refused(api, "spec.console", {"podTemplate": {field: value}})
    assert said in await refused(api, "spec.redis", {"trial": {"podTemplate": {field: value}}})


@pytest.mark.parametrize(("spec", "said"), POD_SPECS)
async def test_a_pod_spec_that_no_workload_can_have_is_refused(api, spec, said):
    for template in TEMPLATES:
        assert said in await refused(api, f"{template}.spec", spec)
    assert said in await refused(api, "spec.redis", {"trial": {"podTemplate": {"spec": spec}}})


@pytest.mark.parametrize(("path", "value", "said"), OWN)
async def test_a_value_that_cannot_work_is_refused(api, path, value, said):
    assert said in await refused(api, path, value)


@pytest.mark.parametrize(("path", "value"), GOOD)
async def test_what_works_is_taken_and_so_are_all_objects_that_follow_from_it(api, path, value):
    made = await written(api, changed(relay_miner("default"), path, value))
    parsed = RelayMiner.model_validate({key: part for key, part in made.items() if key != "status"})
    for child in desired(Context(parsed, "uid", Images(), "default")):
        if child["kind"] == "HTTPRoute":
            continue  # the control plane of the tests has no Gateway API
        del child["metadata"]["ownerReferences"]
        await api.call("POST", BY_KIND[child["kind"]].path("default"), body=child, query={"dryRun": "All"})
