"""What the API server checks in pods and policies, but does not publish in its OpenAPI documents.

A RelayMiner holds parts of these types. With the constraints in its definition, the API server refuses a wrong value
when the RelayMiner is written, not when the operator writes a workload. tests/cluster/test_bad_resources.py tries them.
"""

from typing import Any, Final

_NAME: Final = {"pattern": r"^[a-z0-9]+((-+|\.)[a-z0-9]+)*$"}
_LABEL: Final = {"pattern": "^[a-z0-9]+(-+[a-z0-9]+)*$"}
_KEY: Final = r"^([a-z0-9]+((-+|\.)[a-z0-9]+)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_LABEL_VALUE: Final = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
_ID: Final = {"minimum": 0, "maximum": 2**31 - 1}
_PORT: Final = {"minimum": 1, "maximum": 65535}
_MODE: Final = {"minimum": 0, "maximum": 0o777}
_WEIGHT: Final = {"minimum": 1, "maximum": 100}
_SELECTED: Final = {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}
_ONE: Final = {"minProperties": 1, "maxProperties": 1}
_ADDRESS: Final = {"pattern": r"^(((25[0-5]|2[0-4]\d|1?\d?\d)(\.|$)){4}|[\da-fA-F.]*:[\da-fA-F:.]*)$"}
_INSIDE: Final = {"not": {"pattern": r"^/|(^|/)\.\.(/|$)"}}

FIELDS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "ConfigMapEnvSource": {"name": _NAME},
    "ConfigMapKeySelector": {"name": _NAME},
    "ConfigMapVolumeSource": {"name": _NAME, "defaultMode": _MODE},
    "CSIVolumeSource": {"driver": _NAME},
    "Container": {"name": _LABEL, "image": {"minLength": 1}},
    "ContainerPort": {
        "containerPort": _PORT, "hostPort": {"minimum": 0, "maximum": 65535},
        "name": {"maxLength": 15, "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
    },
    "EnvVar": {"name": {"pattern": "^[ -<>-~]+$"}},
    "GRPCAction": {"port": _PORT},
    "HTTPGetAction": {"port": _PORT},
    "HostAlias": {"ip": _ADDRESS, "hostnames": {"items": {"type": "string", **_NAME}}},
    "IPBlock": {"cidr": {"pattern": "^[0-9a-fA-F.:]+/[0-9]+$"}},
    "KeyToPath": {"mode": _MODE, "path": _INSIDE},
    "LabelSelectorRequirement": {"operator": _SELECTED},
    "Lifecycle": {"stopSignal": {"pattern": "^SIG[A-Z0-9+-]+$"}},
    "LocalObjectReference": {"name": _NAME},
    "MetricIdentifier": {"name": {"minLength": 1}},
    "MetricSpec": {"type": {"enum": ["ContainerResource", "External", "Object", "Pods", "Resource"]}},
    "NodeSelector": {"nodeSelectorTerms": {"minItems": 1}},
    "PodAffinityTerm": {"topologyKey": {"minLength": 1}},
    "PodDNSConfig": {
        "nameservers": {"maxItems": 3, "items": {"type": "string", **_ADDRESS}},
        "searches": {"items": {"type": "string", "pattern": r"^(\.|[a-z0-9_]([-._a-z0-9]*[a-z0-9])?\.?)$"}},
    },
    "PodOS": {"name": {"enum": ["linux"]}},
    "PodReadinessGate": {"conditionType": {"pattern": _KEY}},
    "PodSecurityContext": {
        "runAsUser": _ID, "runAsGroup": _ID, "fsGroup": _ID,
        "supplementalGroups": {"items": {"type": "integer", **_ID}},
    },
    "PodSpec": {
        "hostname": _LABEL, "subdomain": _LABEL, "runtimeClassName": _NAME, "priorityClassName": _NAME,
        "schedulerName": {"minLength": 1}, "nodeSelector": {"maxProperties": 32},
    },
    "PreferredSchedulingTerm": {"weight": _WEIGHT},
    "ResourceRequirements": {"limits": {"maxProperties": 16}, "requests": {"maxProperties": 16}},
    "SecretEnvSource": {"name": _NAME},
    "SecretKeySelector": {"name": _NAME},
    "SecretVolumeSource": {"secretName": _NAME, "defaultMode": _MODE},
    "SecurityContext": {"runAsUser": _ID, "runAsGroup": _ID},
    "ServiceAccountTokenProjection": {"expirationSeconds": {"minimum": 600}},
    "Sysctl": {"name": {"pattern": "^[a-z0-9][-._/a-z0-9]*[a-z0-9]$"}},
    "TCPSocketAction": {"port": _PORT},
    "Toleration": {"key": {"pattern": f"^({_KEY[1:-1]})?$"}, "value": {"maxLength": 63, "pattern": _LABEL_VALUE}},
    "TopologySpreadConstraint": {"maxSkew": {"minimum": 1}, "minDomains": {"minimum": 1}},
    "Volume": {"name": _LABEL},
    "VolumeMount": {"mountPath": {"minLength": 1}, "subPath": _INSIDE},
    "WeightedPodAffinityTerm": {"weight": _WEIGHT},
}  # fmt: skip
"""Type → field → what to add to its schema."""

