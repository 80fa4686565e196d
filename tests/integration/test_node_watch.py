"""Several chain nodes: one that lags, strayed or is of another chain is found out and not asked."""

import asyncio
import contextlib
import random
import re
from pathlib import Path

import aiohttp
import pytest
import yaml
from click.testing import CliRunner

from direct import latest_over_grpc
from pocket.chain.block_feed import BlockFeed
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain.node_health import NodeAssessment, NodeHealth, NodeHealthTable
from pocket.chain.node_monitor import NodeMonitor
from pocket.errors import ChainUnavailable
from pocket_localnet.genesis import load_genesis
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from relayctl.main import main
from world import World

# The hash of a localnet's block follows from its genesis and steps alone: two of the same are two nodes of one chain.
NODES = {
    "stale": {}, "strayed": {"time": 1}, "foreign": {"chain_id": "other"}, "good": {}, "better": {},
}  # fmt: skip
HEIGHTS = {"stale": 3, "strayed": 30, "foreign": 30, "good": 10, "better": 12}


class Nodes:
    """The running nodes with both clients over all of them, and their watch."""

    def __init__(self, localnets, http):
        self.localnets = localnets
        self.addresses = [NodeAddress.parse(net.grpc_url, net.rpc_url) for net in localnets.values()]
        self.node_health = NodeHealthTable(len(localnets))
        self.chain = ChainClient(self.addresses, 2.0, self.node_health)
        self.comet = CometClient(self.addresses, http, 2.0, 1.0, self.node_health)
        self.assessed = {}
        self.watch = NodeMonitor(
            self.addresses,
            http,
            "pocket",
            self.node_health,
            timeout_seconds=2.0,
            on_assessment=self.assessed.__setitem__,
        )

    def by_name(self):
        return dict(zip(self.localnets, (v.health for v in self.node_health.assessments), strict=True))


@contextlib.asynccontextmanager
async def running(*names):
    async with contextlib.AsyncExitStack() as stack:
        localnets = {}
        for name in names:
            net = await stack.enter_async_context(serve(LocalChain(World().genesis(**NODES[name]))))
            while net.chain.height < HEIGHTS[name]:
                net.step()
            localnets[name] = net
        nodes = Nodes(localnets, await stack.enter_async_context(aiohttp.ClientSession()))
        await stack.enter_async_context(nodes.chain)
        await stack.enter_async_context(nodes.watch)
        yield nodes


async def test_stale_strayed_and_foreign_nodes_are_found_out_and_queries_go_to_the_others():
    async with running("stale", "strayed", "foreign", "good", "better") as nodes:
        assert await latest_over_grpc(nodes.chain) == 3
        await nodes.watch.probe_all()
        assert nodes.by_name() == {
            "stale": NodeHealth.LAGGING, "strayed": NodeHealth.FORKED, "foreign": NodeHealth.WRONG_CHAIN,
            "good": NodeHealth.HEALTHY, "better": NodeHealth.HEALTHY,
        }  # fmt: skip
        assert await latest_over_grpc(nodes.chain) == 10
        assert (await nodes.comet.block()).height == 10
        assert set(nodes.assessed) == {address.name for address in nodes.addresses}
        assert nodes.assessed[nodes.addresses[0].name].lag == 9


async def test_a_node_whose_two_interfaces_serve_different_chains_is_not_used():
    """Its RPC is that of a foreign node 18 blocks ahead, by which the others would seem to lag."""
    async with running("good", "better", "foreign") as nodes, aiohttp.ClientSession() as http:
        good, better, foreign = nodes.addresses
        mixed, health = NodeAddress(good.grpc, foreign.rpc), NodeHealthTable(3)
        async with NodeMonitor([good, better, mixed], http, "pocket", health, timeout_seconds=2.0) as watch:
            await watch.probe_all()
        found = [row.health for row in health.assessments]
        assert found == [NodeHealth.HEALTHY, NodeHealth.HEALTHY, NodeHealth.WRONG_CHAIN]


async def test_what_a_foreign_node_retains_is_not_reported_as_that_of_the_chain():
    async with running("foreign") as nodes, aiohttp.ClientSession() as http:
        with pytest.raises(ChainUnavailable, match="on chain 'other'"):
            await CometClient(nodes.addresses, http, 2.0, chain_id="pocket").retention()


async def test_a_node_that_caught_up_is_asked_first_again():
    async with running("stale", "better") as nodes:
        await nodes.watch.probe_all()
        assert await latest_over_grpc(nodes.chain) == 12
        while nodes.localnets["stale"].chain.height < 13:
            nodes.localnets["stale"].step()
        await nodes.watch.probe_all()
        assert nodes.by_name() == {"stale": NodeHealth.HEALTHY, "better": NodeHealth.HEALTHY}
        assert await latest_over_grpc(nodes.chain) == 13


