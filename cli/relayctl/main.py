"""Define the command line `relayctl`.

It covers the demo, the localnet, relays, keys, configuration and migration.
"""

import asyncio
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import click

from pocket.errors import PocketError
from pocket.runtime import logs
from pocket.runtime.port_options import PORT_OR_FREE
from pocket.runtime.version import COMMIT, VERSION
from pocket_console.commands import console, top
from pocket_miner.console.inspect_commands import cache_group, inspect_group
from pocket_miner.console.ledger_commands import ledger
from pocket_signer.signer_commands import signer
from relayctl.config_commands import config
from relayctl.demo import DemoOptions, run_demo
from relayctl.entry_point import run_in_words
from relayctl.k8s.plugin import k8s
from relayctl.key_commands import keys
from relayctl.local_redis import Topology
from relayctl.migrating.migrate_commands import migrate
from relayctl.option_types import account_address
from relayctl.probe import probe
from relayctl.redis_commands import redis_group
from relayctl.session_commands import show_session
from relayctl.stake_commands import stake


def _samples() -> Path:
    return Path(__file__).resolve().parents[2] / "manifests/samples/trial"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message=f"relayctl %(version)s, commit {COMMIT}")
def main() -> None:
    """Operate and test Pocket relay mining."""


@main.command()
def version() -> None:
    """Print the version, the commit and the runtime."""
    click.echo(f"relayctl {VERSION}, commit {COMMIT}, Python {platform.python_version()}")


@main.command()
@click.option(
    "--samples", type=click.Path(path_type=Path, exists=True), default=_samples, help="Folder of the manifests."
)
@click.option("--sessions", type=click.IntRange(1, 100), default=2, show_default=True, help="Sessions with traffic.")
@click.option("--rate", type=click.FloatRange(0.1, 1000), default=40.0, show_default=True, help="Relays per second.")
@click.option("--keep", is_flag=True, help="Leave everything running afterwards and print the URLs.")
@click.option("--chaos", type=int, help="Kill relayer, miner and Redis at random moments. The value is the seed.")
@click.option("--corrupt", type=click.Choice(["gateway-signature"]), help="Inject a fault that must be detected.")
@click.option(
    "--miners",
    type=click.IntRange(1, 9),
    default=1,
    show_default=True,
    help="Number of miners, which share the suppliers.",
)
@click.option("--lose-redis", is_flag=True, help="With --chaos: a killed Redis comes back empty.")
@click.option(
    "--redis",
    type=click.Choice([topology.value for topology in Topology]),
    default=Topology.SINGLE.value,
    show_default=True,
    help="One Redis, a primary with Sentinels, or a Cluster of three primaries with replicas.",
)
def demo(
    samples: Path,
    sessions: int,
    rate: float,
    keep: bool,
    chaos: int | None,
    corrupt: str | None,
    miners: int,
    lose_redis: bool,
    redis: str,
) -> None:
    """Run all parts on this machine. Send real relays and check the earnings."""
    folder = Path(tempfile.mkdtemp(prefix="pocket-demo-"))
    options = DemoOptions(
        samples, folder, sessions, rate, keep, chaos, corrupt or "", lose_redis, miners, Topology(redis)
    )
    sys.exit(run_demo(options, lambda path: shutil.rmtree(path, ignore_errors=True)))


main.add_command(ledger)
main.add_command(console)
main.add_command(top)
main.add_command(keys)
main.add_command(config)
main.add_command(stake)
main.add_command(signer)
main.add_command(migrate)
main.add_command(inspect_group)
main.add_command(cache_group)
main.add_command(k8s)
main.add_command(redis_group)


@main.group()
def localnet() -> None:
    """Run a small, faithful chain on this machine."""


@localnet.command()
@click.option("--genesis", type=click.Path(path_type=Path), default=lambda: _samples() / "genesis.yaml",
              help="Genesis of the chain. Default: the trial's")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--grpc-port", type=PORT_OR_FREE, default=9090, show_default=True, help="0: any free port")
@click.option("--rpc-port", type=PORT_OR_FREE, default=26657, show_default=True, help="0: any free port")
@click.option("--step", is_flag=True, help="Commit blocks only on request: POST /localnet/step?blocks=N")
@click.option("--block-seconds", type=click.FloatRange(0), help="0 = as fast as possible. Default: the genesis'.")
def up(genesis: Path, host: str, grpc_port: int, rpc_port: int, step: bool, block_seconds: float | None) -> None:
    """Run the chain until Ctrl-C."""
    arguments = ["--host", host, "chain", "--genesis", str(genesis), "--grpc-port", str(grpc_port)]
    arguments += ["--rpc-port", str(rpc_port), *(["--step"] if step else [])]
    arguments += [] if block_seconds is None else ["--block-seconds", str(block_seconds)]
    os.execv(sys.executable, [sys.executable, "-m", "pocket_localnet", *arguments])  # noqa: S606 - our own program


@main.group()
def relay() -> None:
    """Sign and send relays to any relayer on any chain."""


relay.add_command(probe)
relay.add_command(show_session)


def _relay_options(command: click.decorators.FC) -> click.decorators.FC:
    for option in (  # the decorator applied last is listed first
        click.option("--url", required=True, help="The relayer, http://host:port"),
        click.option("--grpc", "node_grpc", required=True, help="A chain node, grpc://host:port"),
        click.option("--rpc", "node_rpc", default="http://127.0.0.1:26657", show_default=True,
                     help="CometBFT RPC of the chain node"),
        click.option("--app", required=True, callback=account_address, help="Application address"),
        click.option("--service", required=True, help="Service id"),
        click.option("--supplier", callback=account_address,
                     help="Supplier operator address. Default: all of the session's"),
        click.option("--key-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
                     help="File with the hex key of the application or gateway"),
        click.option("--method", default="eth_blockNumber", show_default=True, help="JSON-RPC method"),
        click.option("--path", "rest_path", help="Send a REST read of this path instead of JSON-RPC"),
        click.option("--over", type=click.Choice(["http", "grpc", "websocket"]), default="http", show_default=True,
                     help="Transport to the relayer. HTTP streams are shown as one body"),
        click.option("--timeout", type=click.FloatRange(0.1, 3600), default=30.0, show_default=True),
    )[::-1]:  # fmt: skip
        command = option(command)
    return command


@relay.command()
@_relay_options
def send(**options: object) -> None:
    """Send one relay and show the verified response."""
    _run_load(options, count=1, concurrency=1, rate=0.0, show=True)


@relay.command()
@_relay_options
@click.option("-n", "--count", type=click.IntRange(1, 1_000_000), default=100, show_default=True)
@click.option("--concurrency", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--rps", type=click.FloatRange(0, 10_000), default=0.0, help="0 = as fast as possible")
def load(count: int, concurrency: int, rps: float, **options: object) -> None:
    """Send many individually signed relays and show latencies."""
    _run_load(options, count=count, concurrency=concurrency, rate=rps, show=False)


def _run_load(options: dict[str, object], *, count: int, concurrency: int, rate: float, show: bool) -> None:
    from relayctl.load import LoadOptions, run_load  # noqa: PLC0415 - keeps `relayctl --help` fast

    try:
        code = asyncio.run(run_load(LoadOptions.of(options), count, concurrency, rate, show=show))
    except PocketError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(code)


def run() -> None:
    """Run the command line.

    Warnings go to standard error, since the output belongs to the result.
    """
    logs.configure("relayctl", os.environ.get("LOG_LEVEL", "WARNING"))
    run_in_words(main)


if __name__ == "__main__":
    run()
