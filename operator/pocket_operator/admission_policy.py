"""Refuse pod settings of a RelayMiner that Kubernetes would refuse in its pods.

This is an admission policy. The API server publishes the types of its fields, but not all of its checks. Most of those
that concern one field are in the RelayMiner's definition (scripts/kubernetes_constraints.py). But a definition repeats
a pod template's schema for each workload, and a client-side apply bounds its size. So the other checks are here, once
for all templates. Without the policy, the operator names what Kubernetes refuses in the status.
"""

from dataclasses import dataclass
from typing import Any, Final

from pocket.api.base import GROUP
from pocket.api.pod_settings import (
    ANNOTATION_BYTES,
    HOST_PORT_TWICE,
    PROBE_HANDLERS,
    PROBE_NEEDS_HANDLER,
    TOO_MANY_ANNOTATION_BYTES,
)
from pocket_operator.resources.pods import SPREAD_KEYS

_NAME: Final = r"[a-z0-9]+((-+|[.])[a-z0-9]+)*"
_KEY: Final = rf"^({_NAME}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
_LABEL_VALUE: Final = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
_PORT_NAME: Final = "^[0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*$|^[a-z0-9]+(-[a-z0-9]+)*-[0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*$"
_ENTRY: Final = "^[.]?[-_A-Za-z0-9][-._A-Za-z0-9]*$"
_OF_POD: Final = (
    r"^(metadata[.](name|namespace|uid|(labels|annotations)\['[^']+'\])|"
    r"spec[.](nodeName|serviceAccountName)|status[.](hostIPs?|podIPs?))$"
)
_OF_POD_IN_VOLUMES: Final = r"^metadata[.](name|namespace|uid|(labels|annotations)(\['[^']+'\])?)$"
_OF_CONTAINER: Final = "^(limits|requests)[.](cpu|memory|ephemeral-storage|hugepages-[0-9]+[KMGT]i)$"


@dataclass(frozen=True, slots=True)
class _Check:
    """A condition on each `x` of a variable's list.

    With `within` each `y` of the variable's list has a list, and `x` is an entry of that.
    """

    variable: str
    condition: str
    message: str
    shown: str
    """The part of `x` that a refusal shows."""
    within: str = ""
    """The list of a `y` whose entries are checked."""

    def validation(self) -> dict[str, str]:
        """Return the policy's validation."""
        entries = f"variables.{self.variable}"
        if self.within:
            failed = f"{entries}.filter(y, {self.within}.exists(x, !({self.condition})))"
            expression = f"{entries}.all(y, {self.within}.all(x, {self.condition}))"
            shown = f"{self.within}.filter(x, !({self.condition})).map(x, string({self.shown}))"
            shown = f"[{failed}[0]].map(y, {shown}[0])[0]"
        else:
            expression = f"{entries}.all(x, {self.condition})"
            shown = f"{entries}.filter(x, !({self.condition})).map(x, string({self.shown}))[0]"
        return {"expression": expression, "message": self.message, "messageExpression": f"{shown} + ': {self.message}'"}


def _matches(value: str, pattern: str) -> str:
    return f'{value}.matches(r"{pattern}")'


def _all_of(*lists: str) -> str:
    return " + ".join(lists)


def _in_each(paths: tuple[str, ...], field: str) -> str:
    """Return the expression of what several optional objects have in a list."""
    return _all_of(*(f"{path}.?{field}.orValue([])" for path in paths))


def _present(variable: str, field: str) -> str:
    """Return the expression of what the entries of a variable have in a field."""
    return f"variables.{variable}.filter(x, has(x.{field})).map(x, x.{field})"


def _paths(source: str) -> str:
    """Return the expression of the paths that a source of a projected volume names."""
    kinds = ("secret", "configMap", "downwardAPI")
    return f"({_all_of(*(f'{source}.?{kind}.?items.orValue([])' for kind in kinds))}).map(i, i.path)"


_TEMPLATES: Final = tuple(
    f"variables.spec.?{place}.?podTemplate" for place in ("relayer", "miner", "redis.?trial", "console")
)
_PODS: Final = tuple(f"{template}.?spec" for template in _TEMPLATES[:3])
_RESOURCES: Final = tuple(
    f"variables.spec.?{place}.?resources" for place in ("relayer", "miner", "redis.?trial", "console")
)
_REQUIRED, _PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_AFFINITIES: Final = tuple(f"{t}.?affinity.?{kind}" for t in _TEMPLATES for kind in ("podAffinity", "podAntiAffinity"))
_NODE_AFFINITIES: Final = tuple(f"{template}.?affinity.?nodeAffinity" for template in _TEMPLATES)
_PEERS: Final = tuple(f"variables.spec.?networkPolicy.?{who}From" for who in ("relays", "metrics", "console"))

