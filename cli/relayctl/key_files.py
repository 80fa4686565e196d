"""Write key files that only their owner can read, and build the Secrets that hold keys."""

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


def write_for_owner(file: Path, text: str) -> None:
    """Create a file that only its owner can read. Never replaces one. Raises ClickException."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)


def sealing_key(text: str) -> bytes:
    """Return a public sealing key from base64, or from a file that holds it. Raises ClickException."""
    file = Path(text)
    if file.is_file():
        text = file.read_text(encoding="utf-8").strip()
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
