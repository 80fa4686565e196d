"""The installed policy refuses the pod settings that Kubernetes would refuse in the pods, and nothing else."""

import asyncio
import itertools
import os

import pytest
import yaml

from kube import eventually
from pocket.api.relayminer import RelayMiner
from pocket.kube.api_client import KubeError
from pocket_operator import install
from pocket_operator.resources import desired
from pocket_operator.resources.context import Context, Images
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS
from pod_settings import POD, REFUSED, host_port, side
from resources import changed, relay_miner

APPLY = "application/apply-patch+yaml"
AFFINITY = "spec.relayer.podTemplate.affinity"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def pod_term(**more):
    return {"podAffinity": {REQUIRED: [{"topologyKey": "k", **more}]}}


def node_term(key="a", operator="Exists", **more):
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": key, "operator": operator, **more}]}]}}}  # fmt: skip


def variable(**source):
    return side(env=[{"name": "A", "valueFrom": source}])


def volume(**source):
    return {"volumes": [{"name": "v", **source}]}


def item(path, **more):
    return {"items": [{"path": path, **more}]}


CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "0"}}}
TWO_PATHS = [{"secret": {"name": "a", **item("p", key="k")}}, {"configMap": {"name": "b", **item("p", key="k")}}]
SYSCTL = {"name": "kernel.shm_rmid_forced", "value": "1"}
BAD = [
    (AFFINITY, pod_term(labelSelector={"matchLabels": {"a b": "c"}}), "a b: the key of a label is not valid"),
    (AFFINITY, pod_term(labelSelector={"matchLabels": {"a": "b c"}}), "a: the value of this label is not valid"),
    (AFFINITY, pod_term(namespaceSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}), "a In: In and"),
    (AFFINITY, pod_term(labelSelector={"matchExpressions": [{"key": "-", "operator": "Exists"}]}), "-: the key of"),
    (
        AFFINITY, pod_term(labelSelector={"matchExpressions": [{"key": "a", "operator": "In", "values": ["b c"]}]}),
        "a: the values of this label are not valid",
    ),
    (AFFINITY, pod_term(topologyKey="a b"), "a b: topologyKey is not the key of a label"),
    (AFFINITY, pod_term(namespaces=["A B"]), "A B: not the name of a namespace"),
    (AFFINITY, pod_term(matchLabelKeys=["a"]), "a: matchLabelKeys and mismatchLabelKeys need labelSelector"),
    (
        "spec.miner.podTemplate.affinity",
        {"podAntiAffinity": {PREFERRED: [{"weight": 1, "podAffinityTerm": {"topologyKey": ""}}]}}, "at least 1 chars",
    ),
    (
        "spec.miner.podTemplate.affinity",
        {"podAntiAffinity": {PREFERRED: [{"weight": 1, "podAffinityTerm": {"topologyKey": "-"}}]}}, "-: topologyKey",
    ),
    (AFFINITY, node_term("a b"), "a b: the key of a label is not valid"),
    (AFFINITY, node_term(values=["x"]), "a Exists: In and NotIn need values"),
    (AFFINITY, node_term(operator="Gt", values=["1", "2"]), "a Gt: In and NotIn need values, Gt and Lt one"),
    (AFFINITY, node_term(operator="In", values=["b c"]), "a: the values of this label are not valid"),
    (
        AFFINITY,
        {"nodeAffinity": {PREFERRED: [{"weight": 1, "preference": {"matchFields": [
            {"key": "metadata.uid", "operator": "In", "values": ["x"]}]}}]}},
        "metadata.uid In: matchFields takes metadata.name",
    ),
    (
        "spec.redis.trial.podTemplate.topologySpreadConstraints",
        [{"topologyKey": "z", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "matchLabelKeys": ["a"]}],
        "z: matchLabelKeys needs labelSelector",
    ),
    (POD, {"topologySpreadConstraints": [{"topologyKey": "z"}]}, "z: a constraint that the operator does not have"),
    (POD, side(ports=[{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]), "a: the name of a port"),
    (POD, side(ports=[{"containerPort": 1, "name": "1"}]), "1: the name of a port needs a letter"),
    (
        POD, side(volumeMounts=[{"name": "tmp", "mountPath": "/x", "mountPropagation": "Bidirectional"}]),
        "tmp: mountPropagation Bidirectional needs a privileged container",
    ),
    (
        POD, side(volumeMounts=[{"name": "tmp", "mountPath": "/x", "recursiveReadOnly": "yes"}]),
        "tmp: recursiveReadOnly is Disabled",
    ),
    (POD, side(envFrom=[{"prefix": "=", "configMapRef": {"name": "a"}}]), "=: the prefix of envFrom"),
    (POD, variable(secretKeyRef={"name": "a", "key": "a b"}), "A: a b: not the name of an entry of a Secret"),
    (POD, variable(configMapKeyRef={"name": "a", "key": "a/b"}), "A: a/b: not the name of an entry of a ConfigMap"),
    (POD, variable(fieldRef={"fieldPath": "metadata.nope"}), "A: metadata.nope: a variable cannot have this field"),
    (POD, variable(fieldRef={"fieldPath": "metadata.labels"}), "A: metadata.labels: a variable cannot have this"),
    (POD, variable(resourceFieldRef={"resource": "limits.gpu"}), "A: limits.gpu: a variable cannot have this of"),
    (POD, variable(resourceFieldRef={"resource": "limits.cpu", "divisor": "7"}), "A: divisor must be 1 or a unit"),
    (
        POD, volume(downwardAPI=item("x", fieldRef={"fieldPath": "spec.nodeName"})),
        "spec.nodeName: a volume cannot have this field",
    ),
    (
        POD, volume(projected={"sources": [{"downwardAPI": item("x", fieldRef={"fieldPath": "status.podIP"})}]}),
        "v: a volume cannot have this field",
    ),
    (POD, volume(projected={"sources": TWO_PATHS}), "v: two sources have the same path"),
    (POD, volume(ephemeral={"volumeClaimTemplate": {"spec": CLAIM}}), "v: an ephemeral volume needs accessModes"),
    (POD, side(livenessProbe={"exec": {"command": []}}), "command: exec needs a command"),
    (POD, side(lifecycle={"preStop": {"exec": {"command": []}}}), "command: exec needs a command"),
    (POD, side(startupProbe={"httpGet": {"port": "UPPER"}}), "UPPER: not the number or name of a port"),
    (POD, side(livenessProbe={"tcpSocket": {"port": "70"}}), "70: not the number or name of a port"),
    (POD, side(livenessProbe={"tcpSocket": {"port": 70000}}), "70000"),
    (
        POD, side(readinessProbe={"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": "x"}]}}),
        "a b: not the name of an HTTP header",
    ),
    (POD, side(livenessProbe={"tcpSocket": {"port": 1}, "successThreshold": 2}), "2: successThreshold must be 1"),
    (
        POD, side(livenessProbe={"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 0}),
        "0: terminationGracePeriodSeconds must be above 0",
    ),
    (
        POD, side(readinessProbe={"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 5}),
        "5: readiness probes have no terminationGracePeriodSeconds",
    ),
    (POD, side(readinessProbe={"tcpSocket": {"port": 1}, "periodSeconds": -1}), "must not be below 0"),
    (POD, side(lifecycle={"preStop": {"sleep": {"seconds": 9999}}}), "9999: a sleep must be within the time"),
    ("spec.relayer.resources", {"limits": {"hugepages-2Mi": "3Mi"}}, "hugepages-2Mi: huge pages must be a multiple"),
    ("spec.miner.resources", {"limits": {"requests.x/foo": "1"}}, "requests.x/foo: not the name of a resource"),
    (POD, side(resources={"requests": {"a.b/c": 2}}), "a.b/c: the request of an extended resource"),
    (POD, side(resources={"limits": {"hugepages-2Mi": "4Mi"}}), "hugepages-2Mi: huge pages need cpu or memory"),
    (POD, {"hostNetwork": True, "hostUsers": False}, "hostUsers: hostNetwork needs the users of the host"),
    (POD, {"hostPID": True, "shareProcessNamespace": True}, "exclude each other"),
    (POD, {"securityContext": {"sysctls": [SYSCTL, SYSCTL]}}, "kernel.shm_rmid_forced: the name of a sysctl"),
    (POD, {"securityContext": {"appArmorProfile": {"type": "Localhost"}}}, "localhostProfile"),
    (
        POD, side(securityContext={"privileged": True, "allowPrivilegeEscalation": False}),
        "a privileged container cannot have it",
    ),
    (
        POD, side(securityContext={"capabilities": {"add": ["CAP_SYS_ADMIN"]}, "allowPrivilegeEscalation": False}),
        "a privileged container cannot have it",
    ),
    (
        "spec.relayer.autoscaling",
        {"maxReplicas": 3, "metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization"}}}]},
        "Utilization: the target lacks the field of its type",
    ),
    *REFUSED,
    (
        "spec.networkPolicy", {"enabled": True, "relaysFrom": [{"podSelector": {"matchLabels": {"a b": "c"}}}]},
        "a b: the key of a label is not valid",
    ),
]  # fmt: skip
WANTED = {
    AFFINITY: {
        **node_term(operator="Lt", values=["5"]),
        "podAffinity": {REQUIRED: [{
            "topologyKey": "kubernetes.io/hostname", "namespaces": ["team"], "matchLabelKeys": ["pod-template-hash"],
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "", "a": "1"}},
        }]},
        "podAntiAffinity": {PREFERRED: [{"weight": 5, "podAffinityTerm": {
            "topologyKey": "example.org/rack", "labelSelector": {"matchExpressions": [
                {"key": "a", "operator": "NotIn", "values": ["", "b"]}, {"key": "c", "operator": "DoesNotExist"}]}}}]},
    },
    "spec.relayer.resources": {"limits": {"hugepages-2Mi": "4Mi", "nvidia.com/gpu": "1"}},
    POD: {
        "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 2}],
        "volumes": [
            {"name": "d", "downwardAPI": item("labels", fieldRef={"fieldPath": "metadata.labels"})},
            {"name": "p", "projected": {"sources": [{"secret": {"name": "a"}}, {"configMap": {"name": "b"}}]}},
        ],
        "initContainers": [{"name": "sidecar", "image": "s", "restartPolicy": "Always", "startupProbe": {
            "tcpSocket": {"port": 1}}, "ports": [host_port(1)]}],
        "containers": [
            {"name": "relayer", "envFrom": [{"prefix": "P_", "secretRef": {"name": "s"}}], "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": ".a-b_c.D"}}},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
                {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}]},
            {"name": "side", "image": "s", "resources": {"limits": {"cpu": 1, "a.b/c": 2}, "requests": {"a.b/c": "2"}},
             "ports": [{"containerPort": 1, "name": "a-1"}, {"containerPort": 2, "name": "b"}, host_port(3),
                       host_port(4, protocol="UDP"), host_port(5, hostIP="10.0.0.1")],
             "livenessProbe": {"httpGet": {"port": "a-1", "httpHeaders": [{"name": "X-A", "value": "b"}]}},
             "readinessProbe": {"exec": {"command": ["true"]}, "successThreshold": 3},
             "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}, "securityContext": {
                "seccompProfile": {"type": "RuntimeDefault"}, "allowPrivilegeEscalation": False}},
        ],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def policies(cluster):
    """Install the policy for the namespaces that a test labels: other processes use the same cluster."""
    name = f"templates-{os.getpid()}"
    policy, binding = install.template_policy(install.Values())
    policy["metadata"]["name"] = binding["metadata"]["name"] = binding["spec"]["policyName"] = name
    binding["spec"]["matchResources"] = {"namespaceSelector": {"matchLabels": {"policy": name}}}
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all([policy, binding]))
    yield name
    cluster.kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", name)