VARIABLES: Final = {
    "spec": "dyn(object.spec)",
    "pods": "[" + ", ".join(_PODS) + "].filter(x, x.hasValue()).map(x, x.value())",
    "containers": _all_of(_in_each(_PODS, "containers"), _in_each(_PODS, "initContainers")),
    "volumes": _in_each(_PODS, "volumes"),
    "spreads": _all_of(_in_each(_TEMPLATES, "topologySpreadConstraints"), _in_each(_PODS, "topologySpreadConstraints")),
    "podTerms": _all_of(
        _in_each(_AFFINITIES, _REQUIRED), f"({_in_each(_AFFINITIES, _PREFERRED)}).map(x, x.podAffinityTerm)"
    ),
    "nodeTerms": _all_of(
        _in_each(_NODE_AFFINITIES, f"{_REQUIRED}.?nodeSelectorTerms"),
        f"({_in_each(_NODE_AFFINITIES, _PREFERRED)}).map(x, x.preference)",
    ),
    "peers": _all_of(*(f"{peers}.orValue([])" for peers in _PEERS)),
    "selectors": _all_of(
        _present("podTerms", "labelSelector"), _present("podTerms", "namespaceSelector"),
        _present("spreads", "labelSelector"),
        _present("peers", "podSelector"), _present("peers", "namespaceSelector"),
    ),
    "readiness": _present("containers", "readinessProbe"),
    "liveness": _all_of(_present("containers", "livenessProbe"), _present("containers", "startupProbe")),
    "probes": "variables.readiness + variables.liveness",
    "lifecycles": _present("containers", "lifecycle"),
    "handlers": _all_of(
        "variables.probes",
        _present("lifecycles", "postStart"), _present("lifecycles", "preStop"),
    ),
    "requests": _all_of(_present("handlers", "httpGet"), _present("handlers", "tcpSocket")),
    "sideResources": _present("containers", "resources"),
    "resources": _all_of(
        "variables.sideResources",
        "[" + ", ".join(_RESOURCES) + "].filter(x, x.hasValue()).map(x, x.value())",
    ),
    "securities": _all_of(_present("containers", "securityContext"), _present("pods", "securityContext")),
    "metrics": "variables.spec.?relayer.?autoscaling.?metrics.orValue([]) + "
    "variables.spec.?miner.?autoscaling.?metrics.orValue([])",
    "annotations": "[variables.spec.?relayer.?service.?annotations, variables.spec.?relayer.?ingress.?annotations, "
    + ", ".join(f"{template}.?annotations" for template in _TEMPLATES)
    + "].filter(x, x.hasValue()).map(x, x.value())",
}  # fmt: skip
"""Lists of the parts of a RelayMiner that the checks are about, whichever workload they belong to."""

_VALUES: Final = "x.?values.orValue([])"
_SIZE: Final = "quantity(string(k.substring(10)))"
_AMOUNT: Final = "quantity(string(x[k]))"

_HOST_PORT: Final = "p.?hostPort.orValue(0)"
_BESIDE: Final = "x in y.?containers.orValue([]) ? y.containers : [x]"
"""The containers that run at the same time as `x`, one of the pod `y`. Init containers run one after the other."""
_SAME_PORT: Final = " && ".join(
    f"q.?{field}.orValue({default}) == p.?{field}.orValue({default})"
    for field, default in (("hostPort", "0"), ("protocol", "'TCP'"), ("hostIP", "''"))
)

