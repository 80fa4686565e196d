"""Simulated nodes are held to a localnet that is asked over sockets: the same clients get the same answers."""

import asyncio
import random
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import pytest
from simulated.http import Http, Ports
from simulated.loop import PROCESS
from simulated.network import Network
from simulated.nodes import Channel, Node
from simulated.plan import Fault, Kind

from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.errors import ChainError
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from world import World, address

WORLD = World()
QUESTIONS = {
    "its chain": lambda client, _: client.chain_id(),
    "params": lambda client, _: client.shared_params(5),
    "params of a height to come": lambda client, _: client.shared_params(500),
    "a session": lambda client, _: client.session(WORLD.application("eth"), "eth", 5),
    "a session of nobody": lambda client, _: client.session(address("nobody"), "eth", 5),
    "a supplier": lambda client, _: client.supplier(address("alice")),
    "no supplier": lambda client, _: client.supplier(address("nobody")),
    "an account": lambda client, _: client.account(address("alice")),
    "proof params as of a height": lambda client, _: client.proof_params(3),
    "proof params as of a height to come": lambda client, _: client.proof_params(500),
    "claims": lambda client, _: client.claims_of(address("alice"), 3),
    "a claim": lambda client, _: client.claim("none", address("alice")),
    "a transaction that is none": lambda client, _: client.broadcast(b"nonsense"),
    "the latest block": lambda _, comet: comet.block(),
    "a block": lambda _, comet: comet.block(3),
    "a block to come": lambda _, comet: comet.block(500),
    "events": lambda _, comet: comet.end_events(3, lambda event: True),
}


async def told(question, client, comet):
    """Return an answer, or the class, height and text of an error without node addresses."""
    try:
        return await question(client, comet)
    except ChainError as error:
        return type(error).__name__, error.failure, error.height


@asynccontextmanager
async def both():
    """Clients of a localnet over sockets, and of a simulated node over the same chain."""
    chain = LocalChain(WORLD.genesis())
    while chain.height < 6:
        chain.step()
    loop = SimpleNamespace(chance=random.Random(1), note=lambda *_: None, pause=asyncio.sleep)
    network = Network(loop)
    node = Node("node0", chain, network.loop, network, lambda *_: None)
    place = NodeAddress.parse("grpc://node0:9090", "http://node0:26657")
    async with serve(chain) as localnet, aiohttp.ClientSession() as http:
        real = NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)
        made = ChainClient([place], channel=lambda _: Channel(node))
        async with ChainClient([real]) as client:
            yield (
                (client, CometClient([real], http)),
                (made, CometClient([place], Http(network, {"node0": node}, Ports()))),
                network,
            )


@pytest.mark.parametrize("name", QUESTIONS)
async def test_a_simulated_node_answers_as_a_localnet_over_sockets(name):
    async with both() as (real, simulated, _):
        assert await told(QUESTIONS[name], *simulated) == await told(QUESTIONS[name], *real)


@pytest.mark.parametrize("kind", [
    Kind.NODE_DOWN, Kind.NODE_RESTART, Kind.NODE_FAILS, Kind.NODE_DENIES, Kind.NODE_EMPTY, Kind.NODE_GARBAGE,
    Kind.NODE_REPLY_LOST, Kind.NODE_OTHER_CHAIN,
])  # fmt: skip
async def test_a_fault_of_a_node_is_an_error_of_the_client_and_no_answer(kind):
    async with both() as (_, simulated, network):
        network.holding.append(Fault(0, kind, 0.0, 1.0, "node0", 1.0, 1))
        for name in ("params", "a supplier"):
            assert (await told(QUESTIONS[name], *simulated))[0] in ("ChainUnavailable", "Unsupported")
        network.holding.clear()
        assert (await told(QUESTIONS["params"], *simulated)).num_blocks_per_session == 10
        assert PROCESS.get().name == "world"
