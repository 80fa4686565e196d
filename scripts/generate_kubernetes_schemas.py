"""Write kubernetes_schemas.json from the OpenAPI documents of an API server.

The file is in core/pocket/api.

Usage: scripts/generate_kubernetes_schemas.py KUBECONFIG. tests/cluster/test_bad_resources.py compares the file with the
API server of the tests. Descriptions and defaults are left out: kubectl explain shows the first, and an API server
that filled in the second would change what its owner wrote.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from kubernetes_constraints import FIELDS, REQUIRED, RULES, TYPES

TARGET = Path(__file__).resolve().parents[1] / "core/pocket/api/kubernetes_schemas.json"
DOCUMENTS = ("api/v1", "apis/autoscaling/v2", "apis/networking.k8s.io/v1")
ROOTS = {
    "PodSpec": "io.k8s.api.core.v1.PodSpec",
    "Toleration": "io.k8s.api.core.v1.Toleration",
    "Affinity": "io.k8s.api.core.v1.Affinity",
    "TopologySpreadConstraint": "io.k8s.api.core.v1.TopologySpreadConstraint",
    "LocalObjectReference": "io.k8s.api.core.v1.LocalObjectReference",
    "MetricSpec": "io.k8s.api.autoscaling.v2.MetricSpec",
    "NetworkPolicyPeer": "io.k8s.api.networking.v1.NetworkPolicyPeer",
}
QUANTITY = r"^\+?(\d+\.?\d*|\.\d+)([KMGTPE]i?|[numk]|[eE][+-]?\d+)?$"
LEFT_OUT = {
    "io.k8s.api.core.v1.PodSpec": {
        "activeDeadlineSeconds", "ephemeralContainers", "hostnameOverride", "nodeName", "overhead", "resourceClaims",
        "resources", "schedulingGates",
    },
    "io.k8s.api.core.v1.Container": {"restartPolicyRules", "resizePolicy", "volumeDevices"},
    "io.k8s.api.core.v1.PodSecurityContext": {"windowsOptions"},
    "io.k8s.api.core.v1.ResourceRequirements": {"claims"},
    "io.k8s.api.core.v1.SecurityContext": {"procMount", "windowsOptions"},
    "io.k8s.api.core.v1.EnvVarSource": {"fileKeyRef"},
    "io.k8s.api.core.v1.LifecycleHandler": {"tcpSocket"},
    "io.k8s.api.core.v1.VolumeProjection": {"clusterTrustBundle", "podCertificate"},
    "io.k8s.api.core.v1.PersistentVolumeClaimSpec": {"dataSource", "dataSourceRef", "selector", "volumeName"},
    "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {
        "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName",
        "generation", "managedFields", "name", "namespace", "ownerReferences", "resourceVersion", "selfLink", "uid",
    },
    "io.k8s.api.core.v1.Volume": {
        "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "flexVolume", "flocker",
        "gcePersistentDisk", "gitRepo", "glusterfs", "photonPersistentDisk", "portworxVolume", "quobyte", "rbd",
        "scaleIO", "storageos", "vsphereVolume", "fc", "iscsi",
    },
}  # fmt: skip
"""Fields that a workload's pod template cannot have, that not every supported Kubernetes has, or that it deprecates."""
LISTED_ELSEWHERE = {("io.k8s.api.core.v1.Lifecycle", "stopSignal")}
"""Fields whose many values are left out of the schema."""
REMOVABLE = {
    "io.k8s.api.core.v1.PodSpec": {"securityContext", "topologySpreadConstraints", "enableServiceLinks"},
    "io.k8s.api.core.v1.Container": {"securityContext", "terminationMessagePolicy", "imagePullPolicy"},
    "io.k8s.api.core.v1.PodSecurityContext": None,
    "io.k8s.api.core.v1.SecurityContext": None,
}
"""Fields that the operator sets and that an owner may remove by null. None: all of the type."""
ELSEWHERE = {("io.k8s.api.core.v1.PodSpec", "affinity")}
"""Large fields that the pod template has itself, so that a rule refuses them in its `spec`."""
LONGEST = {
    "io.k8s.api.core.v1.Container": {"name": 63}, "io.k8s.api.core.v1.Volume": {"name": 63},
    "io.k8s.api.core.v1.EnvVar": {"name": 512}, "io.k8s.api.core.v1.VolumeMount": {"mountPath": 512, "name": 63},
}  # fmt: skip
"""Longest names that rules are about, for the same reason as MOST."""
ONLY_KEYS = {"io.k8s.api.core.v1.TopologySpreadConstraint": ["topologyKey"]}
"""Required fields of types whose entries an owner may change in part."""
MOST = {
    "containers": 10, "initContainers": 10, "volumes": 40, "env": 128, "envFrom": 32, "volumeMounts": 40, "ports": 32,
    "tolerations": 32,
}  # fmt: skip
"""Most entries of lists, which bounds the cost of rules about them."""


