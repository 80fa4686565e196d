"""Define `relayctl config render`.

It writes what relayer and miner read, for a machine without Kubernetes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pocket.api.base import ManifestError
from pocket.api.manifests import Manifests, load_manifests
from pocket.api.relayminer import RelayMiner
from pocket.api.workload import config_text
from pocket.errors import ConfigurationError
from pocket_operator.resources.workload_config import (
    RuntimePaths,
    miner_config,
    relayer_config,
    reloadable_config,
    suppliers_of,
)
from relayctl.key_files import write_private
from relayctl.local_stack import write_keys

REDIS_VARIABLE = "POCKET_REDIS_URL"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the processes find files, and the addresses they listen on."""

    root: Path
    data: Path
    host: str
    admin_host: str


def render_files(relay_miner: RelayMiner, manifests: Manifests, machine: Machine) -> dict[str, str]:
    """Return relayer.json, hot.json and miner.json by name.

    The Redis URL is in the environment, because it may hold a password.
    """

    def paths(folder: str, admin_port: int) -> RuntimePaths:
        return RuntimePaths(
            redis_url=f"env:{REDIS_VARIABLE}",
            keys_dir=machine.root / "keys",
            data_dir=machine.data / folder,
            hot_file=machine.root / "hot.json",
            secrets_dir=machine.root / "secrets",
            signer_dir=machine.root / "signer",
            host=machine.host,
            admin_host=machine.admin_host,
            admin_port=admin_port,
        )

    hot = reloadable_config(relay_miner, suppliers_of(relay_miner, manifests.suppliers))
    return {
        "hot.json": config_text(hot),
        "relayer.json": config_text(relayer_config(relay_miner, paths("relayer", 9090))),
        "miner.json": config_text(miner_config(relay_miner, paths("miner", 9091))),
    }


def chosen_relay_miner(manifests: Manifests, name: str | None) -> RelayMiner:
    """Return the named RelayMiner, or the only one. Raises ConfigurationError."""
    if not manifests.relay_miners:
        raise ConfigurationError("these files hold no RelayMiner: name files that do")
    chosen = [row for row in manifests.relay_miners if name in (None, row.metadata.name)]
    if len(chosen) != 1:
        names = ", ".join(row.metadata.name for row in manifests.relay_miners)
        raise ConfigurationError(f"choose one RelayMiner with --name, the files have: {names}")
    return chosen[0]


def write_secrets(folder: Path, relay_miner: RelayMiner, manifests: Manifests) -> None:
    """Write the Secrets of backends as folders of files for their owner alone.

    Raises ConfigurationError.
    """
    for service in relay_miner.spec.services:
        for backend in service.backends.by_type().values():
            if backend.auth is None:
                continue
            name = backend.auth.secret_ref.name
            entries = manifests.secrets.get(name)
            if entries is None:
                raise ConfigurationError(f"service {service.id}: Secret {name} is not among the files")
            for entry, value in entries.items():
                write_private(folder / name / entry, value)


def write_signer_files(folder: Path, relay_miner: RelayMiner, manifests: Manifests) -> None:
    """Write the client certificate for the remote signer. Raises ConfigurationError."""
    signer = relay_miner.spec.signer
    if signer is None or signer.tls_secret_ref is None:
        return
    name = signer.tls_secret_ref.name
    entries = manifests.secrets.get(name, {})
    if missing := {"tls.crt", "tls.key", "ca.crt"} - set(entries):
        raise ConfigurationError(f"spec.signer: Secret {name} among the files lacks {', '.join(sorted(missing))}")
    for entry, value in entries.items():
        write_private(folder / entry, value)


@click.command("render")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write")
@click.option("--name", help="Name of the RelayMiner. Default: the only one")
@click.option("--root", type=click.Path(path_type=Path), default="/etc/pocket", show_default=True,
              help="Where the processes find the output")  # fmt: skip
@click.option("--data", type=click.Path(path_type=Path), default="/var/lib/pocket", show_default=True,
              help="Folder of the processes' data")  # fmt: skip
@click.option("--host", default="0.0.0.0", show_default=True, help="Address of the relay port")
@click.option("--admin-host", default="127.0.0.1", show_default=True,
              help="Address of the admin ports, which have no password: the loopback or a private one")  # fmt: skip
def render(files: tuple[Path, ...], output: Path, name: str | None, **machine: Any) -> None:
    """Write the files of relayer and miner without Kubernetes.

    They are for docker compose or systemd (docs/standalone.md). FILES are the resources and Secrets. Running processes
    apply changes of hot.json, keys and secrets without restart.
    """
    try:
        manifests = load_manifests(files)
        relay_miner = chosen_relay_miner(manifests, name)
        own = [row for row in manifests.suppliers if row.spec.relay_miner_ref.name == relay_miner.metadata.name]
        output.mkdir(parents=True, exist_ok=True)
        write_keys(output / "keys", Manifests(manifests.relay_miners, tuple(own), manifests.secrets))
        write_secrets(output / "secrets", relay_miner, manifests)
        write_signer_files(output / "signer", relay_miner, manifests)
        for file, text in render_files(relay_miner, manifests, Machine(**machine)).items():
            write_private(output / file, text)
    except (ManifestError, ConfigurationError) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or output}: {error.strerror}") from None
    served = {row.spec.operator_address for row in own}
    for path in sorted((output / "keys").glob("pokt1*")):
        if path.name not in served:
            click.echo(f"{path} belongs to no Supplier of these files. It is still served: delete it to drain it")
    click.echo(f"{len(own)} suppliers in {output}. Set {REDIS_VARIABLE} for relayer and miner")