@pytest.fixture
async def governed(api, cluster, namespace, policies):
    """Return a function that dry-runs a RelayMiner under the policy and returns the refusal, if any."""
    cluster.kubectl("label", "namespace", namespace, f"policy={policies}")

    async def refusal(body):
        body = changed(body, "metadata.namespace", namespace)
        query = {"fieldValidation": "Strict", "dryRun": "All"}
        try:
            await api.call("POST", RELAY_MINERS.path(namespace), body=body, query=query)
        except KubeError as error:
            return str(error)
        return ""

    async def effective():
        return await refusal(changed(relay_miner(namespace), AFFINITY, node_term("a b")))

    await eventually(effective, 20, "the policy is in force")
    return refusal


def based(namespace, path):
    found = relay_miner(namespace)
    return changed(found, "spec.redis", {"trial": {"podTemplate": {}}}) if ".trial." in path else found


CHECKED_KINDS = ("Deployment", "StatefulSet", "Service", "NetworkPolicy", "HorizontalPodAutoscaler")


async def refused_children(api, body):
    """Return what Kubernetes says of the objects that the operator makes of a RelayMiner."""
    found = []
    namespace = body["metadata"]["namespace"]
    for child in desired(Context(RelayMiner.model_validate(body), "u", Images(), namespace)):
        if child["kind"] not in CHECKED_KINDS:
            continue
        child["metadata"].pop("ownerReferences", None)
        path = BY_KIND[child["kind"]].path(namespace, child["metadata"]["name"])
        query = {"fieldManager": "t", "dryRun": "All"}
        try:
            await api.call("PATCH", path, body=child, query=query, content_type=APPLY)
        except KubeError as error:
            found.append(str(error))
    return found


