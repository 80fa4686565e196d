"""Compare an object with what is wanted.

So the operator at rest writes nothing. Wanted fields must exist with equal values. Additions by others or by the API
server are no drift, except entries of maps that are ours alone. A field that is no longer wanted is invisible to this
comparison, so each child carries a digest of what was last applied.
"""

import hashlib
import json
import re
from decimal import Decimal
from typing import Any

from pocket_operator.resources.names import ANNOTATION_DESIRED

Object = dict[str, Any]
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_FACTORS = {
    None: Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50),
}  # fmt: skip
_MERGE_KEYS = ("name", "containerPort", "mountPath", "port", "topologyKey", "uid", "ip", "type")

_OURS_ALONE = {
    "ConfigMap": ("data", "binaryData"), "Secret": ("data",), "Service": ("spec.selector",),
    "PodDisruptionBudget": ("spec.selector.matchLabels",), "NetworkPolicy": ("spec.podSelector.matchLabels",),
}  # fmt: skip
"""Maps in which a foreign entry changes the meaning: an undeclared key, a Service that selects nothing.

None of them holds entries that an API server adds: those would come back for ever.
"""
_EITHER = {"PodDisruptionBudget": ("spec", frozenset({"minAvailable", "maxUnavailable"}))}
"""Fields that exclude each other: a foreign one makes the API server reject ours."""


def desired_digest(wanted: Object) -> str:
    """Return the digest of everything that is applied.

    The annotation that holds it is left out.
    """
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def with_digest(wanted: Object) -> Object:
    """Return the object with its digest, as it is applied."""
    annotations = {**wanted["metadata"].get("annotations", {}), ANNOTATION_DESIRED: desired_digest(wanted)}
    return {**wanted, "metadata": {**wanted["metadata"], "annotations": annotations}}


def drifted(wanted: Object, observed: Object | None) -> bool:
    """Return True if `wanted` (with its digest) must be applied."""
    return observed is None or not is_subset(observed, wanted) or foreign_fields(wanted, observed) is not None


def foreign_fields(wanted: Object, observed: Object) -> Object | None:
    """Return a merge patch that removes foreign entries from maps that are ours alone.

    The result is None without any. Server-side apply leaves such entries alone, since another manager owns them.
    """
    patch: Object = {}
    kind = str(wanted.get("kind"))
    last_scan_began: list[tuple[str, frozenset[str] | None]] = [(path, None) for path in _OURS_ALONE.get(kind, ())]
    last_scan_began += [_EITHER[kind]] if kind in _EITHER else []
    for path, only in last_scan_began:
        parts = path.split(".")
        extra = set(_at(observed, parts)) - set(_at(wanted, parts))
        if only is not None:
            extra &= only
        target = patch
        for part in parts if extra else ():
            target = target.setdefault(part, {})
        target |= dict.fromkeys(sorted(extra))
    return patch or None


def force_replace_patch(wanted: Object, observed: Object) -> list[Object]:
    """Return a JSON patch that replaces everything but the metadata.

    It applies to this version of the object only. Foreign additions are removed, except an autoscaler's replicas.
    """
    parts = {key: value for key, value in wanted.items() if key not in ("apiVersion", "kind", "metadata")}
    replicas = (observed.get("spec") or {}).get("replicas")
    if replicas is not None and "template" in parts.get("spec", {}):
        parts["spec"] = {"replicas": replicas, **parts["spec"]}
    version = {"op": "test", "path": "/metadata/resourceVersion", "value": observed["metadata"]["resourceVersion"]}
    return [version, *({"op": "add", "path": f"/{key}", "value": value} for key, value in parts.items())]


def _at(resource: Object, parts: list[str]) -> Object:
    for part in parts:
        resource = resource.get(part) or {}
    return resource


def replicas_to_keep(wanted: Object, observed: Object | None, manager: str) -> int | None:
    """Return the replicas to hand over to an autoscaler, None if they are not ours.

    Server-side apply removes a field that we applied before and leave out now, and without replicas the API server
    defaults to one pod. So another manager must own the field first.
    """
    if observed is None or "replicas" in wanted.get("spec", {}) or "template" not in wanted.get("spec", {}):
        return None
    for row in observed["metadata"].get("managedFields") or ():
        ours = row.get("manager") == manager and row.get("operation") == "Apply" and not row.get("subresource")
        if ours and "f:replicas" in (row.get("fieldsV1") or {}).get("f:spec", {}):
            return int(observed["spec"]["replicas"])
    return None


def is_subset(observed: Any, wanted: Any) -> bool:
    """Return True if every wanted field is in the observed object with an equal value."""
    if isinstance(wanted, dict):
        return isinstance(observed, dict) and all(
            _missing_is_fine(value) if key not in observed else is_subset(observed[key], value)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(observed, list) and _lists_agree(observed, wanted)
    return bool(observed == wanted) or _same_quantity(observed, wanted)


def _missing_is_fine(wanted: Any) -> bool:
    """Return True for values that the API server may drop.

    They are empty collections and false.
    """
    return wanted in ({}, [], "", None) or wanted is False


def _lists_agree(observed: list[Any], wanted: list[Any]) -> bool:
    key = _merge_key(wanted)
    if key is None or _merge_key(observed) != key:
        return len(observed) == len(wanted) and all(
            is_subset(ours, theirs) for ours, theirs in zip(observed, wanted, strict=True)
        )
    by_key = {row[key]: row for row in observed}
    return all(row[key] in by_key and is_subset(by_key[row[key]], row) for row in wanted)


def _merge_key(rows: list[Any]) -> str | None:
    """Return the field that identifies the entries of a list, as in server-side apply."""
    if not rows or not all(isinstance(row, dict) for row in rows):
        return None
    for key in _MERGE_KEYS:
        values = [row.get(key) for row in rows]
        if all(isinstance(value, str | int) for value in values) and len(set(values)) == len(values):
            return key
    return None


def _same_quantity(observed: Any, wanted: Any) -> bool:
    """Return True for equal quantities, such as 500m and 0.5, or 1Gi and 1024Mi."""
    left, right = _amount(observed), _amount(wanted)
    return left is not None and left == right


def _amount(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    matched = _QUANTITY.fullmatch(str(value))
    return None if matched is None else Decimal(matched[1]) * _FACTORS[matched[2]]
