"""Open the operator's Deployment in the Helm chart to the values of its users.

Maps of ours are the values' defaults, which Helm merges with a user's. Entries of a user's lists follow ours, and other
fields appear only if they are set.
"""

import re
from typing import Any, Final

Object = dict[str, Any]
APPENDED: Final = {"env": "env", "volumeMounts": "volumeMounts"}
"""Lists of the container, by value below `pod`."""
OPTIONAL_OF_CONTAINER: Final = ("envFrom",)
DEFAULTS: Final = ("securityContext", "topologySpreadConstraints")
"""Fields of the pod spec whose value is the default of the value below `pod`."""
DEFAULTS_OF_CONTAINER: Final = {"resources": "resources", "securityContext": "containerSecurityContext"}
OPTIONAL: Final[dict[str, Any]] = {
    "nodeSelector": {}, "affinity": {}, "tolerations": [], "priorityClassName": "", "runtimeClassName": "",
    "imagePullSecrets": [], "hostAliases": [], "dnsPolicy": "", "dnsConfig": {}, "initContainers": [],
}  # fmt: skip
_APPEND, _INSERT, _OPTIONAL = "@append ", "@insert ", "@optional "
_LINE = re.compile(r"^( *)(?:- )?(?:([\w./-]+): )?'@(append|insert|optional) ([\w.]+)'$", re.MULTILINE)


def opened(deployment: Object) -> Object:
    """Return the Deployment with markers where values go."""
    template = deployment["spec"]["template"]
    spec: Object = dict(template["spec"])
    (own,) = spec["containers"]
    container: Object = {
        **own,
        **{name: f"{_INSERT}pod.{value}" for name, value in DEFAULTS_OF_CONTAINER.items()},
        **{name: [*own[name], f"{_APPEND}pod.{value}"] for name, value in APPENDED.items()},
        **{name: f"{_OPTIONAL}pod.{name}" for name in OPTIONAL_OF_CONTAINER},
    }
    spec |= {
        **{name: f"{_INSERT}pod.{name}" for name in DEFAULTS},
        "containers": [container, f"{_APPEND}pod.containers"],
        "volumes": [*spec["volumes"], f"{_APPEND}pod.volumes"],
        **{name: f"{_OPTIONAL}pod.{name}" for name in OPTIONAL},
    }
    metadata = {
        **template["metadata"],
        "annotations": f"{_OPTIONAL}pod.annotations",
        "labels": {**template["metadata"]["labels"], "more": f"{_APPEND}pod.labels"},
    }
    return {**deployment, "spec": {**deployment["spec"], "template": {"metadata": metadata, "spec": spec}}}


def annotated(account: Object) -> Object:
    """Return the ServiceAccount with a marker where annotations go."""
    metadata = {**account["metadata"], "annotations": f"{_OPTIONAL}serviceAccount.annotations"}
    return {**account, "metadata": metadata}


def defaults(deployment: Object) -> Object:
    """Return the values below `pod`."""
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return {
        "labels": {}, "annotations": {}, **{value: [] for value in APPENDED.values()}, "envFrom": [], "volumes": [],
        "containers": [], **{name: spec[name] for name in DEFAULTS},
        **{value: container[name] for name, value in DEFAULTS_OF_CONTAINER.items()}, **OPTIONAL,
    }  # fmt: skip


def schema(values: Object, deployment: Object) -> Object:
    """Return the JSON schema of the values below `pod`.

    It refuses entries with a name of ours.
    """
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    ours = {
        "env": container["env"],
        "volumes": spec["volumes"],
        "containers": [container],
        "initContainers": [container],
    }
    kinds: dict[type, str] = {dict: "object", list: "array", str: "string"}
    types: Object = {name: {"type": kinds[type(value)]} for name, value in values.items()}
    for name, rows in ours.items():
        other = {"type": "string", "minLength": 1, "not": {"enum": [row["name"] for row in rows]}}
        types[name]["items"] = {"type": "object", "required": ["name"], "properties": {"name": other}}
    return {"type": "object", "additionalProperties": False, "properties": types}


def with_actions(text: str) -> str:
    """Return YAML with its markers replaced by template actions."""
    return _LINE.sub(_action, text)


def _action(found: re.Match[str]) -> str:
    indent, key, kind, value = found.groups()
    depth, field = len(indent), f".Values.{value}"
    if kind == "insert":
        return f"{indent}{key}:\n{indent}{{{{- toYaml {field} | nindent {depth + 2} }}}}"
    if kind == "append":
        return f"{indent}{{{{- with {field} }}}}\n{indent}{{{{- toYaml . | nindent {depth} }}}}\n{indent}{{{{- end }}}}"
    inner = f"{indent}{key}:\n{indent}{{{{- toYaml . | nindent {depth + 2} }}}}"
    return f"{indent}{{{{- with {field} }}}}\n{inner}\n{indent}{{{{- end }}}}"
