"""Notice another client that keeps changing or deleting a child.

Each repair would go on silently for ever.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from pocket_operator.decide.drift import foreign_fields, is_subset
from pocket_operator.decide.snapshot import ChildKey
from pocket_operator.resources import names

Object = dict[str, Any]
CONTESTED: Final = "Contested"
"""Reason of the Event. It is no condition: the child is as declared after each repair."""
_REPAIRS: Final = 3
_WITHIN_SECONDS: Final = 600.0


@dataclass(slots=True)
class Repairs:
    """The repairs of one RelayMiner's children. Losing them delays a warning only."""

    _applied: dict[ChildKey, str] = field(default_factory=dict)
    _times: dict[ChildKey, list[float]] = field(default_factory=dict)

    def record(self, child: Object, observed: Object | None, now: float) -> str:
        """Record that a child is about to be applied at `now` (monotonic seconds).

        Returns who contests it and what, empty unless the same child was repaired three times in ten minutes.
        """
        child_key = (child["kind"], child["metadata"]["name"])
        digest = child["metadata"]["annotations"][names.ANNOTATION_DESIRED]
        if self._applied.get(child_key) != digest:  # what is wanted has changed
            self._applied[child_key] = digest
            self._times.pop(child_key, None)
            return ""
        times = [at for at in self._times.get(child_key, ()) if now - at < _WITHIN_SECONDS]
        self._times[child_key] = [*times, now][-_REPAIRS:]
        if len(self._times[child_key]) < _REPAIRS:
            return ""
        return f"{' '.join(child_key)}: {_rival(child, observed)}"


def _rival(wanted: Object, observed: Object | None) -> str:
    if observed is None:
        return "another client deletes it again and again, and the operator creates it again. Find that client"
    path = _difference(observed, wanted) or _leaf(foreign_fields(wanted, observed) or {})
    dotted = ".".join(path) or "it"
    return (
        f"{_manager_of(path, observed)} sets {dotted} again and again, and the operator sets it back. Let that client "
        "leave it alone, or declare it in the RelayMiner"
    )


def _difference(observed: Object, wanted: Object) -> tuple[str, ...]:
    """Return the path of the first wanted field that is missing or has another value.

    The result is empty if none.
    """
    for key, value in wanted.items():
        if key in observed and isinstance(value, dict) and isinstance(observed[key], dict):
            if inner := _difference(observed[key], value):
                return (key, *inner)
        elif not is_subset(observed, {key: value}):
            return (key,)
    return ()


def _leaf(patch: Object) -> tuple[str, ...]:
    for key, value in patch.items():
        return (key, *_leaf(value)) if isinstance(value, dict) else (key,)
    return ()


def _manager_of(path: tuple[str, ...], observed: Object) -> str:
    """Return the client that owns a field, as the API server records it."""
    latest = ("", "another client")
    for row in observed["metadata"].get("managedFields") or ():
        manager = str(row.get("manager", ""))
        node = row.get("fieldsV1") or {}
        for part in path:
            node = (node or {}).get(f"f:{part}")
        if node is not None and path and not manager.startswith(names.FIELD_MANAGER):
            subresource = f" (subresource {row['subresource']})" if row.get("subresource") else ""
            latest = max(latest, (str(row.get("time", "")), f"{manager}{subresource}"))
    return latest[1]
