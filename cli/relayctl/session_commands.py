"""Define `relayctl relay session`.

It prints all that a client needs to sign for a session, as JSON.
"""

import asyncio
import dataclasses
import json

import click

from pocket.api.services import RPC_NUMBERS
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.chain.ring_queries import query_ring
from pocket.errors import NotFound, PocketError
from relayctl.option_types import account_address

_RPC_NAMES = {number: name for name, number in RPC_NUMBERS.items()}

_UNUSED_RPC = "http://127.0.0.1:26657"  # every query here is over gRPC


async def describe_session(chain: ChainClient, application: str, service: str) -> dict[str, object]:
    """Return the current session's header, ring and suppliers.

    Public keys are compressed and in hex. Raises ChainError.
    """
    session = await chain.session(application, service, 0)
    suppliers: dict[str, object] = {}
    for address in sorted(session.supplier_addresses):
        account = await chain.account(address)
        if account.public_key is None:
            raise NotFound(f"supplier {address} has no public key on chain")
        staked = await chain.supplier(address)
        endpoints = {
            _RPC_NAMES.get(rpc_type, str(rpc_type)): url
            for config in staked.history
            if config.service_id == service
            for rpc_type, url in config.endpoints
        }
        suppliers[address] = {"public_key": account.public_key.hex(), "endpoints": endpoints}
    header = session.header
    ring = await query_ring(chain, header.application_address, header.session_end_block_height)
    return {
        "header": {row.name: getattr(header, row.name) for row in dataclasses.fields(header) if row.init},
        "ring": [key.hex() for key in ring],
        "suppliers": suppliers,
    }


@click.command("session")
@click.option("--grpc", "node", required=True, help="A chain node, grpc://host:port")
@click.option("--app", "application", required=True, callback=account_address, help="Application address")
@click.option("--service", required=True, help="Service id")
def show_session(node: str, application: str, service: str) -> None:
    """Print the current session with its ring and suppliers as JSON."""

    async def run() -> dict[str, object]:
        async with ChainClient([NodeAddress.parse(node, _UNUSED_RPC)]) as chain:
            return await describe_session(chain, application, service)

    try:
        session = asyncio.run(run())
    except PocketError as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(session, indent=2))
