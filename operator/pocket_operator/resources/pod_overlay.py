"""Merge the owner's part of a pod spec into the operator's.

`kubectl patch` does so strategically.
"""

from collections.abc import Mapping
from typing import Any, Final

from pocket.api.kubernetes import OWNED_CONTAINER_FIELDS, OWNED_POD_FIELDS, owned_message
from pocket_operator.resources import names

Object = dict[str, Any]
_MERGE_KEYS: Final[Mapping[str, str]] = {
    "containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath",
    "volumeDevices": "devicePath", "ports": "containerPort", "imagePullSecrets": "name", "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}  # fmt: skip
"""Lists that are merged by a field of their entries. All other lists are replaced."""
_OWNED_ENTRIES: Final = frozenset({"env", "volumes", "volumeMounts"})
"""Lists in which an entry of the operator must not be changed."""


class PodTemplateRejected(Exception):
    """The owner's part of a pod spec changes what the operator owns, or is malformed."""


def merge_pod_spec(spec: Object, overlay: Mapping[str, Any], component: str) -> Object:
    """Return the pod spec of a workload with the owner's overlay.

    A value of null removes a field. Raises PodTemplateRejected.
    """
    path = f"spec.{'redis.trial' if component == names.REDIS else component}.podTemplate.spec"
    for key, remedy in OWNED_POD_FIELDS.items():
        if key in overlay:
            raise PodTemplateRejected(f"{owned_message(f'{path}.{key}', remedy)}.")
    containers = overlay.get("containers")
    for row in containers if isinstance(containers, list) else ():
        if not isinstance(row, dict) or row.get("name") != component:
            continue
        for key, remedy in OWNED_CONTAINER_FIELDS.items():
            if key in row:
                raise PodTemplateRejected(f"{owned_message(f'{path}.containers[{component}].{key}', remedy)}.")
    return _merge(spec, overlay, path)


def _merge(base: Mapping[str, Any], overlay: Mapping[str, Any], path: str) -> Object:
    merged = dict(base)
    for key, value in overlay.items():
        here, known = f"{path}.{key}", merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(known, dict) and isinstance(value, dict):
            merged[key] = _merge(known, value, here)
        elif key in _MERGE_KEYS and isinstance(known, list):
            merged[key] = _merge_list(known, value, key, here)
        elif known is not None and isinstance(known, dict | list) != isinstance(value, dict | list):
            raise PodTemplateRejected(f"{here} must be {'a list' if isinstance(known, list) else 'an object'}.")
        else:
            merged[key] = value
    return merged


def _merge_list(known: list[Any], value: Any, key: str, path: str) -> list[Any]:
    name = _MERGE_KEYS[key]
    if not isinstance(value, list) or not all(isinstance(row, dict) and name in row for row in value):
        raise PodTemplateRejected(f"{path} must be a list whose entries have {name}.")
    rows = {row[name]: row for row in known}
    for row in value:
        if row[name] in rows and key in _OWNED_ENTRIES:
            raise PodTemplateRejected(f"{path}[{row[name]}] is the operator's: choose another {name}.")
        rows[row[name]] = _merge(rows[row[name]], row, f"{path}[{row[name]}]") if row[name] in rows else row
    return list(rows.values())
