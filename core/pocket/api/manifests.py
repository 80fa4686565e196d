"""Reading of resources from YAML files, as `kubectl apply -f` would."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pocket.api.base import API_VERSION, GROUP, ManifestError, problem_of, read_documents
from pocket.api.crd import structural_schema
from pocket.api.pod_settings import pod_setting_problems
from pocket.api.relayminer import RelayMiner, RelayMinerSpec
from pocket.api.schema import unknown_fields
from pocket.api.supplier import Supplier


@dataclass(frozen=True, slots=True)
class Manifests:
    """The resources of some files.

    Secrets are name → key → text, and the repr never shows them.
    """

    relay_miners: tuple[RelayMiner, ...]
    suppliers: tuple[Supplier, ...]
    secrets: dict[str, dict[str, str]]

    def __repr__(self) -> str:
        names = [m.metadata.name for m in self.relay_miners], [s.metadata.name for s in self.suppliers]
        return f"Manifests(relay_miners={names[0]}, suppliers={names[1]}, secrets={len(self.secrets)})"


def load_manifests(paths: Iterable[Path]) -> Manifests:
    """Load RelayMiners, Suppliers and Secrets of files and folders.

    Their status is ignored, as at `kubectl apply`. Raises ManifestError.
    """
    miners: list[RelayMiner] = []
    suppliers: list[Supplier] = []
    secrets: dict[str, dict[str, str]] = {}
    for file, document in read_documents(paths):
        kind = document.get("kind")
        name = _mapping(document, "metadata", f"{file}: {kind}").get("name", "?")
        where = f"{file}: {kind} {name}"
        if document.get("apiVersion") == "v1" and kind == "Secret":
            secrets[str(name)] = _entries(document, where)
        if kind not in ("RelayMiner", "Supplier") or not _is_ours(document.get("apiVersion"), where):
            continue
        model: type[BaseModel] = RelayMiner if kind == "RelayMiner" else Supplier
        declared = {field: value for field, value in document.items() if field != "status"}
        try:
            if kind == "RelayMiner":
                miners.append(RelayMiner.model_validate(declared))
            else:
                suppliers.append(Supplier.model_validate(declared))
        except ValidationError as error:
            raise ManifestError(f"{where}: {problem_of(error, model)}") from error
        if model is RelayMiner:
            _check_kubernetes_parts(document, where)
    return Manifests(tuple(miners), tuple(suppliers), secrets)


def _check_kubernetes_parts(document: dict[str, Any], where: str) -> None:
    """Check what the models pass on to Kubernetes.

    These are the names of its fields, and the settings of pods. Raises ManifestError.
    """
    for path, resembling in unknown_fields(_spec_schema(), document.get("spec") or {}, "spec"):
        question = f": did you mean {resembling}?" if resembling else ""
        raise ManifestError(f"{where}: {path} is unknown{question}")
    for problem in pod_setting_problems(document.get("spec") or {}):
        raise ManifestError(f"{where}: {problem}")


@cache
def _spec_schema() -> dict[str, Any]:
    return structural_schema(RelayMinerSpec)


def _is_ours(version: object, where: str) -> bool:
    """Return whether a resource is of this project's group.

    Raises ManifestError for another version of it, or none: such a resource would be left out unnoticed.
    """
    if version == API_VERSION:
        return True
    if version and not str(version).startswith(f"{GROUP}/"):
        return False
    raise ManifestError(f"{where}: apiVersion {version or 'is missing'}: write {API_VERSION}")


def _entries(secret: dict[str, Any], where: str) -> dict[str, str]:
    """Return a Secret's `data`, replaced by its `stringData` as at the API server.

    Raises ManifestError, without the value.
    """
    entries: dict[str, str] = {}
    for key, value in _mapping(secret, "data", where).items():
        try:
            entries[str(key)] = base64.b64decode(str(value), validate=True).decode()
        except ValueError:
            raise ManifestError(f"{where}: data.{key} is not base64 of a text") from None
    return entries | {str(key): str(value) for key, value in _mapping(secret, "stringData", where).items()}


def _mapping(document: dict[str, Any], field: str, where: str) -> dict[str, Any]:
    value = document.get(field) or {}
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: {field} is not a mapping")
    return value
