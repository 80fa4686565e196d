"""Loading of supplier keys.

Good entries load although bad ones are reported. No report repeats key material.
"""

import hashlib
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pocket.errors import ConfigurationError, DecodingError, InvalidPoint
from pocket.input_files import InputFileError, read_yaml
from pocket.protocol.crypto.addresses import Address, address_of
from pocket.protocol.crypto.curve import decode_long_lived_point
from pocket.protocol.crypto.ecdsa import PrivateKey

_SUFFIXES = {".yaml", ".yml", ".json"}
_LARGEST_FILE = 4 * 1024 * 1024
REMOTE: Final = "remote:"
"""Before the public key, in the place of a private key that a remote signer holds."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of a key that a remote signer holds."""

    public_key: bytes

    @classmethod
    def from_text(cls, text: str) -> "PublicKey":
        """Parse `remote:` and 66 hex digits. Raises DecodingError."""
        digits = text.strip().removeprefix(REMOTE)
        try:
            raw = bytes.fromhex(digits) if len(digits) == 66 else b""
            decode_long_lived_point(raw)
        except (ValueError, InvalidPoint):
            raise DecodingError(
                f"a remote key is written as {REMOTE} and the 66 hex digits of its public key"
            ) from None
        return cls(raw)


def key_from_text(text: str) -> PrivateKey | PublicKey:
    """Parse a key of 64 hex digits, or the public half of a remote one.

    Raises DecodingError, whose message never repeats the text.
    """
    return PublicKey.from_text(text) if text.strip().startswith(REMOTE) else PrivateKey.from_hex(text)


@dataclass(frozen=True, slots=True)
class KeyProblem:
    """A problem with one entry and its location. It never holds the key."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True)
class KeySet:
    """Keys by operator address."""

    keys: Mapping[Address, PrivateKey | PublicKey] = field(repr=False)
    problems: tuple[KeyProblem, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the sorted public keys.

        It identifies the set without revealing a key.
        """
        joined = b"".join(sorted(key.public_key for key in self.keys.values()))
        return hashlib.sha256(joined).hexdigest()


def merge(sets: Iterable[KeySet]) -> KeySet:
    """Merge sets of keys. The later set wins, a repetition is reported."""
    keys: dict[Address, PrivateKey | PublicKey] = {}
    problems: list[KeyProblem] = []
    for one in sets:
        problems += one.problems
        problems += [
            KeyProblem(address, "loaded from two sources, the later one is used")
            for address in one.keys
            if address in keys
        ]
        keys.update(one.keys)
    return KeySet(keys, tuple(problems))


def _entry(position: str, text: Any, claimed: Any = None) -> tuple[Address, PrivateKey | PublicKey] | KeyProblem:
    if not isinstance(text, str):
        return KeyProblem(position, "the key must be a text of 64 hex digits; quote it in YAML")
    try:
        key = key_from_text(text)
    except DecodingError as error:
        return KeyProblem(position, str(error))
    address = address_of(key.public_key)
    if claimed is not None and claimed != address:
        return KeyProblem(
            position, f"operator_address {str(claimed)[:64]} does not match the key, whose address is {address}"
        )
    return address, key


def _collect(entries: Iterable[tuple[Address, PrivateKey | PublicKey] | KeyProblem]) -> KeySet:
    keys: dict[Address, PrivateKey | PublicKey] = {}
    problems = []
    for entry in entries:
        if isinstance(entry, KeyProblem):
            problems.append(entry)
        else:
            keys[entry[0]] = entry[1]
    return KeySet(keys, tuple(problems))


def _read_yaml(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigurationError(f"keys {path}: larger than 4 MiB; is this a keys file?")
    except OSError as error:
        raise ConfigurationError(f"keys {path}: {error.strerror}. Check the path and its permissions.") from error
    try:
        documents = read_yaml(path)
    except InputFileError as error:
        raise ConfigurationError(f"keys {error}. Expected `keys:` and a list of hex keys.") from None
    return documents[0] if len(documents) == 1 else None


def load_keys_file(path: Path) -> KeySet:
    """Load a keys file: `keys:` and a list of 64-digit hex. Raises ConfigurationError."""
    content = _read_yaml(path)
    rows = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise ConfigurationError(f"keys {path}: expected `keys:` and a list of hex keys")
    return _collect(_entry(f"{path} entry {number}", row) for number, row in enumerate(rows, start=1))


def _directory_entries(path: Path) -> Iterable[tuple[Address, PrivateKey | PublicKey] | KeyProblem]:
    # Mounted Secrets hold their data behind ..data links; names with a leading dot are not keys.
    for file in sorted(p for p in path.iterdir() if not p.name.startswith(".") and p.is_file()):
        if file.suffix not in _SUFFIXES:
            try:
                text = file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                yield KeyProblem(str(file), "cannot be read")
                continue
            # A file without suffix holds one hex key; its name is the operator address where it looks like one.
            yield _entry(str(file), text, file.name if file.name.startswith("pokt1") else None)
            continue
        try:
            content = _read_yaml(file)
        except ConfigurationError as error:
            yield KeyProblem(str(file), str(error))
            continue
        if isinstance(content, dict) and isinstance(content.get("keys"), list):
            yield from (_entry(f"{file} entry {n}", row) for n, row in enumerate(content["keys"], start=1))
        elif isinstance(content, dict) and "private_key_hex" in content:
            yield _entry(str(file), content["private_key_hex"], content.get("operator_address"))
        else:
            yield KeyProblem(str(file), "expected operator_address and private_key_hex, or a list of keys")


def load_keys_directory(path: Path) -> KeySet:
    """Load every key of a folder.

    A file is YAML/JSON with operator_address and private_key_hex, a keys file, or bare hex. Raises ConfigurationError.
    """
    if not path.is_dir():
        raise ConfigurationError(f"keys {path}: not a folder. Name the folder that holds one file per supplier.")
    return _collect(_directory_entries(path))


def load_keys_environment(environment: Mapping[str, str], prefix: str = "POCKET_SUPPLIER_KEY") -> KeySet:
    """Load keys from variables whose names start with the prefix."""
    return _collect(
        _entry(f"environment variable {name}", value)
        for name, value in sorted(environment.items())
        if name.startswith(prefix)
    )


def _exposed(folder: Path) -> KeySet:
    """Return a problem for each file that any user of the machine may read.

    It returns no keys.
    """
    problems = []
    for path in sorted(folder.iterdir()):
        try:
            mode = path.stat().st_mode
        except OSError:
            continue  # replaced meanwhile
        if not path.name.startswith(".") and stat.S_ISREG(mode) and mode & stat.S_IROTH:
            problems.append(KeyProblem(str(path), "any user of this machine may read this file: chmod 600"))
    return KeySet({}, tuple(problems))


def load_supplier_keys(folder: Path, environment: Mapping[str, str]) -> KeySet:
    """Load the keys of a workload from the folder and from variables.

    Raises ConfigurationError.
    """
    return merge([load_keys_directory(folder), load_keys_environment(environment), _exposed(folder)])
