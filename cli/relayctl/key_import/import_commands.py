"""Define `relayctl keys import`.

It imports keyrings, armored exports and mnemonics as Secrets, key files or sealed keys. Nothing secret is an argument
or is printed. Passphrases and mnemonics come from a prompt, a file descriptor or standard input.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
import yaml

from pocket.errors import system_reason
from pocket.keys.sealed_box import Subject, seal
from pocket.protocol.crypto.addresses import Address, address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.key_files import key_secret, sealing_key, write_for_owner
from relayctl.key_import.armored_key import read_armored
from relayctl.key_import.cosmos_keyring import (
    TEST_PASSWORD,
    has_test_password,
    keyring_folder,
    keyring_folders,
    read_keyring,
)
from relayctl.key_import.import_errors import KeyImportError
from relayctl.key_import.mnemonic_key import COSMOS_PATH, following, read_mnemonic
from relayctl.key_import.secret_service import read_secret_service
from relayctl.migrating.migration import supplier, supplier_name
from relayctl.option_types import namespace_name, object_name

_LONGEST: Final = 64 * 1024
Keys = Mapping[Address, PrivateKey]


def secret_text(name: str, descriptor: int | None) -> str:
    """Read a passphrase or a mnemonic.

    It is a line of a file descriptor, of a prompt, or of standard input. Raises ClickException.
    """
    if descriptor is not None:
        try:
            with os.fdopen(os.dup(descriptor), encoding="utf-8") as source:
                text = source.readline(_LONGEST)
        except (OSError, UnicodeDecodeError) as error:
            raise click.ClickException(f"file descriptor {descriptor}: {system_reason(error)}") from None
    elif sys.stdin.isatty():
        return str(click.prompt(name, hide_input=True, err=True))
    else:
        text = sys.stdin.readline(_LONGEST)
    if not text.strip():
        raise click.ClickException(f"{name}: empty. Type it, pipe it into the command, or pass a file descriptor")
    return text.rstrip("\r\n")


def _passphrase(command: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--passphrase-fd", type=click.IntRange(0), help="File descriptor with the passphrase. Default: prompt or stdin"
    )(command)


def _target(command: Callable[..., Keys]) -> Callable[..., None]:
    """Add the options for what to write, and write the keys that the command returns."""

    def run(
        output: Path, form: str, namespace: str, relay_miner: str | None, public_key: str | None, **options: Any
    ) -> None:
        if form == "sealed" and (public_key is None or relay_miner is None):
            raise click.ClickException("--form sealed needs --public-key and --relay-miner")
        try:
            keys = command(**options)
        except KeyImportError as error:
            raise click.ClickException(str(error)) from None
        if not keys:
            raise click.ClickException("there is no key to import")
        write_for_owner(output, written(keys, form, namespace, relay_miner, public_key))
        for address in sorted(keys):
            click.echo(address)
        click.echo(f"{len(keys)} key{'s' * (len(keys) != 1)} written to {output}, readable by you alone", err=True)

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__dict__.update(command.__dict__)
    chosen: Callable[..., None] = run
    for option in (
        click.option("--public-key", help="Sealing key of the operator or the namespace, base64 or a file"),
        click.option("--relay-miner", callback=object_name, help="Also write a Supplier of this RelayMiner per key"),
        click.option("--namespace", callback=namespace_name, default="pocket", show_default=True,
                     help="Namespace of the Secrets and Suppliers"),
        click.option(
            "--form", type=click.Choice(["secret", "sealed", "keys-file", "hex"]), default="secret", show_default=True,
            help="Kubernetes Secrets, Suppliers with sealed keys, a list of hex keys, or one hex key",
        ),
        click.option(
            "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True,
            help="New file, readable by you alone",
        ),
    ):  # fmt: skip
        chosen = option(chosen)
    return chosen


def written(keys: Keys, form: str, namespace: str, relay_miner: str | None, public_key: str | None) -> str:
    """Return the text to write for keys. Raises ClickException."""
    digits = {address: f"{key.scalar:064x}" for address, key in sorted(keys.items())}
    match form:
        case "hex":
            if len(digits) != 1:
                raise click.ClickException(f"--form hex is for one key, there are {len(digits)}: use keys-file")
            return f"{next(iter(digits.values()))}\n"
        case "keys-file":
            return yaml.safe_dump({"keys": list(digits.values())})
    documents: list[dict[str, Any]] = []
    sealing = sealing_key(public_key) if form == "sealed" and public_key is not None else None
    for address, text in digits.items():
        name = supplier_name(address)
        reference: dict[str, Any] = {"secretRef": {"name": f"{name}-key", "key": "hex"}}
        if sealing is not None:
            reference = {"sealed": seal(sealing, Subject(namespace, name, address), text)}
        else:
            documents.append(key_secret(f"{name}-key", namespace, {"hex": text}))
        if relay_miner is not None:
            documents.append(supplier(address, relay_miner, namespace, reference))
    return yaml.safe_dump_all(documents, sort_keys=False, width=1000)


@click.group("import")
def import_keys() -> None:
    """Import keys from keyrings, armored exports and mnemonics."""


@import_keys.command("keyring")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--name", "names", multiple=True, help="Only this key. May be repeated")
@_passphrase
@_target
def keyring_command(folder: Path, names: tuple[str, ...], passphrase_fd: int | None) -> Keys:
    """Import keys from a keyring FOLDER. Its backend is `file`, `test` or `os`.

    A keyring of `os` has a folder on a machine without a desktop. FOLDER is the home folder of pocketd, or keyring-file
    or keyring-test in it.
    """
    keyring = keyring_folder(folder, names)
    for other in keyring_folders(folder):
        if other != keyring:
            click.echo(f"keys are read from {keyring}, not from {other}", err=True)
    found = read_keyring(keyring, keyring_passphrase(keyring, passphrase_fd), names)
    for name, reason in found.skipped.items():
        click.echo(f"skipped {name}: it {reason}", err=True)
    return found.keys


def keyring_passphrase(keyring: Path, descriptor: int | None) -> str:
    """Return the passphrase of a keyring.

    That of the backend `test` is known, others are read. See secret_text.
    """
    return TEST_PASSWORD if has_test_password(keyring) else secret_text(f"Passphrase of {keyring}", descriptor)


@import_keys.command("secret-service")
@click.option("--name", "names", multiple=True, required=True, help="Name of a key. May be repeated")
@_target
def secret_service_command(names: tuple[str, ...]) -> Keys:
    """Import keys of the backend `os` from a Linux desktop.

    They are read with `secret-tool` of libsecret.
    """
    return read_secret_service(names)


@import_keys.command("armor")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_passphrase
@_target
def armor_command(file: Path, passphrase_fd: int | None) -> Keys:
    """Import a key from a FILE that `pocketd keys export` wrote."""
    try:
        text = file.read_text(encoding="ascii")[:_LONGEST]
    except (OSError, UnicodeDecodeError) as error:
        raise KeyImportError(f"{file}: not an armored key ({type(error).__name__})") from None
    key = read_armored(text, secret_text("Passphrase of the armored key", passphrase_fd))
    return {address_of(key.public_key): key}


@import_keys.command("mnemonic")
@click.option("--path", default=COSMOS_PATH, show_default=True, help="Derivation path")
@click.option("--count", type=click.IntRange(1, 10_000), default=1, show_default=True,
              help="Keys at this path and the following ones")  # fmt: skip
@click.option("--mnemonic-fd", type=click.IntRange(0), help="File descriptor with the words. Default: prompt or stdin")
@click.option("--bip39-passphrase-fd", type=click.IntRange(0), help="File descriptor with the words' own passphrase")
@_target
def mnemonic_command(path: str, count: int, mnemonic_fd: int | None, bip39_passphrase_fd: int | None) -> Keys:
    """Derive keys from the words of a mnemonic."""
    words = secret_text("Mnemonic", mnemonic_fd)
    own = secret_text("Passphrase of the mnemonic", bip39_passphrase_fd) if bip39_passphrase_fd is not None else ""
    return read_mnemonic(words, following(path, count), own)
