"""Reading of resources from YAML files, as `kubectl apply -f` would."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pocket.api.base import API_VERSION, ManifestError, problem_of, read_documents
from pocket.api.crd import structural_schema
from pocket.api.relayminer import RelayMiner, RelayMinerSpec
from pocket.api.schema import unknown_fields
from pocket.api.supplier import Supplier


@dataclass(frozen=True, slots=True)
class Manifests:
    """The resources of some files, Secrets as name → key → text. The repr never shows them."""

    relay_miners: tuple[RelayMiner, ...]
    suppliers: tuple[Supplier, ...]
    secrets: dict[str, dict[str, str]]

    def __repr__(self) -> str:
        names = [m.metadata.name for m in self.relay_miners], [s.metadata.name for s in self.suppliers]
        return f"Manifests(relay_miners={names[0]}, suppliers={names[1]}, secrets={len(self.secrets)})"


def load_manifests(paths: Iterable[Path]) -> Manifests:
    """Load RelayMiners, Suppliers and Secrets (stringData) of files and folders.

    Raises ManifestError.
    """
    miners: list[RelayMiner] = []
    suppliers: list[Supplier] = []
    secrets: dict[str, dict[str, str]] = {}
    for file, document in read_documents(paths):
        kind, name = document.get("kind"), (document.get("metadata") or {}).get("name", "?")
        model: type[BaseModel] = RelayMiner if kind == "RelayMiner" else Supplier
        try:
            if document.get("apiVersion") == API_VERSION and kind == "RelayMiner":
                miners.append(RelayMiner.model_validate(document))
            elif document.get("apiVersion") == API_VERSION and kind == "Supplier":
                suppliers.append(Supplier.model_validate(document))
            elif document.get("apiVersion") == "v1" and kind == "Secret":
                secrets[str(name)] = _string_data(document)
        except ValidationError as error:
            raise ManifestError(f"{file}: {kind} {name}: {problem_of(error, model)}") from error
        if model is RelayMiner:
            _check_kubernetes_parts(document, f"{file}: {kind} {name}")
    return Manifests(tuple(miners), tuple(suppliers), secrets)


def _check_kubernetes_parts(document: dict[str, Any], where: str) -> None:
    """Check the names of the fields that Kubernetes itself defines, which the models pass on.

    Raises ManifestError.
    """
    for path, resembling in unknown_fields(_spec_schema(), document.get("spec") or {}, "spec"):
        question = f": did you mean {resembling}?" if resembling else ""
        raise ManifestError(f"{where}: {path} is unknown{question}")


@cache
def _spec_schema() -> dict[str, Any]:
    return structural_schema(RelayMinerSpec)


def _string_data(document: dict[str, Any]) -> dict[str, str]:
    data = document.get("stringData") or {}
    return {str(key): str(value) for key, value in data.items()}
