"""The commands `relayctl config`: check resources before they are applied."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import click

from pocket.api.base import ManifestError
from pocket.api.manifests import Manifests, load_manifests
from pocket.api.relayminer import RelayMiner
from pocket.api.supplier import Supplier
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain.node_health import NodeAssessment, NodeHealthTable
from pocket.chain.node_monitor import NodeMonitor
from pocket.errors import ChainError, NotFound, system_reason
from pocket.runtime.http_sessions import http_session
from pocket.runtime.public_urls import PORTS
from relayctl.config_checks import (
    ConfigIssue,
    Level,
    check_account,
    check_keeping,
    check_nodes,
    check_references,
    check_stake,
    check_terms,
)
from relayctl.render_command import render


@click.group()
def config() -> None:
    """Check RelayMiners and Suppliers before they are applied."""


config.add_command(render)


@config.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--check-chain", is_flag=True, help="Query stakes from the chain, and connect to every backend.")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 300), default=5.0, show_default=True, help="Deadline of a query, seconds."
)
def validate(files: tuple[Path, ...], check_chain: bool, timeout: float) -> None:
    """Check FILES or folders. The API server and workloads check alike.

    The exit code is 1 if there is an error.
    """
    try:
        manifests = load_manifests(files)
    except ManifestError as error:
        raise click.ClickException(str(error)) from None
    if not manifests.relay_miners and not manifests.suppliers:
        raise click.ClickException("these files hold neither a RelayMiner nor a Supplier: name files that do")
    issues = check_references(manifests)
    if check_chain:
        issues += asyncio.run(_ask(manifests, timeout))
    for issue in issues:
        click.echo(str(issue))
    wrong = sum(issue.level is Level.ERROR for issue in issues)
    counted = f"{len(manifests.relay_miners)} RelayMiners and {len(manifests.suppliers)} Suppliers"
    click.echo(f"{counted}: {wrong} errors, {len(issues) - wrong} notes.")
    sys.exit(1 if wrong else 0)


async def _ask(manifests: Manifests, seconds: float) -> list[ConfigIssue]:
    issues: list[ConfigIssue] = []
    for miner in manifests.relay_miners:
        issues += await _ask_chain(miner, manifests, seconds)
        endpoints = [
            (f"RelayMiner {miner.metadata.name}, service {service.id}, {kind}", url)
            for service in miner.spec.services
            for kind, backend in service.backends.by_type().items()
            for url in backend.endpoints
        ]
        answers = await asyncio.gather(*(_reach(where, url, seconds) for where, url in endpoints))
        issues += [issue for issue in answers if issue is not None]
    return issues


async def _ask_chain(miner: RelayMiner, manifests: Manifests, seconds: float) -> Iterable[ConfigIssue]:
    where = f"RelayMiner {miner.metadata.name}"
    issues: list[ConfigIssue] = []
    nodes = [NodeAddress.parse(node.grpc, node.rpc) for node in miner.spec.chain.nodes]
    node_health = NodeHealthTable(len(nodes))
    assessments: dict[str, NodeAssessment] = {}
    async with (
        http_session() as http,
        ChainClient(nodes, seconds, node_health) as chain,
        NodeMonitor(
            nodes,
            http,
            miner.spec.chain.id,
            node_health,
            timeout_seconds=seconds,
            on_assessment=assessments.__setitem__,
        ) as watch,
    ):
        try:
            await watch.probe_all()
            issues += check_nodes(miner, assessments)
            present = await chain.chain_id()
            if present != miner.spec.chain.id:
                return [ConfigIssue(Level.ERROR, where, f"the nodes serve chain {present}, not {miner.spec.chain.id}")]
            network = miner.spec.chain.id
            block = await CometClient(nodes, http, seconds, node_health=node_health, chain_id=network).block()
            issues += check_terms(miner, await chain.minimum_gas_price(), block.time.nanoseconds, time.time_ns())
            for node in nodes:
                with contextlib.suppress(ChainError):  # the node health check reports nodes that do not answer
                    keeping = await CometClient([node], http, seconds, chain_id=network).retention()
                    issues += check_keeping(miner, node.name, keeping)
            for supplier in manifests.suppliers:
                if supplier.spec.relay_miner_ref.name == miner.metadata.name:
                    issues += await _ask_supplier(chain, miner, supplier)
        except ChainError as error:
            issues.append(ConfigIssue(Level.ERROR, where, f"no chain node answers: {error}"))
    return issues


async def _ask_supplier(chain: ChainClient, miner: RelayMiner, supplier: Supplier) -> list[ConfigIssue]:
    address = supplier.spec.operator_address
    try:
        staked = await chain.supplier(address)
    except NotFound:
        return check_stake(supplier, miner, None)
    account = await chain.account(address)
    return check_stake(supplier, miner, staked) + check_account(
        supplier, await chain.balance_upokt(address), await chain.supplier_min_stake_upokt(), staked,
        public_key=account.public_key is not None,
    )  # fmt: skip


async def _reach(where: str, url: str, seconds: float) -> ConfigIssue | None:
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or PORTS[parts.scheme])
    except (OSError, TimeoutError) as error:
        return ConfigIssue(Level.ERROR, where, f"{url} cannot be reached: {system_reason(error)}")
    writer.close()
    return None