async def test_two_nodes_that_contradict_each_other_are_both_kept_and_said_to_be_in_dispute(captured_logs):
    async with running("strayed", "better") as nodes:
        await nodes.watch.probe_all()
        assert set(nodes.by_name().values()) == {NodeHealth.DISPUTED}
        assert await latest_over_grpc(nodes.chain) == 30
        assert "the nodes are split" in str(captured_logs)


async def test_silent_nodes_are_asked_last_and_one_node_alone_is_never_judged():
    async with running("good") as nodes:
        await nodes.watch.run(0.0)
        assert nodes.assessed == {}
    dead = NodeAddress.parse("127.0.0.1:1", "http://127.0.0.1:1")
    node_health = NodeHealthTable(2)
    async with (
        aiohttp.ClientSession() as http,
        NodeMonitor([dead, dead], http, "pocket", node_health, timeout_seconds=0.2) as watch,
    ):
        await watch.probe_all()
    assert {v.health for v in node_health.assessments} == {NodeHealth.UNREACHABLE}


async def test_the_block_feed_leaves_a_node_that_fell_behind_though_its_connection_lives():
    async with running("good", "better") as nodes:
        seen, first, beyond = [], asyncio.Event(), asyncio.Event()

        async def on_block(block):
            seen.append(block.height)
            first.set()
            if block.height > 12:
                beyond.set()

        feed = BlockFeed(nodes.comet, on_block, poll_seconds=0.05, rng=random.Random(1))
        following = asyncio.create_task(feed.run())
        await first.wait()
        for _ in range(8):  # the first node stands still from now on
            nodes.localnets["better"].step()
        await nodes.watch.probe_all()
        async with asyncio.timeout(30):
            await beyond.wait()
        following.cancel()
        assert seen == sorted(set(seen))
        assert nodes.by_name() == {"good": NodeHealth.LAGGING, "better": NodeHealth.HEALTHY}


TRIAL = Path(__file__).resolve().parents[2] / "manifests/samples/trial"


async def checked(folder, first, second, backend):
    """Run `relayctl config validate --check-chain` for the trial with two nodes and return its output."""
    text = (TRIAL / "relayminer.yaml").read_text()
    nodes = [{"grpc": net.grpc_url, "rpc": net.rpc_url} for net in (first, second)]
    miner = yaml.safe_load(re.sub("backend:[0-9]+", f"127.0.0.1:{backend}", text))
    miner["spec"]["chain"] |= {"nodes": nodes, "gasPrice": "0.001upokt"}
    (folder / "relayminer.yaml").write_text(yaml.safe_dump(miner))
    files = [str(folder / "relayminer.yaml"), str(TRIAL / "suppliers.yaml")]
    command = ["config", "validate", *files, "--check-chain", "--timeout", "2"]
    return await asyncio.to_thread(CliRunner().invoke, main, command)


async def test_a_configuration_is_checked_with_the_chain_before_it_is_applied(tmp_path):
    genesis = load_genesis(TRIAL / "genesis.yaml")
    backend = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = backend.sockets[0].getsockname()[1]
    costly = genesis.model_copy(update={"minimum_gas_price": "0.002upokt"})
    stranger = genesis.model_copy(update={"chain_id": "other"})
    chain, strange = LocalChain(genesis), LocalChain(stranger)
    async with (
        backend,
        serve(chain) as one,
        serve(chain) as twin,
        serve(LocalChain(costly)) as dear,
        serve(strange) as other,
        serve(strange) as stranger_twin,
    ):
        for net in (one, dear, other):
            net.step()  # the very first block has no time
        good = await checked(tmp_path, one, twin, port)
        assert (good.exit_code, "0 errors, 0 notes" in good.output) == (0, True), good.output
        bad = await checked(tmp_path, dear, other, port)
        assert bad.exit_code == 1
        assert "it is on chain 'other', not on 'pocket'" in bad.output
        assert "rejects transactions below 0.002upokt a gas" in bad.output
        alone = await checked(tmp_path, other, stranger_twin, port)
        assert "every chain node is on another fork or chain" in alone.output


async def test_announcements_without_any_usable_node_say_so():
    async with running("foreign") as nodes:
        nodes.node_health.assessments = (NodeAssessment(NodeHealth.WRONG_CHAIN),)
        with pytest.raises(ChainUnavailable, match="another fork or chain"):
            await anext(nodes.comet.heights())
