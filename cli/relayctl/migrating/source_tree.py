"""Read the settings of another program and remember which of them were used."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pocket.api.base import ManifestError


class SourceTree:
    """A YAML tree that remembers which leaves were used."""

    def __init__(self, name: str, tree: Mapping[str, Any]) -> None:
        self.name = name
        self._tree = tree
        self._used: set[str] = set()

    def take(self, path: str, default: Any = None) -> Any:
        """Return the value at a dotted path and mark it as used.

        Without a value `default` is returned.
        """
        node: Any = self._tree
        for part in path.split("."):
            if not isinstance(node, Mapping) or part not in node:
                return default
            node = node[part]
        self._used.add(path)
        return node

    def names(self, path: str) -> list[str]:
        """Return the names in the mapping at a dotted path."""
        node: Any = self._tree
        for part in path.split(".") if path else []:
            node = node.get(part) if isinstance(node, Mapping) else None
        return [str(name) for name in node] if isinstance(node, Mapping) else []

    def left(self) -> list[str]:
        """Return the paths of the leaves that were not used."""
        return [path for path in _leaves(self._tree) if not any(_covers(used, path) for used in self._used)]


def _leaves(tree: Any, path: str = "") -> Iterable[str]:
    if not isinstance(tree, Mapping):
        yield path
        return
    for name, value in tree.items():
        yield from _leaves(value, f"{path}.{name}" if path else str(name))


def _covers(used: str, path: str) -> bool:
    return path == used or path.startswith(f"{used}.")


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Name the setting in a ManifestError."""
    try:
        yield
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from None
