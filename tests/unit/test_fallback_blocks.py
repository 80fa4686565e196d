"""One of a node's two interfaces is enough to follow the chain."""

import aiohttp
import pytest

from pocket.chain.block_feed import BlockFeed
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain.fallback_blocks import FallbackBlocks
from pocket.errors import ChainUnavailable, FailureClass
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from world import World

NOWHERE_RPC, NOWHERE_GRPC = "http://127.0.0.1:1", "grpc://127.0.0.1:1"


@pytest.fixture
async def localnet():
    async with serve(LocalChain(World().genesis())) as net:
        net.step()
        yield net


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


def blocks_of(http, rpc, grpc, client, chain_id="pocket"):
    comet = CometClient([NodeAddress.parse(grpc, rpc)], http, 1.0, chain_id=chain_id)
    return FallbackBlocks(comet, client, chain_id)


@pytest.mark.parametrize("away", ["", "rpc", "grpc"])
async def test_blocks_are_read_over_either_interface(localnet, http, away):
    rpc = NOWHERE_RPC if away == "rpc" else localnet.rpc_url
    grpc = NOWHERE_GRPC if away == "grpc" else localnet.grpc_url
    async with ChainClient([NodeAddress.parse(grpc, rpc)], 1.0) as client:
        blocks = blocks_of(http, rpc, grpc, client)
        known = localnet.chain.blocks[localnet.chain.height]
        for height in (None, known.height):
            block = await blocks.block(height)
            assert (block.height, block.hash) == (known.height, known.hash)


async def test_the_error_of_rpc_is_raised_where_both_are_away(http):
    async with ChainClient([NodeAddress.parse(NOWHERE_GRPC, NOWHERE_RPC)], 1.0) as client:
        with pytest.raises(ChainUnavailable, match=NOWHERE_RPC):
            await blocks_of(http, NOWHERE_RPC, NOWHERE_GRPC, client).block()


async def test_a_block_of_another_chain_is_not_believed(localnet):
    async with ChainClient([NodeAddress.parse(localnet.grpc_url, NOWHERE_RPC)], 1.0) as client:
        with pytest.raises(ChainUnavailable, match="not on 'other'") as caught:
            await client.latest_block("other")
    assert caught.value.failure is FailureClass.WRONG_NODE


async def test_a_feed_goes_on_without_rpc(localnet, http):
    seen = []

    async def on_block(block):
        seen.append(block.height)

    async with ChainClient([NodeAddress.parse(localnet.grpc_url, NOWHERE_RPC)], 1.0) as client:
        feed = BlockFeed(blocks_of(http, NOWHERE_RPC, localnet.grpc_url, client), on_block)
        for _ in range(3):
            assert await feed.refresh()
            localnet.step()
    assert seen == [2, 3, 4]


async def test_an_rpc_that_stays_at_one_block_is_compared_with_grpc(localnet, http):
    now, genesis = [0.0], World().genesis()
    async with serve(LocalChain(genesis)) as cached:
        cached.step()
        addresses = [NodeAddress.parse(localnet.grpc_url, cached.rpc_url)]
        async with ChainClient(addresses, 1.0) as client:
            comet = CometClient(addresses, http, 1.0, chain_id="pocket")
            blocks = FallbackBlocks(comet, client, "pocket", block_seconds=10.0, clock=lambda: now[0])
            heights = []
            for _ in range(4):
                heights.append((await blocks.block()).height)
                localnet.step()
                now[0] += 10.0
            assert heights == [2, 2, 2, 5]
            while cached.chain.height <= localnet.chain.height:
                cached.step()
            assert (await blocks.block()).height == cached.chain.height
