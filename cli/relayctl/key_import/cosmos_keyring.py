"""Read the keys of a Cosmos SDK keyring.

Its backend is `test`, `file`, or `os` without a desktop. Each key is a file `<name>.info`: a JWE (PBES2-HS256+A128KW,
A256GCM) whose content is JSON with the record of the key, a protobuf message, in base64.
"""

import base64
import binascii
import json
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from pocket.errors import DecodingError
from pocket.protocol.crypto.addresses import Address, address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.relays.wire import BYTES, Field, decode
from relayctl.key_import.import_errors import KeyImportError, library

TEST_PASSWORD: Final = "test"  # noqa: S105 - the password of every keyring with the backend `test`
_ALGORITHMS: Final = ["PBES2-HS256+A128KW", "A256GCM"]
_LARGEST: Final = 1024 * 1024
_ANY: Final = {1: Field("type_url", BYTES), 2: Field("value", BYTES)}
_LOCAL: Final = {1: Field("priv_key", BYTES, message=_ANY)}
_RECORD: Final = {
    1: Field("name", BYTES), 2: Field("pub_key", BYTES, message=_ANY), 3: Field("local", BYTES, message=_LOCAL),
    4: Field("ledger", BYTES), 5: Field("multi", BYTES), 6: Field("offline", BYTES),
}  # fmt: skip
_KEY: Final = {1: Field("key", BYTES)}
_SECP256K1: Final = b"/cosmos.crypto.secp256k1.PrivKey"
_KINDS: Final = {
    "ledger": "is on a hardware device", "multi": "is a multisig account", "offline": "has a public key only",
}  # fmt: skip


def keyring_folders(path: Path) -> list[Path]:
    """Return the folders with key files.

    They are among `path`, and keyring-file and keyring-test in it.
    """
    return [folder for folder in (path, path / "keyring-file", path / "keyring-test") if _files(folder)]


def keyring_folder(path: Path, names: Collection[str] = ()) -> Path:
    """Return the folder of key files with the named keys.

    If no folder has them all, it is the first with any key. Raises KeyImportError if there is no key.
    """
    folders = keyring_folders(path)
    if folders:
        return next((folder for folder in folders if set(names) <= set(_files(folder))), folders[0])
    raise KeyImportError(
        f"{path}: no *.info file there, in keyring-file or in keyring-test. Keys of the backend `os` that a desktop "
        "stores are in no folder: `relayctl keys import secret-service` reads them. Those of macOS are exported with "
        "`pocketd keys export NAME` and imported as armored text"
    )


def has_test_password(folder: Path) -> bool:
    """Return True if the folder belongs to the backend `test`.

    Its password is known.
    """
    return folder.name == "keyring-test"


def _files(folder: Path) -> dict[str, Path]:
    """Return the key files by the names of their keys.

    The files' names have them in percent-encoding.
    """
    return {unquote(file.name.removesuffix(".info")): file for file in sorted(folder.glob("*.info"))}


@dataclass(frozen=True, slots=True)
class KeyringKeys:
    """The keys of a keyring by address, and why others were skipped, by name."""

    keys: Mapping[Address, PrivateKey] = field(repr=False)
    skipped: Mapping[str, str]


def read_keyring(folder: Path, passphrase: str, names: Collection[str] = ()) -> KeyringKeys:
    """Return the keys of a keyring, all of them or those that are named.

    A key that is not on this machine is skipped unless it is named. Raises KeyImportError.
    """
    files = _files(folder)
    if missing := sorted(set(names) - set(files)):
        raise KeyImportError(f"{folder}: no key {', '.join(missing)}. There are: {', '.join(files) or 'none'}")
    keys, skipped = {}, {}
    for name in names or files:
        record = _record(str(files[name]), _content(files[name], passphrase))
        if name not in names and (reason := _elsewhere(record)):
            skipped[name] = reason
            continue
        key = _private_key(str(files[name]), record)
        keys[address_of(key.public_key)] = key
    return KeyringKeys(keys, skipped)


def decoded_key(where: str, content: bytes) -> PrivateKey:
    """Return the key of a decrypted item.

    `where` names it in errors. Raises KeyImportError.
    """
    return _private_key(where, _record(where, content))


def _content(file: Path, passphrase: str) -> bytes:
    try:
        if file.stat().st_size > _LARGEST:
            raise KeyImportError(f"{file}: larger than 1 MiB, so it is no key")
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyImportError(f"{file}: cannot be read ({type(error).__name__})") from None
    return _decrypted(file, text, passphrase)


def _record(where: str, content: bytes) -> Mapping[str, Any]:
    try:
        data = base64.b64decode(json.loads(content)["Data"], validate=True)
        record: Mapping[str, Any] = decode(_RECORD, data)
    except (ValueError, KeyError, TypeError, binascii.Error, DecodingError):
        raise KeyImportError(f"{where}: not a record of a current keyring. Run `pocketd keys migrate` first") from None
    return record


def _decrypted(file: Path, text: str, passphrase: str) -> bytes:
    jwe, jwk, errors = library("joserfc.jwe"), library("joserfc.jwk"), library("joserfc.errors")
    registry = jwe.JWERegistry(algorithms=_ALGORITHMS, strict_check_header=False)
    try:
        with warnings.catch_warnings():  # the format fixes what the library finds short: the password of `test`
            warnings.simplefilter("ignore")
            content: bytes = jwe.decrypt_compact(text, jwk.OctKey.import_key(passphrase), registry=registry).plaintext
    except (errors.JoseError, ValueError, TypeError):
        raise KeyImportError(f"{file}: the passphrase is wrong, or the file is not a keyring's") from None
    return content


def _elsewhere(record: Mapping[str, Any]) -> str:
    """Return why a record has no private key, empty if it should have one."""
    return next((reason for name, reason in _KINDS.items() if name in record), "")


def _private_key(where: str, record: Mapping[str, Any]) -> PrivateKey:
    if reason := _elsewhere(record):
        raise KeyImportError(f"{where}: the key {reason}, so it cannot be imported")
    try:
        private = record["local"]["priv_key"]
        if private["type_url"] != _SECP256K1:
            raise KeyImportError(f"{where}: the key is of another type than secp256k1")
        return PrivateKey.from_hex(decode(_KEY, private["value"])["key"].hex())
    except (KeyError, TypeError, DecodingError):
        raise KeyImportError(f"{where}: the record has no private key") from None
