"""Load the keys that a configuration of another relay miner names.

They are in files, folders and keyrings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from pocket.api.base import ManifestError
from pocket.errors import PocketError
from pocket.keys.loading import KeyProblem, KeySet, load_keys_directory, load_keys_file, merge
from relayctl.key_import.cosmos_keyring import keyring_folder, keyring_folders, read_keyring
from relayctl.key_import.import_commands import keyring_passphrase
from relayctl.migrating.node_relayminer import is_node_relayminer, signing_key_names
from relayctl.migrating.setting_values import mapping, sequence

_HOME: Final = "~/.pocket"


@dataclass(frozen=True, slots=True)
class KeySources:
    """Places of keys that the command line names.

    Files and folders replace what the configurations name.
    """

    files: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    keyring: Path | None = None


def load_keys(trees: Sequence[Mapping[str, Any]], sources: KeySources, passphrase_fd: int | None) -> KeySet:
    """Load the keys named on the command line, else those named by the configurations.

    Raises ClickException.
    """
    files, folders, keyrings = sources.files, sources.folders, list[KeySet]()
    try:
        if not files and not folders:
            named = [_named(tree) for tree in trees]
            files = tuple({Path(row["keys_file"]) for row in named if row.get("keys_file")})
            folders = tuple({Path(row["keys_dir"]) for row in named if row.get("keys_dir")})
            configured = [row["keyring"] for row in named if row.get("keyring")]
            keyrings = _keyrings(configured, sources.keyring, passphrase_fd)
        return merge(
            [*(load_keys_file(file) for file in files), *(load_keys_directory(folder) for folder in folders), *keyrings]
        )
    except (PocketError, ManifestError) as error:
        raise click.ClickException(str(error)) from None


def _named(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the places of keys that a configuration names.

    That of pocketd's relayminer has names of keys only.
    """
    if not is_node_relayminer(tree):
        keys = mapping(tree.get("keys"), "keys")
        return {**keys, "keyring": mapping(keys.get("keyring"), "keys.keyring")}
    return {"keyring": {"key_names": names}} if (names := signing_key_names(tree)) else {}


def _keyrings(rows: Sequence[Mapping[str, Any]], given: Path | None, passphrase_fd: int | None) -> list[KeySet]:
    """Return the keys of the keyrings, each read once."""
    wanted: dict[Path, tuple[str, ...]] = {given: ()} if given is not None and not rows else {}
    problems = []
    for row in rows:
        names = tuple(map(str, sequence(row.get("key_names"), "keys.keyring.key_names")))
        if given is None and "dir" not in row and not keyring_folders(Path(_HOME).expanduser()):
            text = f"no keyring in {_HOME}: name its folder with --keyring, or other keys with --keys-file"
            problems += [KeyProblem(name, text) for name in names or ("keys.keyring",)]
            continue
        wanted[keyring_folder(_home(row) if given is None else given, names)] = names
    loaded = [read_keyring(path, keyring_passphrase(path, passphrase_fd), names) for path, names in wanted.items()]
    problems += [KeyProblem(name, f"it {why}") for keys in loaded for name, why in keys.skipped.items()]
    return [*(KeySet(keys.keys) for keys in loaded), KeySet({}, tuple(problems))]


def _home(row: Mapping[str, Any]) -> Path:
    """Return the folder of a configured keyring.

    Raises ClickException for a backend that has none.
    """
    backend = str(row.get("backend") or "test")
    home = Path(str(row.get("dir") or _HOME)).expanduser()
    if backend == "os" and home.is_dir() and any(home.glob("*.info")):
        return home  # what that backend writes where it finds no service that stores secrets
    if backend not in ("file", "test"):
        raise click.ClickException(
            f"keys.keyring.backend {backend}: only file and test are read. Import the keys of a Linux desktop with "
            "`relayctl keys import secret-service --name NAME`, others from `pocketd keys export NAME` with "
            "`relayctl keys import armor`, each with --form keys-file, and name the result with --keys-file"
        )
    return home / f"keyring-{backend}" if (home / f"keyring-{backend}").is_dir() else home
