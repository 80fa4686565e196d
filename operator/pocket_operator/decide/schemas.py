"""Compare the installed definitions of our kinds with those of this release.

`helm upgrade` never updates CRDs, so an operator meets older ones, and after a rollback newer ones. It goes on with the
fields that both know, and reports the difference.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pocket.api.base import GROUP, VERSION
from pocket.api.crd import definitions

Object = dict[str, Any]
INDEX = "/openapi/v3"
PATH = f"{INDEX}/apis/{GROUP}/{VERSION}"
"""Path of the API server's schemas of our kinds. Every account may read it (system:discovery)."""
_COMPARED = ("spec", "status")


def published_version(index: Object) -> str:
    """Return what changes with the published schemas of our kinds.

    The result is empty if the index does not have them.
    """
    return str(((index.get("paths") or {}).get(PATH.removeprefix(f"{INDEX}/")) or {}).get("serverRelativeURL") or "")


@dataclass(frozen=True, slots=True)
class Difference:
    """Paths of fields, the topmost of each branch."""

    missing: tuple[str, ...] = ()
    """Fields of this release that the installed definition lacks: it is older."""
    unknown: tuple[str, ...] = ()
    """Fields of the installed definition that this release does not know: it is newer."""


@dataclass(frozen=True, slots=True)
class Schemas:
    """Installed schemas by kind.

    They are empty if the API server did not return them: then nothing is concluded.
    """

    installed: Mapping[str, Object] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Object) -> "Schemas":
        """Read the API server's OpenAPI document of our group."""
        schemas: dict[str, Object] = {}
        for schema in ((document.get("components") or {}).get("schemas") or {}).values():
            for row in schema.get("x-kubernetes-group-version-kind") or ():
                if row.get("group") == GROUP and row.get("version") == VERSION and "spec" in _fields(schema):
                    schemas[str(row.get("kind"))] = schema
        return cls(schemas)

    def covered_by(self, other: "Schemas") -> bool:
        """Return whether the other document has all of our kinds that this one has.

        One that lacks some is partial.
        """
        return bool(other.installed) and self.installed.keys() <= other.installed.keys()

    def difference(self, kind: str) -> Difference:
        """Return how the installed definition differs from that of this release."""
        installed, ours = self.installed.get(kind), _ours().get(kind)
        if installed is None or ours is None:
            return Difference()
        return Difference(tuple(_lacking(ours, installed)), tuple(_lacking(installed, ours)))

    def pruned_status(self, kind: str, status: Object) -> Object:
        """Return the status without fields that the installed definition lacks.

        A server-side apply rejects them.
        """
        schema = _fields(self.installed.get(kind) or {}).get("status")
        pruned: Object = status if schema is None else _pruned(schema, status)
        return pruned


@lru_cache(maxsize=1)
def _ours() -> Mapping[str, Object]:
    rows = (definition["spec"] for definition in definitions().values())
    return {str(row["names"]["kind"]): row["versions"][0]["schema"]["openAPIV3Schema"] for row in rows}


def _fields(schema: Object) -> Object:
    fields: Object = schema.get("properties") or {}
    return fields


def _lacking(schema: Object, other: Object) -> Iterator[str]:
    """Yield the paths of `whole` that `other` lacks, below spec and status."""
    for part in _COMPARED:
        if part in _fields(schema):
            yield from _missing(_fields(schema)[part], _fields(other).get(part), part)


def _missing(schema: Object, other: Object | None, path: str) -> Iterator[str]:
    if other is None:
        yield path
        return
    for name, child in sorted(_fields(schema).items()):
        if not other.get("x-kubernetes-preserve-unknown-fields"):
            yield from _missing(child, _fields(other).get(name), f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict) and isinstance(other.get(inner), dict):
            yield from _missing(schema[inner], other[inner], f"{path}[]")


def _pruned(schema: Object, value: Any) -> Any:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return value
    if isinstance(value, list):
        return [_pruned(schema.get("items") or {}, row) for row in value]
    if not isinstance(value, dict):
        return value
    fields, extra = _fields(schema), schema.get("additionalProperties")
    if isinstance(extra, dict):
        return {key: _pruned(extra, child) for key, child in value.items()}
    return {key: _pruned(fields[key], child) for key, child in value.items() if key in fields} if fields else value
