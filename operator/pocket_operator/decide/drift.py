"""Whether an object differs from what is wanted, by looking only: the operator at rest writes nothing.

Wanted fields must be there with equal values; what others or the API server added does not count, but for entries of
maps that are ours alone. A field that is no longer wanted cannot be seen that way, so each child carries a digest of
what was last applied.
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
"""Maps of which one entry more changes what they say: a key that nobody declared, a Service that selects nothing.

None of them holds what an API server may add by itself: that would come back for ever.
"""
_EITHER = {"PodDisruptionBudget": ("spec", frozenset({"minAvailable", "maxUnavailable"}))}
"""Fields of which the API server takes one: the other one is too much."""


def desired_digest(wanted: Object) -> str:
    """Of everything that is applied, without the annotation that holds it."""
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def stamped(wanted: Object) -> Object:
    """The object with its digest, as it is applied."""
    annotations = {**wanted["metadata"].get("annotations", {}), ANNOTATION_DESIRED: desired_digest(wanted)}
    return {**wanted, "metadata": {**wanted["metadata"], "annotations": annotations}}


def drifted(wanted: Object, observed: Object | None) -> bool:
    """Whether `wanted` (stamped) must be applied."""
    return observed is None or not covers(observed, wanted) or surplus(wanted, observed) is not None


def surplus(wanted: Object, observed: Object) -> Object | None:
    """A merge patch that takes out what others put into maps that are ours alone; None where they did not.

    Server-side apply leaves such entries to those who put them there.
    """
    patch: Object = {}
    kind = str(wanted.get("kind"))
    looked_at: list[tuple[str, frozenset[str] | None]] = [(path, None) for path in _OURS_ALONE.get(kind, ())]
    looked_at += [_EITHER[kind]] if kind in _EITHER else []
    for path, only in looked_at:
        parts = path.split(".")
        extra = set(_at(observed, parts)) - set(_at(wanted, parts))
        if only is not None:
            extra &= only
        place = patch
        for part in parts if extra else ():
            place = place.setdefault(part, {})
        place |= dict.fromkeys(sorted(extra))
    return patch or None


def replacement(wanted: Object, observed: Object) -> list[Object]:
    """A JSON patch of this very version that puts ours in the place of what is there, metadata aside.

    What others added goes, but for an autoscaler's replicas.
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
    """The replicas of a workload that an autoscaler gets from us; None where there is nothing to hand over.

    A field that we applied and leave out is taken away, and without replicas the API server makes it one pod. So
    somebody else must own it before.
    """
    if observed is None or "replicas" in wanted.get("spec", {}) or "template" not in wanted.get("spec", {}):
        return None
    for row in observed["metadata"].get("managedFields") or ():
        ours = row.get("manager") == manager and row.get("operation") == "Apply" and not row.get("subresource")
        if ours and "f:replicas" in (row.get("fieldsV1") or {}).get("f:spec", {}):
            return int(observed["spec"]["replicas"])
    return None


def covers(observed: Any, wanted: Any) -> bool:
    """Whether everything wanted is there."""
    if isinstance(wanted, dict):
        return isinstance(observed, dict) and all(
            _missing_is_fine(value) if key not in observed else covers(observed[key], value)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(observed, list) and _lists_agree(observed, wanted)
    return bool(observed == wanted) or _same_quantity(observed, wanted)


def _missing_is_fine(wanted: Any) -> bool:
    """The API server drops empty collections, and false and 0 of some fields."""
    return wanted in ({}, [], "", None) or wanted is False


def _lists_agree(observed: list[Any], wanted: list[Any]) -> bool:
    key = _merge_key(wanted)
    if key is None or _merge_key(observed) != key:
        return len(observed) == len(wanted) and all(
            covers(ours, theirs) for ours, theirs in zip(observed, wanted, strict=True)
        )
    by_key = {row[key]: row for row in observed}
    return all(row[key] in by_key and covers(by_key[row[key]], row) for row in wanted)


def _merge_key(rows: list[Any]) -> str | None:
    """The field that tells the entries of a list apart, as server-side apply does for the lists used here."""
    if not rows or not all(isinstance(row, dict) for row in rows):
        return None
    for key in _MERGE_KEYS:
        values = [row.get(key) for row in rows]
        if all(isinstance(value, str | int) for value in values) and len(set(values)) == len(values):
            return key
    return None


def _same_quantity(observed: Any, wanted: Any) -> bool:
    """500m and 0.5 are the same; so are 1Gi and 1024Mi."""
    left, right = _amount(observed), _amount(wanted)
    return left is not None and left == right


def _amount(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    matched = _QUANTITY.fullmatch(str(value))
    return None if matched is None else Decimal(matched[1]) * _FACTORS[matched[2]]
