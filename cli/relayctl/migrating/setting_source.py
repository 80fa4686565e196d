"""Read settings of a YAML tree, and tell which were not read."""

from collections.abc import Iterable, Mapping
from typing import Any


class SettingSource:
    """A YAML tree that remembers which leaves were used."""

    def __init__(self, name: str, tree: Mapping[str, Any]) -> None:
        self.name = name
        self._tree = tree
        self._used: set[str] = set()

    def take(self, path: str, default: Any = None) -> Any:
        """Return the value at a path, and note that it was read."""
        node: Any = self._tree
        for part in path.split("."):
            if not isinstance(node, Mapping) or part not in node:
                return default
            node = node[part]
        self._used.add(path)
        return node

    def names(self, path: str) -> list[str]:
        """Return the names below a path, none where there is no mapping."""
        node: Any = self._tree
        for part in path.split(".") if path else []:
            node = node.get(part) if isinstance(node, Mapping) else None
        return [str(name) for name in node] if isinstance(node, Mapping) else []

    def left(self) -> list[str]:
        """Return the paths of the values that were not read."""
        return [path for path in _leaves(self._tree) if not any(_covers(used, path) for used in self._used)]


def _leaves(tree: Any, path: str = "") -> Iterable[str]:
    if not isinstance(tree, Mapping):
        yield path
        return
    for name, value in tree.items():
        yield from _leaves(value, f"{path}.{name}" if path else str(name))


def _covers(used: str, path: str) -> bool:
    return path == used or path.startswith(f"{used}.")