def schemas(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Return structural schemas by short name from an API server's OpenAPI documents."""
    definitions: dict[str, Any] = {}
    for document in documents:
        definitions |= document["components"]["schemas"]
    found = {short: _structural({"$ref": name}, definitions) for short, name in ROOTS.items()}
    return {"PodSpec": found["PodSpec"]} | found


def text(documents: list[dict[str, Any]]) -> str:
    """Return the text of the file."""
    return json.dumps(schemas(documents), sort_keys=True, separators=(",", ":")).replace("},", "},\n") + "\n"


def _structural(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the structural schema of a node."""
    name, node = _resolved(node, definitions)
    if name.endswith(".Quantity"):
        return {"x-kubernetes-int-or-string": True, "pattern": QUANTITY, "maxLength": 32}
    if name.endswith(".IntOrString"):
        return {"x-kubernetes-int-or-string": True}
    kept: dict[str, Any] = {key: node[key] for key in ("type", "enum") if key in node}
    if node.get("format") not in (None, "int32", "int64"):  # those of integers are not checked
        kept["format"] = node["format"]
    if "items" in node:
        keys = node.get("x-kubernetes-list-map-keys") or []
        by_key = len(keys) == 1 and keys[0] in _needed(node["items"], definitions)
        kept["items"] = _structural(node["items"], definitions)
        if by_key:
            kept |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}
    if isinstance(node.get("additionalProperties"), dict):
        kept["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    short = name.rpartition(".")[2]
    kept |= TYPES.get(short, {})
    if short in RULES:
        kept["x-kubernetes-validations"] = RULES[short]
    if "properties" in node:
        kept["properties"] = {
            key: _bounded(name, key, _structural(child, definitions))
            for key, child in node["properties"].items()
            if key not in LEFT_OUT.get(name, ())
        }
        if required := _required(name, node):
            kept["required"] = required
    return kept


def _required(name: str, node: dict[str, Any]) -> list[str]:
    if name == ROOTS["PodSpec"]:
        return []  # an owner writes a part
    return REQUIRED.get(name.rpartition(".")[2], ONLY_KEYS.get(name, node.get("required") or []))


def _needed(node: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """Return the required fields of a list's entries, none for entries without fields."""
    name, node = _resolved(node, definitions)
    return _required(name, node) if "properties" in node else []


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of the type that a schema refers to, and its schema.

    The name is empty without a reference.
    """
    name = ""
    while "$ref" in node or "allOf" in node:
        reference = node["$ref"] if "$ref" in node else node["allOf"][0]["$ref"]
        name = reference.rpartition("/")[2]
        node = definitions[name]
    return name, node


def _bounded(name: str, key: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type's field with what is particular to it."""
    if (name, key) in ELSEWHERE:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    removable = REMOVABLE.get(name, set())
    if removable is None or key in removable:
        found["nullable"] = True
    if key in LONGEST.get(name, ()):
        found["maxLength"] = LONGEST[name][key]
    if (name, key) in LISTED_ELSEWHERE:
        del found["enum"]
    found |= FIELDS.get(name.rpartition(".")[2], {}).get(key, {})
    if key in MOST and found.get("type") == "array":
        found["maxItems"] = MOST[key]
    return found


def served(kubeconfig: str, kubectl: str = "kubectl") -> list[dict[str, Any]]:
    """Return the documents of an API server."""
    return [
        json.loads(
            subprocess.run(
                [kubectl, "--kubeconfig", kubeconfig, "get", "--raw", f"/openapi/v3/{path}"],
                capture_output=True, check=True, text=True,
            ).stdout
        )
        for path in DOCUMENTS
    ]  # fmt: skip


if __name__ == "__main__":
    TARGET.write_text(text(served(sys.argv[1])), encoding="utf-8")