async def test_what_kubernetes_refuses_in_the_pods_is_refused_in_the_relay_miner(api, namespace, governed):
    async def wrong(path, value, said):
        body = changed(based(namespace, path), path, value)
        if said not in (refusal := await governed(body)):
            return path, value, refusal or "taken"
        return None if await refused_children(api, body) else (path, value, "Kubernetes takes it")

    assert [row for row in await asyncio.gather(*(wrong(*case) for case in BAD)) if row] == []


async def test_what_kubernetes_takes_in_the_pods_is_taken(api, namespace, governed):
    body = relay_miner(namespace)
    for path, value in WANTED.items():
        body = changed(body, path, value)
    assert await refused_children(api, body) == []
    assert await governed(body) == ""


async def test_what_was_stored_before_the_policy_keeps_its_metadata_writable(api, cluster, namespace, policies):
    """Otherwise no finalizer would come off a RelayMiner that has such a value."""
    bad = changed(relay_miner(namespace), AFFINITY, node_term("a b"))
    await api.create(RELAY_MINERS, namespace, bad)
    cluster.kubectl("label", "namespace", namespace, f"policy={policies}")

    workers = itertools.cycle((2, 3))  # what stays as it is passes

    async def refused():
        try:
            await api.merge(RELAY_MINERS, namespace, "main", {"spec": {"relayer": {"workers": next(workers)}}})
        except KubeError as error:
            return "a b: the key of a label is not valid" in str(error)
        return False

    await eventually(refused, 20, "a change of the specification is refused")
    await api.merge(RELAY_MINERS, namespace, "main", {"metadata": {"finalizers": ["pocket.network/drain"]}})
    await api.merge(RELAY_MINERS, namespace, "main", {"metadata": {"finalizers": []}})


async def test_the_api_server_finds_no_wrong_type_in_the_policy(cluster, policies):
    def status():
        return cluster.kubectl("get", "validatingadmissionpolicy", policies, "-o", "jsonpath={.status}").stdout

    async def checked():
        return "typeChecking" in status()

    if cluster.level != "api":
        await eventually(checked, 20, "types checked")
        assert "expressionWarnings" not in status()