TYPES: Final[dict[str, dict[str, Any]]] = {
    "DownwardAPIVolumeFile": {"oneOf": [{"required": ["fieldRef"]}, {"required": ["resourceFieldRef"]}]},
    "EnvFromSource": {"oneOf": [{"required": ["configMapRef"]}, {"required": ["secretRef"]}]},
    "EnvVar": {"not": {"required": ["value", "valueFrom"]}},
    "EnvVarSource": _ONE,
    "LifecycleHandler": _ONE,
    "MetricSpec": {"minProperties": 2, "maxProperties": 2},
    "NetworkPolicyPeer": {
        "minProperties": 1,
        "not": {"anyOf": [{"required": ["ipBlock", "podSelector"]}, {"required": ["ipBlock", "namespaceSelector"]}]},
    },
    "Probe": {"oneOf": [{"required": [handler]} for handler in ("exec", "grpc", "httpGet", "tcpSocket")]},
    "SeccompProfile": {
        "not": {"properties": {"type": {"enum": ["Localhost"]}}, "not": {"required": ["localhostProfile"]}},
    },
    "Volume": {"maxProperties": 2},
}
"""Type → what to add to its schema."""

REQUIRED: Final[dict[str, list[str]]] = {
    "ConfigMapEnvSource": ["name"],
    "ConfigMapKeySelector": ["key", "name"],
    "ConfigMapVolumeSource": ["name"],
    "ExecAction": ["command"],
    "EphemeralVolumeSource": ["volumeClaimTemplate"],
    "LocalObjectReference": ["name"],
    "PodDNSConfigOption": ["name"],
    "SecretEnvSource": ["name"],
    "SecretKeySelector": ["key", "name"],
    "SecretVolumeSource": ["secretName"],
}
"""Type → the fields that it needs, where the documents require fewer."""


def _rule(expression: str, message: str) -> dict[str, Any]:
    return {"rule": expression, "message": message}


RULES: Final[dict[str, list[dict[str, Any]]]] = {
    "PodSpec": [
        _rule(
            "!has(self.dnsPolicy) || self.dnsPolicy != 'None' || has(self.dnsConfig)", "dnsPolicy None needs dnsConfig"
        ),
        _rule(
            f"!has(self.nodeSelector) || self.nodeSelector.all(k, k.matches('{_KEY}'))".replace("\\", "\\\\"),
            "each key of nodeSelector must be that of a label",
        ),
    ],
    "ResourceRequirements": [
        _rule(
            "((has(self.limits) ? self.limits.map(k, k) : []) + (has(self.requests) ? self.requests.map(k, k) : []))"
            ".all(k, k.contains('/') || k in ['cpu', 'memory', 'ephemeral-storage'] || k.startsWith('hugepages-'))",
            "a resource is unknown: use cpu, memory, ephemeral-storage or an extended one",
        ),
    ],
    "Toleration": [
        _rule(
            "(has(self.operator) && self.operator == 'Exists' ? !has(self.value) || self.value == '' : "
            "has(self.key) && self.key != '') "
            "&& (!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute')",
            "a toleration has a key or operator Exists, which has no value, and seconds only with effect NoExecute",
        )
    ],
    "TopologySpreadConstraint": [
        _rule(
            "!has(self.minDomains) || !has(self.whenUnsatisfiable) || self.whenUnsatisfiable == 'DoNotSchedule'",
            "minDomains needs whenUnsatisfiable DoNotSchedule",
        )
    ],
}
"""Type → CEL rules. Those inside of lists must stay cheap: the API server bounds the cost of a definition's rules."""
