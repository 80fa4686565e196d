"""Write key files, and build the Secrets that hold keys.

Only their owner can read the files.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

_MOST_BYTES: Final = 1 << 20
_LONGEST_PATH: Final = 255


def write_for_owner(file: Path, text: str) -> None:
    """Create a file that only its owner can read, whole or not at all.

    Never replaces one. Raises ClickException.
    """
    if str(file) == "-":
        raise click.ClickException("-: keys are written to a file that you alone can read, never to standard output")
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                out.write(text)
        except OSError:
            file.unlink()
            raise
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, and replace it at once."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
    try:
        partial.replace(path)
    except OSError:
        partial.unlink()
        raise


def read_small_text(file: Path) -> str:
    """Return the text of a file that holds a key, a plan or a transaction.

    Raises ClickException.
    """
    try:
        with file.open("rb") as source:
            content = source.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise click.ClickException(f"{file}: more than {_MOST_BYTES} bytes, which is not what this command reads")
        return content.decode("utf-8").strip()
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{file}: not a text file") from None


def sealing_key(text: str) -> bytes:
    """Return a public sealing key from base64, or from a file that holds it.

    Raises ClickException.
    """
    file = Path(text)
    if len(text) <= _LONGEST_PATH and file.is_file():
        text = read_small_text(file)
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise click.ClickException(
            "--public-key must be the base64 text of ConfigMap pocket-operator-sealing-public, entry public-key, "
            "or what `relayctl keys sealing-secret` printed"
        )
    return raw


def key_secret(name: str, namespace: str, entries: Mapping[str, str]) -> dict[str, Any]:
    """Return a Secret."""
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
        "stringData": dict(entries),
    }  # fmt: skip
