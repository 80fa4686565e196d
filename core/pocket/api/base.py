"""The base of all models: camelCase in YAML, unknown fields rejected, immutable."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

GROUP = "pocket.network"
VERSION = "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"


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


def problem_of(error: ValidationError) -> str:
    """Return all problems of a validation, each with its field's path."""
    rows = []
    for row in error.errors():
        place = ".".join(str(part) for part in row["loc"]) or "the document"
        message = row["msg"].removeprefix("Value error, ")
        rows.append(f"{place}: {message}")
    return "; ".join(rows)


def read_documents(paths: Iterable[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Read YAML documents of files and of the *.yaml files in folders, in name order.

    Raises ManifestError.
    """
    documents_by_file: list[tuple[Path, dict[str, Any]]] = []
    for path in paths:
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        for file in files:
            try:
                documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
            except OSError as error:
                raise ManifestError(f"{file}: {error.strerror}") from error
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ManifestError(f"{file}: not YAML: {error}") from error
            for document in documents:
                if document is None:
                    continue
                if not isinstance(document, dict):
                    raise ManifestError(
                        f"{file}: a document is not a mapping; each needs apiVersion, kind and metadata"
                    )
                documents_by_file.append((file, document))
    return documents_by_file