CHECKS: Final = (
    _Check("selectors", _matches("x", _KEY), "the key of a label is not valid", "x", "y.?matchLabels.orValue({})"),
    _Check(
        "selectors", f"y.matchLabels[x] == '' || {_matches('y.matchLabels[x]', _LABEL_VALUE)}",
        "the value of this label is not valid", "x", "y.?matchLabels.orValue({})",
    ),
    _Check(
        "selectors", _matches("x.key", _KEY), "the key of a label is not valid", "x.key",
        "y.?matchExpressions.orValue([])",
    ),
    _Check(
        "selectors", f"(x.operator in ['In', 'NotIn']) == ({_VALUES}.size() > 0)",
        "In and NotIn need values, Exists and DoesNotExist have none", "x.key + ' ' + x.operator",
        "y.?matchExpressions.orValue([])",
    ),
    _Check(
        "selectors", f"{_VALUES}.all(v, {_matches('v', _LABEL_VALUE)})", "the values of this label are not valid",
        "x.key", "y.?matchExpressions.orValue([])",
    ),
    _Check(
        "nodeTerms", _matches("x.key", _KEY), "the key of a label is not valid", "x.key",
        "y.?matchExpressions.orValue([])",
    ),
    _Check(
        "nodeTerms",
        f"x.operator in ['Gt', 'Lt'] ? {_VALUES}.size() == 1 : "
        f"(x.operator in ['In', 'NotIn']) == ({_VALUES}.size() > 0)",
        "In and NotIn need values, Gt and Lt one, Exists and DoesNotExist none", "x.key + ' ' + x.operator",
        "y.?matchExpressions.orValue([])",
    ),
    _Check(
        "nodeTerms", f"x.operator in ['Gt', 'Lt'] || {_VALUES}.all(v, {_matches('v', _LABEL_VALUE)})",
        "the values of this label are not valid", "x.key", "y.?matchExpressions.orValue([])",
    ),
    _Check(
        "nodeTerms", f"x.key == 'metadata.name' && x.operator in ['In', 'NotIn'] && {_VALUES}.size() == 1",
        "matchFields takes metadata.name with In or NotIn and one value", "x.key + ' ' + x.operator",
        "y.?matchFields.orValue([])",
    ),
    _Check("podTerms", _matches("x.topologyKey", _KEY), "topologyKey is not the key of a label", "x.topologyKey"),
    _Check(
        "podTerms", _matches("x", f"^{_NAME}$"), "not the name of a namespace", "x", "y.?namespaces.orValue([])"
    ),
    _Check(
        "podTerms", "has(y.labelSelector)", "matchLabelKeys and mismatchLabelKeys need labelSelector", "x",
        "(y.?matchLabelKeys.orValue([]) + y.?mismatchLabelKeys.orValue([]))",
    ),
    _Check(
        "pods", f"x.topologyKey in {list(SPREAD_KEYS)} || x.?maxSkew.orValue(0) > 0 && has(x.whenUnsatisfiable)",
        "a constraint that the operator does not have needs maxSkew and whenUnsatisfiable", "x.topologyKey",
        "y.?topologySpreadConstraints.orValue([])",
    ),
    _Check(
        "spreads", "!has(x.matchLabelKeys) || x.matchLabelKeys.size() == 0 || has(x.labelSelector)",
        "matchLabelKeys needs labelSelector", "x.topologyKey",
    ),
    _Check(
        "containers", "!has(x.name) || y.ports.filter(p, has(p.name) && p.name == x.name).size() == 1",
        "the name of a port occurs twice", "x.name", "y.?ports.orValue([])",
    ),
    _Check(
        "pods",
        f"x.ports.all(p, {_HOST_PORT} == 0 || ({_BESIDE}).map(d, d.?ports.orValue([]).filter(q, {_SAME_PORT}).size())"
        ".sum() == 1)",
        HOST_PORT_TWICE, "x.name",
        "(y.?containers.orValue([]) + y.?initContainers.orValue([])).filter(c, has(c.ports))",
    ),
    _Check(
        "containers", f"!has(x.name) || {_matches('x.name', _PORT_NAME)}",
        "the name of a port needs a letter", "x.name", "y.?ports.orValue([])",
    ),
    _Check(
        "containers",
        "!has(x.recursiveReadOnly) || x.recursiveReadOnly in ['Disabled', 'IfPossible', 'Enabled'] && "
        "(x.recursiveReadOnly == 'Disabled' || x.?readOnly.orValue(false))",
        "recursiveReadOnly is Disabled, IfPossible or Enabled, the last two of readOnly mounts", "x.name",
        "y.?volumeMounts.orValue([])",
    ),
    _Check(
        "containers",
        "!has(x.mountPropagation) || x.mountPropagation != 'Bidirectional' || "
        "y.?securityContext.?privileged.orValue(false)",
        "mountPropagation Bidirectional needs a privileged container", "x.name", "y.?volumeMounts.orValue([])",
    ),
    _Check(
        "containers", f"!has(x.prefix) || x.prefix == '' || {_matches('x.prefix', '^[ -<>-~]+$')}",
        "the prefix of envFrom is not valid in names of variables", "x.prefix", "y.?envFrom.orValue([])",
    ),
    *(
        _Check(
            "containers", f"!has(x.valueFrom) || !has(x.valueFrom.{reference}) || "
            + _matches(f"x.valueFrom.{reference}.{field}", pattern),
            message, f"x.name + ': ' + x.valueFrom.{reference}.{field}", "y.?env.orValue([])",
        )
        for reference, field, pattern, message in (
            ("secretKeyRef", "key", _ENTRY, "not the name of an entry of a Secret"),
            ("configMapKeyRef", "key", _ENTRY, "not the name of an entry of a ConfigMap"),
            ("fieldRef", "fieldPath", _OF_POD, "a variable cannot have this field of the pod"),
            ("resourceFieldRef", "resource", _OF_CONTAINER, "a variable cannot have this of a container"),
        )
    ),
    _Check(
        "containers",
        "!has(x.valueFrom) || !has(x.valueFrom.resourceFieldRef) || !has(x.valueFrom.resourceFieldRef.divisor) || "
        "string(x.valueFrom.resourceFieldRef.divisor) in (x.valueFrom.resourceFieldRef.resource.endsWith('.cpu') ? "
        "['0', '1', '1m'] : ['0', '1', '1k', '1M', '1G', '1T', '1P', '1E', '1Ki', '1Mi', '1Gi', '1Ti', '1Pi', '1Ei'])",
        "divisor must be 1 or a unit, for cpu 1 or 1m", "x.name", "y.?env.orValue([])",
    ),
    _Check(
        "volumes", f"!has(x.fieldRef) || {_matches('x.fieldRef.fieldPath', _OF_POD_IN_VOLUMES)}",
        "a volume cannot have this field of the pod", "x.fieldRef.fieldPath", "y.?downwardAPI.?items.orValue([])",
    ),
    _Check(
        "volumes",
        "x.?downwardAPI.?items.orValue([]).all(i, !has(i.fieldRef) || "
        + _matches("i.fieldRef.fieldPath", _OF_POD_IN_VOLUMES) + ")",
        "a volume cannot have this field of the pod", "y.name", "y.?projected.?sources.orValue([])",
    ),
    _Check(
        "volumes",
        f"({_paths('x')}).all(p, y.projected.sources.filter(s, p in {_paths('s')}).size() == 1)",
        "two sources have the same path", "y.name", "y.?projected.?sources.orValue([])",
    ),
    _Check(
        "volumes",
        "!has(x.ephemeral) || quantity(string(x.ephemeral.volumeClaimTemplate.spec.?resources.?requests.?storage"
        ".orValue('0'))).isGreaterThan(quantity('0')) && "
        "x.ephemeral.volumeClaimTemplate.spec.?accessModes.orValue([]).size() > 0",
        "an ephemeral volume needs accessModes and storage above 0", "x.name",
    ),
    _Check(
        "probes", f"{list(PROBE_HANDLERS)}.filter(k, k in x).size() == 1", PROBE_NEEDS_HANDLER, "'probe'",
    ),
    _Check(
        "handlers", "!has(x.exec) || x.exec.?command.orValue([]).size() > 0", "exec needs a command", "'command'"
    ),
    _Check(
        "requests",
        "type(x.port) == int ? x.port >= 1 && x.port <= 65535 : "
        f"x.port.size() <= 15 && {_matches('x.port', _PORT_NAME)}",
        "not the number or name of a port", "x.port",
    ),
    _Check(
        "requests", _matches("x.name", "^[-A-Za-z0-9]+$"), "not the name of an HTTP header", "x.name",
        "y.?httpHeaders.orValue([])",
    ),
    _Check(
        "liveness", "!has(x.successThreshold) || x.successThreshold in [0, 1]",
        "successThreshold must be 1 in liveness and startup probes", "x.successThreshold",
    ),
    _Check(
        "liveness", "!has(x.terminationGracePeriodSeconds) || x.terminationGracePeriodSeconds > 0",
        "terminationGracePeriodSeconds must be above 0", "x.terminationGracePeriodSeconds",
    ),
    _Check(
        "readiness", "!has(x.terminationGracePeriodSeconds)",
        "readiness probes have no terminationGracePeriodSeconds", "x.terminationGracePeriodSeconds",
    ),
    _Check(
        "handlers",
        "['initialDelaySeconds', 'periodSeconds', 'timeoutSeconds', 'successThreshold', 'failureThreshold']"
        ".all(k, !(k in x) || x[k] >= 0)",
        "numbers of probes must not be below 0", "'probe'",
    ),
    _Check(
        "handlers", "!has(x.sleep) || x.sleep.seconds >= 0 && x.sleep.seconds <= 3600",
        "a sleep must be within the time that the pod has to end", "x.sleep.seconds",
    ),
    _Check(
        "resources", "!x.matches('^requests[.]') && (!x.startsWith('hugepages-') || "
        + _matches("x", "^hugepages-[0-9]+[KMGT]i$") + ")",
        "not the name of a resource", "x",
        "(y.?limits.orValue({}).map(k, k) + y.?requests.orValue({}).map(k, k))",
    ),
    _Check(
        "resources",
        f"x.all(k, !k.matches('^hugepages-[0-9]+[KMGT]i$') || {_SIZE}.isInteger() && {_AMOUNT}.isInteger() && "
        f"{_AMOUNT}.asInteger() > 0 && {_AMOUNT}.asInteger() % {_SIZE}.asInteger() == 0)",
        "huge pages must be a multiple of their size", "x.filter(k, k.startsWith('hugepages-')).map(k, k)[0]",
        "[y.?limits.orValue({})]",
    ),
    _Check(
        "resources",
        "(x.contains('/') || x.startsWith('hugepages-')) ? x in y.?limits.orValue({}) && "
        "quantity(string(y.limits[x])).compareTo(quantity(string(y.requests[x]))) == 0 : true",
        "the request of an extended resource or of huge pages must be its limit", "x",
        "y.?requests.orValue({}).map(k, k)",
    ),
    _Check(
        "sideResources",
        "!x.startsWith('hugepages-') || ['cpu', 'memory'].exists(k, k in y.limits || k in y.?requests.orValue({}))",
        "huge pages need cpu or memory as well", "x", "y.?limits.orValue({}).map(k, k)",
    ),
    _Check(
        "pods", "!x.?hostNetwork.orValue(false) || x.?hostUsers.orValue(true)",
        "hostNetwork needs the users of the host", "'hostUsers'",
    ),
    _Check(
        "pods", "!x.?hostPID.orValue(false) || !x.?shareProcessNamespace.orValue(false)",
        "hostPID and shareProcessNamespace exclude each other", "'hostPID'",
    ),
    _Check(
        "pods", "y.securityContext.sysctls.filter(s, s.name == x.name).size() == 1",
        "the name of a sysctl occurs twice", "x.name", "y.?securityContext.?sysctls.orValue([])",
    ),
    _Check(
        "securities",
        "x.?allowPrivilegeEscalation.orValue(true) || !x.?privileged.orValue(false) && "
        "!('CAP_SYS_ADMIN' in x.?capabilities.?add.orValue([]))",
        "a privileged container cannot have it", "'allowPrivilegeEscalation: false'",
    ),
    _Check(
        "securities", "(x.type == 'Localhost') == (x.?localhostProfile.orValue('') != '')",
        "localhostProfile belongs to type Localhost", "x.type",
        "[y.?appArmorProfile, y.?seccompProfile].filter(o, o.hasValue()).map(o, o.value())",
    ),
    _Check(
        "metrics",
        "!has(x.target.type) || (x.target.type == 'Utilization' ? has(x.target.averageUtilization) : "
        "x.target.type == 'Value' ? has(x.target.value) : has(x.target.averageValue))",
        "the target lacks the field of its type", "x.target.type",
        "[y.?resource, y.?containerResource, y.?pods, y.?object, y.?external].filter(o, o.hasValue())"
        ".map(o, o.value())",
    ),
    _Check(
        "annotations", f"x.map(k, bytes(k).size() + bytes(x[k]).size()).sum() <= {ANNOTATION_BYTES}",
        TOO_MANY_ANNOTATION_BYTES, "'annotations'",
    ),
)  # fmt: skip
"""What Kubernetes checks in addition to the definition. tests/cluster/test_admission_policy.py compares both."""


def specification() -> dict[str, Any]:
    """Return the policy's specification.

    What was stored before the policy came is not refused until it changes, so that finalizers go on. An expression
    that fails refuses nothing.
    """
    return {
        "failurePolicy": "Ignore",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [GROUP], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["relayminers"], "scope": "*",
                }
            ]
        },
        "matchConditions": [
            {"name": "changed", "expression": "oldObject == null || object.spec != oldObject.spec"},
        ],
        "variables": [{"name": name, "expression": expression} for name, expression in VARIABLES.items()],
        "validations": [check.validation() for check in CHECKS],
    }  # fmt: skip
