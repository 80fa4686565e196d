"""Hold what the API server checks but does not publish as OpenAPI.

It is about pods and policies. A RelayMiner holds parts of these types. With the constraints in its definition, the API
server refuses a wrong value when the RelayMiner is written, not when the operator writes a workload.
tests/cluster/test_bad_resources.py tries them.
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
_SOME: Final = {"minLength": 1}
_CIDR: Final = {
    "maxLength": 43,
    "pattern": r"^([\d.]+/([12]?\d|3[0-2])|[\da-fA-F:.]*:[\da-fA-F:.]*/(\d\d?|1[01]\d|12[0-8]))$",
}

_DISTINCT_PORTS: Final = {
    "rule": "self.all(a, self.exists_one(b, b.containerPort == a.containerPort && has(b.protocol) == has(a.protocol) "
    "&& (!has(a.protocol) || b.protocol == a.protocol)))",
    "message": "the same port occurs twice",
}

FIELDS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "ConfigMapEnvSource": {"name": _NAME},
    "ConfigMapKeySelector": {"name": _NAME},
    "ConfigMapVolumeSource": {"name": _NAME, "defaultMode": _MODE},
    "CSIVolumeSource": {"driver": _NAME},
    "ConfigMapProjection": {"name": _NAME},
    "Container": {"name": _LABEL, "image": _SOME, "ports": {"x-kubernetes-validations": [_DISTINCT_PORTS]}},
    "ContainerPort": {
        "containerPort": _PORT, "hostPort": {"minimum": 0, "maximum": 65535},
        "name": {"maxLength": 15, "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
    },
    "DownwardAPIVolumeSource": {"defaultMode": _MODE},
    "EnvVar": {"name": {"pattern": "^[ -<>-~]+$"}},
    "GRPCAction": {"port": _PORT},
    "HTTPGetAction": {"port": _PORT},
    "HostAlias": {"ip": _ADDRESS, "hostnames": {"items": {"type": "string", **_NAME}}},
    "HostPathVolumeSource": {"path": {**_SOME, "not": {"pattern": r"(^|/)\.\.(/|$)"}}},
    "IPBlock": {"cidr": _CIDR, "except": {"maxItems": 64, "items": {"type": "string", **_CIDR}}},
    "ImageVolumeSource": {"reference": _SOME},
    "KeyToPath": {"mode": _MODE, "path": _INSIDE},
    "LabelSelectorRequirement": {"operator": _SELECTED},
    "Lifecycle": {"stopSignal": {"pattern": "^SIG[A-Z0-9+-]+$"}},
    "LocalObjectReference": {"name": _NAME},
    "MetricIdentifier": {"name": _SOME},
    "MetricSpec": {"type": {"enum": ["ContainerResource", "External", "Object", "Pods", "Resource"]}},
    "MetricTarget": {"averageUtilization": {"minimum": 1}},
    "NFSVolumeSource": {"server": _SOME, "path": {"pattern": "^/"}},
    "NodeSelector": {"nodeSelectorTerms": {"minItems": 1}},
    "PersistentVolumeClaimSpec": {"accessModes": {"minItems": 1}},
    "PersistentVolumeClaimVolumeSource": {"claimName": _NAME},
    "PodAffinityTerm": {"topologyKey": _SOME},
    "PodDNSConfig": {
        "nameservers": {"maxItems": 3, "items": {"type": "string", **_ADDRESS}},
        "searches": {
            "maxItems": 32, "items": {"type": "string", "pattern": r"^(\.|[a-z0-9_]([-._a-z0-9]*[a-z0-9])?\.?)$"},
        },
    },
    "PodDNSConfigOption": {"name": _SOME},
    "PodOS": {"name": {"enum": ["linux"]}},
    "PodReadinessGate": {"conditionType": {"pattern": _KEY}},
    "PodSecurityContext": {
        "runAsUser": _ID, "runAsGroup": _ID, "fsGroup": _ID,
        "supplementalGroups": {"items": {"type": "integer", **_ID}},
        "seLinuxChangePolicy": {"enum": ["MountOption", "Recursive"]},
    },
    "PodSpec": {
        "hostname": _LABEL, "subdomain": _LABEL, "runtimeClassName": _NAME, "priorityClassName": _NAME,
        "schedulerName": _SOME,
        "nodeSelector": {
            "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 63, "pattern": _LABEL_VALUE},
        },
    },
    "ProjectedVolumeSource": {"defaultMode": _MODE},
    "PreferredSchedulingTerm": {"weight": _WEIGHT},
    "ResourceRequirements": {"limits": {"maxProperties": 16}, "requests": {"maxProperties": 16}},
    "SecretEnvSource": {"name": _NAME},
    "SecretKeySelector": {"name": _NAME},
    "SecretProjection": {"name": _NAME},
    "SecretVolumeSource": {"secretName": _NAME, "defaultMode": _MODE},
    "SecurityContext": {"runAsUser": _ID, "runAsGroup": _ID},
    "ServiceAccountTokenProjection": {"expirationSeconds": {"minimum": 600}},
    "Sysctl": {"name": {"pattern": "^[a-z0-9][-._/a-z0-9]*[a-z0-9]$"}},
    "TCPSocketAction": {"port": _PORT},
    "Toleration": {"key": {"pattern": f"^({_KEY[1:-1]})?$"}, "value": {"maxLength": 63, "pattern": _LABEL_VALUE}},
    "TopologySpreadConstraint": {
        "maxSkew": {"minimum": 1}, "minDomains": {"minimum": 1}, "topologyKey": {"minLength": 1, "maxLength": 317},
        "whenUnsatisfiable": {"enum": ["DoNotSchedule", "ScheduleAnyway"]},
    },
    "Volume": {"name": _LABEL},
    "VolumeMount": {"mountPath": _SOME, "subPath": _INSIDE},
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
    "Volume": {"maxProperties": 2},
    "VolumeMount": {"not": {"required": ["subPath", "subPathExpr"]}},
    "VolumeProjection": _ONE,
}
"""Type → what to add to its schema."""

REQUIRED: Final[dict[str, list[str]]] = {
    "ConfigMapEnvSource": ["name"],
    "ConfigMapKeySelector": ["key", "name"],
    "ConfigMapProjection": ["name"],
    "ConfigMapVolumeSource": ["name"],
    "ExecAction": ["command"],
    "EphemeralVolumeSource": ["volumeClaimTemplate"],
    "LocalObjectReference": ["name"],
    "PodDNSConfigOption": ["name"],
    "SecretEnvSource": ["name"],
    "SecretKeySelector": ["key", "name"],
    "SecretProjection": ["name"],
    "SecretVolumeSource": ["secretName"],
}
"""Type → the fields that it needs, where the documents require fewer."""


def _rule(expression: str, message: str) -> dict[str, Any]:
    return {"rule": expression, "message": message}


RULES: Final[dict[str, list[dict[str, Any]]]] = {
    "IPBlock": [
        _rule(
            "!has(self.except) || self.except.all(e, e.contains(':') == self.cidr.contains(':') && "
            "int(e.split('/')[1]) > int(self.cidr.split('/')[1]))",
            "each of except must be a part of cidr",
        )
    ],
    "MetricSpec": [
        _rule(
            "has(self.pods) == (self.type == 'Pods') && has(self.resource) == (self.type == 'Resource')",
            "a metric has type and the field of that type",
        )
    ],
    "PodSpec": [
        _rule(
            "!has(self.dnsPolicy) || self.dnsPolicy != 'None' || has(self.dnsConfig) && has(self.dnsConfig.nameservers)"
            " && self.dnsConfig.nameservers.size() > 0",
            "dnsPolicy None needs dnsConfig with nameservers",
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
        _rule(
            "!has(self.requests) || !has(self.limits) || !['cpu', 'memory'].exists(k, k in self.requests && k in "
            "self.limits && quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) > 0)",
            "a limit is below its request",
        ),
    ],
    # Without a message the API server shows the rule.
    "SeccompProfile": [{"rule": "(self.type == 'Localhost') == has(self.localhostProfile)"}],
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
