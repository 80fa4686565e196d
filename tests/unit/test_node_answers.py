"""One node of several answers wrongly: the others are asked, and nothing wrong is kept."""

import contextlib
import json

import aiohttp
import pytest

from answers import node
from pocket.chain.comet import CometClient
from pocket.chain.failover import Failover
from pocket.chain.node_health import NodeHealth, NodeHealthTable
from pocket.chain.node_monitor import NodeMonitor
from pocket.errors import ChainUnavailable, FailureClass
from wrong_values import COMMIT, STATUS, WRONG, changed, paths_in

RIGHT = (12, b"\xab" * 32)


@contextlib.asynccontextmanager
async def wrong_and_right(results):
    """Run a node with these results by method, which may change, and one with the right ones."""
    right = {"status": STATUS, "commit": COMMIT}
    async with rpc_node(results) as bad, rpc_node(right) as good, aiohttp.ClientSession() as http:
        yield lambda: CometClient([bad, good], http, 5.0, chain_id="pocket")  # a new one asks the wrong node first


def rpc_node(results):
    return node(lambda method, _: [json.dumps({"result": results[method]}).encode()])


@pytest.mark.parametrize("path", [*paths_in(STATUS)], ids=".".join)
async def test_a_wrong_field_of_a_status_is_read_from_the_next_node(path):
    results = {}
    async with wrong_and_right(results) as new_client:
        for value in WRONG:
            results["status"] = changed(STATUS, path, value)
            block = await new_client().block()
            assert (block.height, block.hash) in (RIGHT, (7, RIGHT[1])), value
            assert block.height == 12 or value == 7, "a whole number is a height"


@pytest.mark.parametrize("path", [*paths_in(COMMIT)], ids=".".join)
async def test_a_wrong_field_of_a_commit_is_read_from_the_next_node(path):
    results = {}
    async with wrong_and_right(results) as new_client:
        for value in WRONG:
            results["commit"] = changed(COMMIT, path, value)
            block = await new_client().block(12)
            assert (block.height, block.hash) == RIGHT, value


async def test_an_answer_that_raises_any_error_is_a_failure_of_that_node_alone():
    async def ask(name):
        if name == "bad":
            raise ArithmeticError("of a value that no one thought of")
        return name

    nodes = Failover(["bad", "good"], lambda: 0.0)
    assert await nodes.call("query", ask, 5) == "good"
    assert nodes.order() == [1, 0], "the bad node is asked last"
    with pytest.raises(ChainUnavailable, match="ArithmeticError") as caught:
        await Failover(["bad"]).call("query", ask, 5)
    assert caught.value.failure is FailureClass.TRANSIENT
    assert isinstance((await nodes.ask_all(ask, 5))["node 1"], ChainUnavailable)


@pytest.mark.parametrize("value", WRONG)
async def test_a_monitor_goes_on_with_a_node_that_answers_wrongly(value):
    status = changed(STATUS, ("sync_info", "latest_block_time"), value)
    results = {"status": status}
    async with rpc_node(results) as bad, rpc_node(results) as other, aiohttp.ClientSession() as http:
        health = NodeHealthTable(2)
        async with NodeMonitor([bad, other], http, "pocket", health, timeout_seconds=0.5) as monitor:
            await monitor.probe_all()
        assert {row.health for row in health.assessments} == {NodeHealth.UNREACHABLE}
