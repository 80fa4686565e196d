"""The base of all models: camelCase in YAML, unknown fields rejected, immutable."""

import difflib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from pocket.input_files import InputFileError, read_yaml

GROUP = "pocket.network"
VERSION = "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"
UNKNOWN_FIELD = "extra_forbidden"
"""Pydantic's type of error for a field that a model does not know."""
_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


class ManifestError(Exception):
    """A manifest cannot be used. The message names file, resource, field and remedy."""


class Model(BaseModel):
    """A part of a custom resource."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Metadata(BaseModel):
    """The part of Kubernetes metadata that is used here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    namespace: str = "default"
    labels: dict[str, str] = {}


def first_repeated(names: Iterable[str]) -> str | None:
    """Return the first of these names that occurs more than once, or None."""
    return next((name for name, number in Counter(names).items() if number > 1), None)


def problem_of(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Return all problems of a validation, each with its field's path.

    With the model that was validated, an unknown field is named together with the one that it resembles.
    """
    rows = []
    for row in error.errors():
        field = ".".join(str(part) for part in row["loc"]) or "the document"
        message = row["msg"].removeprefix("Value error, ")
        if row["type"] == UNKNOWN_FIELD:
            message = "is unknown" + _resembling(model, row["loc"])
        rows.append(f"{field}: {message}")
    return "; ".join(rows)


def _resembling(model: type[BaseModel] | None, location: tuple[int | str, ...]) -> str:
    """Return a question with the name of a field that resembles the location.

    Only its last part counts. The text is empty if no field resembles it.
    """
    names = {str(name) for name in _fields_at(model, location[:-1])}
    similar = difflib.get_close_matches(str(location[-1]), sorted(names), n=1)
    return f": did you mean {similar[0]}?" if similar else ""


def _fields_at(model: type[BaseModel] | None, location: tuple[int | str, ...]) -> Iterable[str]:
    """Return the names of the model's fields at a location of pydantic's.

    They are as written in YAML.
    """
    if model is None:
        return ()
    schema = model.model_json_schema(by_alias=True)
    node, definitions = schema, schema.get("$defs", {})
    for part in (*location, None):
        while not {"properties", "items", "additionalProperties"} & set(node):
            if "$ref" in node:
                node = definitions[node["$ref"].rpartition("/")[2]]
            elif "anyOf" in node or "allOf" in node:
                node = next(
                    row for row in (*node.get("anyOf", ()), *node.get("allOf", ())) if row.get("type") != "null"
                )
            else:
                return ()
        if part is not None:
            node = node.get("properties", {}).get(part) or node.get("items") or {}
    return tuple(node.get("properties", ()))


def read_documents(paths: Iterable[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Read the YAML documents of files and folders, in name order.

    Like kubectl, it takes the *.yaml, *.yml and *.json files of a folder. The items of a List are documents of their
    own. Raises ManifestError.
    """
    documents_by_file: list[tuple[Path, dict[str, Any]]] = []
    for path in paths:
        files = sorted(row for row in path.iterdir() if row.suffix in _SUFFIXES) if path.is_dir() else [path]
        for file in files:
            try:
                documents = read_yaml(file)
            except InputFileError as error:
                raise ManifestError(str(error)) from None
            for document in documents:
                if document is None:
                    continue
                documents_by_file += [(file, row) for row in _items_of(file, document)]
    return documents_by_file


def _items_of(file: Path, document: object) -> list[dict[str, Any]]:
    """Return a document, or what a List holds.

    `kubectl get` prints such a List. Raises ManifestError.
    """
    if not isinstance(document, dict):
        raise ManifestError(f"{file}: a document is not a mapping; each needs apiVersion, kind and metadata")
    if document.get("apiVersion") != "v1" or document.get("kind") != "List":
        return [document]
    items = document.get("items") or []
    if not isinstance(items, list):
        raise ManifestError(f"{file}: items of the List is no list")
    return [row for item in items for row in _items_of(file, item)]
