"""The command `relayctl migrate`: turn the Go relay miner's files into resources."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from pocket.api.base import ManifestError, problem_of
from pocket.api.relayminer import RelayMiner
from pocket.keys.loading import PublicKey
from pocket.keys.sealed_box import Subject, seal
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.key_files import key_secret, sealing_key, write_private
from relayctl.migrating.configuration_sources import Sources, read_compose, read_configuration
from relayctl.migrating.migrated_keys import KeySources, load_keys
from relayctl.migrating.migration import Migration, convert, supplier, supplier_name
from relayctl.option_types import namespace_name, object_name

_KINDS = {
    "changed": "Changed: check these",
    "unknown": "Unknown and ignored",
    "left": "Without counterpart, with the reason",
}
_SECRETS = "secrets.yaml"
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def _write(output: Path, files: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write the resources by file name, readable by their owner alone.

    URLs and headers may hold keys, too. Raises ClickException if a file cannot be written, or if one of an earlier run
    would stay without being replaced.
    """
    for name, documents in files.items():
        if not documents and (output / name).exists():
            raise click.ClickException(f"{output / name} is of an earlier run: remove it, or choose another --output")
    for name, documents in files.items():
        if not documents:
            continue
        try:
            write_private(output / name, yaml.safe_dump_all(documents, sort_keys=False, width=120))
        except OSError as error:
            raise click.ClickException(f"{output / name}: {error.strerror}") from None


def report(migration: Migration) -> str:
    """Return the report for the user."""
    parts = []
    for kind, title in _KINDS.items():
        rows = [note for note in migration.notes if note.kind == kind]
        if rows:
            parts.append("\n".join([f"{title}:", *(f"  {note.path}: {note.text}" for note in rows)]))
    return "\n\n".join(parts) or "Everything was converted unchanged."


@click.command()
@click.option("--relayer", type=_FILE, help="YAML of the Go relayer, of pocketd's relayminer, or a ConfigMap with it")
@click.option("--miner", type=_FILE, help="YAML of the Go miner, or a ConfigMap with it")
@click.option("--compose", type=_FILE, help="A docker compose file that runs both, instead of --relayer and --miner")
@click.option("--keys-file", "files", type=_FILE, multiple=True, help="Default: the files named by the configurations")
@click.option("--keys-dir", "folders", type=click.Path(path_type=Path, exists=True, file_okay=False), multiple=True)
@click.option(
    "--keyring",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Home folder of pocketd, or its keyring, with the keys that the configuration names",
)
@click.option("--passphrase-fd", type=click.IntRange(0), help="File descriptor with the passphrase of the keyring")
@click.option("--name", callback=object_name, default="main", show_default=True, help="Name of the RelayMiner")
@click.option("--namespace", callback=namespace_name, default="pocket", show_default=True)
@click.option("--public-key", help="The operator's sealing key, base64 or a file, to seal the keys for Git")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to"
)
def migrate(
    relayer: Path | None,
    miner: Path | None,
    compose: Path | None,
    files: tuple[Path, ...],
    folders: tuple[Path, ...],
    keyring: Path | None,
    passphrase_fd: int | None,
    name: str,
    namespace: str,
    public_key: str | None,
    output: Path,
) -> None:
    """Turn a Go relay miner's configuration into resources.

    They are a RelayMiner and its Suppliers with their keys.
    """
    if (relayer is None) == (compose is None):
        raise click.ClickException("name either --relayer or --compose")
    try:
        sources = read_compose(compose) if compose is not None else Sources()
        trees = [
            read_configuration(relayer) if relayer is not None else sources.relayer,
            read_configuration(miner) if miner is not None else sources.miner,
        ]
        migration = convert(trees[0], trees[1], name, namespace)
        RelayMiner.model_validate(migration.relay_miner)
    except ManifestError as error:
        raise click.ClickException(str(error)) from None
    except ValidationError as error:
        raise click.ClickException(f"the converted RelayMiner is invalid: {problem_of(error)}") from None
    loaded = load_keys(trees, KeySources(files, folders, keyring), passphrase_fd)
    sealing = sealing_key(public_key) if public_key else None
    suppliers, secrets = [], [key_secret(n, namespace, entries) for n, entries in migration.secrets.items()]
    for address, key in sorted(loaded.keys.items()):
        hexadecimal = f"{key.scalar:064x}" if isinstance(key, PrivateKey) else ""
        if isinstance(key, PublicKey):
            reference: dict[str, Any] = {"remote": {"publicKey": key.public_key.hex()}}
        elif sealing is not None:
            subject = Subject(namespace, supplier_name(address), address)
            reference = {"sealed": seal(sealing, subject, hexadecimal)}
        else:
            secret = f"{supplier_name(address)}-key"
            secrets.append(key_secret(secret, namespace, {"hex": hexadecimal}))
            reference = {"secretRef": {"name": secret, "key": "hex"}}
        suppliers.append(supplier(address, name, namespace, reference))
    _write(output, {"relayminer.yaml": [migration.relay_miner], "suppliers.yaml": suppliers, _SECRETS: secrets})
    click.echo(report(migration))
    for problem in loaded.problems:
        click.echo(f"\nKey ignored: {problem}")
    click.echo(f"\nWritten to {output}: relayminer.yaml, suppliers.yaml ({len(suppliers)} suppliers)", nl=False)
    click.echo(", secrets.yaml (keep it out of Git)." if secrets else ".")
    if not suppliers:
        click.echo("No key was found: set --keys-file, --keys-dir or --keyring, or write the Suppliers yourself.")
    click.echo(f"Check it with: relayctl config validate {output}")
