"""Define `relayctl keys`.

It generates keys, prints addresses and seals keys for Git.
"""

import base64
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import yaml

from pocket.api.base import API_VERSION
from pocket.errors import DecodingError
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE, Controller, SealError, Subject, key_id, seal
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.curve import N
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.key_files import read_small_text, sealing_key, write_for_owner
from relayctl.key_import.import_commands import import_keys
from relayctl.option_types import namespace_name, object_name


def _standard_input() -> str:
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError:
        raise click.ClickException("standard input is not text: it must be the hex key") from None


def _key(file: Path | None) -> tuple[str, str]:
    """Return the hex key and its address, from a file or standard input.

    A key is never an argument, which other users can see.
    """
    text = (_standard_input() if file is None else read_small_text(file)).removeprefix("0x")
    try:
        return text, address_of(PrivateKey.from_hex(text).public_key)
    except DecodingError as error:
        raise click.ClickException(str(error)) from None


def read_key(file: Path | None) -> PrivateKey:
    """Return the key of a file or standard input."""
    return PrivateKey.from_hex(_key(file)[0])


KEY_FILE = click.option(
    "--key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the hex key. Default: standard input.",
)


@click.group()
def keys() -> None:
    """Generate, seal and inspect supplier keys."""


@keys.command()
@KEY_FILE
def address(key_file: Path | None) -> None:
    """Print the operator address of a key."""
    click.echo(_key(key_file)[1])


@keys.command()
@click.argument("file", type=click.Path(path_type=Path))
def generate(file: Path) -> None:
    """Write a new key to FILE. Print its address and public key.

    FILE is readable by you alone.
    """
    key = PrivateKey((secrets.randbelow(N - 1) + 1).to_bytes(32, "big"))
    write_for_owner(file, f"{key.scalar:064x}\n")
    click.echo(f"address: {address_of(key.public_key)}\npublicKey: {key.public_key.hex()}")


@keys.command("sealing-secret")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--namespace", callback=namespace_name, required=True, help="Namespace of the Suppliers")
def sealing_secret(file: Path, namespace: str) -> None:
    """Write a new sealing key's Secret to FILE. Print its public key.

    The key is that of the namespace. FILE is readable by you alone.
    """
    private = Controller.generate()
    resource = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET_OF_NAMESPACE, "namespace": namespace},
        "stringData": {datetime.now(UTC).strftime("%Y%m%dT%H%M%S"): base64.b64encode(private).decode()},
    }
    write_for_owner(file, yaml.safe_dump(resource, sort_keys=False))
    click.echo(base64.b64encode(Controller.of([private]).newest).decode())


@keys.command("seal")
@KEY_FILE
@click.option("--public-key", required=True, help="Sealing key of the operator or the namespace, base64 or a file")
@click.option("--namespace", callback=namespace_name, required=True, help="Namespace of the Supplier")
@click.option("--name", callback=object_name, required=True, help="Name of the Supplier")
@click.option("--relay-miner", callback=object_name, help="Print a Supplier of this RelayMiner instead")
def seal_key(key_file: Path | None, public_key: str, namespace: str, name: str, relay_miner: str | None) -> None:
    """Seal a key for one Supplier. The text may be stored in Git.

    Only the holder of the sealing key can open it.
    """
    public = sealing_key(public_key)
    text, operator_address = _key(key_file)
    try:
        sealed = seal(public, Subject(namespace, name, operator_address), text)
    except SealError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"sealed for {namespace}/{name} ({operator_address}), sealing key {key_id(public)}", err=True)
    if relay_miner is None:
        click.echo(sealed)
        return
    resource = {
        "apiVersion": API_VERSION,
        "kind": "Supplier",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "relayMinerRef": {"name": relay_miner},
            "operatorAddress": operator_address,
            "key": {"sealed": sealed},
        },
    }
    click.echo(yaml.safe_dump(resource, sort_keys=False, width=1000).rstrip())


keys.add_command(import_keys)
