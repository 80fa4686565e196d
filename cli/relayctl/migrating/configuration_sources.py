"""Find configurations where people keep them.

That is a file, a ConfigMap, or a docker compose file that mounts them.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pocket import input_files
from pocket.api.base import ManifestError
from pocket.input_files import InputFileError

Tree = dict[str, Any]
_FLAGS: Final[Mapping[str, str]] = {
    "keys-file": "keys.keys_file", "keys-dir": "keys.keys_dir", "keyring-backend": "keys.keyring.backend",
    "keyring-dir": "keys.keyring.dir", "redis-url": "redis.url", "consumer-name": "redis.consumer_name",
    "hot-reload": "hot_reload_enabled", "session-ttl": "session_ttl",
}  # fmt: skip
"""Options of the Go programs that replace settings."""
_PARTS: Final = ("relayer", "miner")


@dataclass(slots=True)
class Sources:
    """The configurations of relayer and miner."""

    relayer: Tree = field(default_factory=dict)
    miner: Tree = field(default_factory=dict)


def read_yaml(path: Path) -> list[Any]:
    """Return the documents of a YAML file.

    Raises ManifestError, which quotes nothing of it.
    """
    try:
        return [row for row in input_files.read_yaml(path) if row is not None]
    except InputFileError as error:
        raise ManifestError(str(error)) from None


def read_configuration(path: Path) -> Tree:
    """Return the configuration in a file, or in the only entry of a ConfigMap there.

    Raises ManifestError.
    """
    documents = read_yaml(path)
    if len(documents) == 1 and isinstance(documents[0], dict) and documents[0].get("kind") != "ConfigMap":
        return documents[0]
    entries = [
        text for row in documents if isinstance(row, dict) and row.get("kind") == "ConfigMap"
        for text in (row.get("data") or {}).values()
    ]  # fmt: skip
    trees = [tree for tree in map(_parsed, entries) if isinstance(tree, dict)]
    if len(trees) != 1:
        content = f"{len(trees)} configurations in ConfigMaps: write one to a file" if entries else "something else"
        raise ManifestError(f"{path}: expected the configuration of the Go relayer or miner, there is {content}")
    return trees[0]


def _parsed(text: Any) -> Any:
    try:
        documents = input_files.yaml_documents(str(text), "")
    except InputFileError:
        return None
    return documents[0] if len(documents) == 1 else None


def read_compose(path: Path) -> Sources:
    """Return the configurations that a docker compose file starts containers with.

    Files are those of bind mounts and of `configs`. Options of the command line replace settings. Raises ManifestError.
    """
    documents = read_yaml(path)
    tree = documents[0] if len(documents) == 1 and isinstance(documents[0], dict) else {}
    if not isinstance(tree.get("services"), dict):
        raise ManifestError(f"{path}: not a docker compose file: it has no services")
    sources = Sources()
    for name, service in tree["services"].items():
        words = _words(service)
        part = next((word for word in words if word in _PARTS), "")
        options = dict(_options(words))
        if not part or ("config" not in options and not set(options) & set(_FLAGS)):
            continue
        configuration = _mounted(path, tree, str(name), service, options["config"]) if "config" in options else {}
        for option, target in _FLAGS.items():
            if option in options:
                _put(configuration, target, options[option])
        _follow_keys(path.parent, service, configuration)
        if (other := getattr(sources, part)) and _shared(other) != _shared(configuration):
            raise ManifestError(
                f"{path}: two services run a {part} with different settings. Name the files of one with --relayer and "
                "--miner instead of --compose"
            )
        setattr(sources, part, configuration)
    if not sources.relayer:
        raise ManifestError(f"{path}: no service runs `relayer --config FILE`")
    return sources


def _shared(configuration: Tree) -> Tree:
    """Return what replicas of one program have in common."""
    redis = configuration.get("redis")
    shared = (
        {key: value for key, value in redis.items() if key != "consumer_name"} if isinstance(redis, Mapping) else {}
    )
    return {**configuration, "redis": shared}


def _follow_keys(folder: Path, service: Tree, configuration: Tree) -> None:
    """Replace the paths of keys in the container by those on this machine.

    They are where the paths are mounted.
    """
    keys = configuration.get("keys")
    if not isinstance(keys, dict):
        return
    for row, name in ((keys, "keys_file"), (keys, "keys_dir"), (keys.get("keyring"), "dir")):
        if isinstance(row, dict) and row.get(name) and (host := _host_path(folder, service, str(row[name]))):
            row[name] = str(host)


def _words(service: Any) -> list[str]:
    """Return the words of a container's entrypoint and command."""
    words: list[str] = []
    for name in ("entrypoint", "command"):
        value = service.get(name) if isinstance(service, dict) else None
        words += shlex.split(value) if isinstance(value, str) else [str(word) for word in value or ()]
    return words


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    for number, word in enumerate(words):
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--"):
            following = words[number + 1] if number + 1 < len(words) else ""
            yield name, value if equals else "" if following.startswith("--") else following


def _mounted(path: Path, tree: Tree, name: str, service: Tree, inside: str) -> Tree:
    """Return the configuration that a container sees at a path. Raises ManifestError."""
    for reference in service.get("configs") or ():
        row = reference if isinstance(reference, dict) else {"source": reference}
        target = str(row.get("target") or f"/{row.get('source')}")
        config = (tree.get("configs") or {}).get(row.get("source")) or {}
        if target != inside:
            continue
        if "content" in config:
            content = _parsed(config["content"])
            return content if isinstance(content, dict) else {}
        if "file" in config:
            return read_configuration(path.parent / str(config["file"]))
    host = _host_path(path.parent, service, inside)
    if host is None:
        hint = ""
        if any("$" in str(volume) for volume in service.get("volumes") or ()):
            hint = f". Its volumes have variables: name the output of `docker compose -f {path} config`, which has none"
        raise ManifestError(
            f"{path}: service {name} starts with {inside}, which no volume and no config provides{hint}"
        )
    return read_configuration(host)


def _host_path(folder: Path, service: Tree, inside: str) -> Path | None:
    """Return where a container's file is on this machine, by its innermost bind mount.

    None if no mount has it.
    """
    binds = [
        (PurePosixPath(target), source) for source, target in map(_bind, service.get("volumes") or ())
        if target and PurePosixPath(inside).is_relative_to(target)
    ]  # fmt: skip
    if not binds:
        return None
    target, source = max(binds, key=lambda bind: len(bind[0].parts))
    return folder / Path(source).expanduser() / PurePosixPath(inside).relative_to(target)


def _bind(volume: Any) -> tuple[str, str]:
    """Return what is mounted and where.

    The result is empty for volumes without a file on this machine.
    """
    if isinstance(volume, dict):
        return (str(volume.get("source")), str(volume.get("target"))) if volume.get("type") == "bind" else ("", "")
    source, _, rest = str(volume).partition(":")
    return (source, rest.partition(":")[0]) if source.startswith((".", "/", "~")) else ("", "")


def _put(tree: Tree, path: str, value: Any) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[name] = value
