"""One chain of the real node and one stack for all tests of this folder."""

import aiohttp
import pytest

import realchain
from journey import Journey
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from realchain import RealNode
from realstack import prepared

BLOCK_SECONDS = 1.0


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("realchain") and not realchain.REALCHAIN:
            item.add_marker(pytest.mark.skip(reason="REALCHAIN names no program: see docs/realchain.md"))


@pytest.fixture(scope="session")
def real_keys():
    return realchain.keys()


@pytest.fixture(scope="session")
def stack(tmp_path_factory, real_keys):
    with prepared(tmp_path_factory.mktemp("stack"), real_keys, BLOCK_SECONDS) as made:
        yield made


@pytest.fixture(scope="session")
def node(tmp_path_factory, stack):
    """Start the only validator of the chain."""
    made = RealNode.start(tmp_path_factory.mktemp("node"), block_seconds=BLOCK_SECONDS, relayer_url=stack.relayer_url)
    try:
        stack.start(made.address)
        yield made
    finally:
        made.kill()


@pytest.fixture
async def journey(node, stack, real_keys):
    async with aiohttp.ClientSession() as http, ChainClient([node.address]) as chain:
        yield Journey(node, stack, real_keys, chain, CometClient([node.address], http), http)
