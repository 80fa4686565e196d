"""Nodes of a busy chain: answers of megabytes, which come in many packets, and nodes that keep less than others."""

import json
from pathlib import Path

import aiohttp
import pytest

from answers import everything, node, results_text, settled_row
from pocket.api.manifests import load_manifests
from pocket.chain.comet import CometClient
from pocket.chain.model import NodeRetention
from pocket.errors import ChainUnavailable, FailureClass
from relayctl.config_checks import check_keeping

TRIAL = Path(__file__).resolve().parents[2] / "manifests/samples/trial"


def refused(text):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "Internal error", "data": text}})


def told(result):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


PRUNED = refused("height 5 is not available, lowest height is 100").encode()


async def test_ten_thousand_settlements_are_read_as_they_come():
    def answer(method, params):
        assert (method, params) == ("block_results", {"height": "5"})
        return results_text(5, (settled_row("alice" if n % 1000 == 7 else "others", n) for n in range(10_000)))

    async with node(answer) as address, aiohttp.ClientSession() as http:
        comet = CometClient([address], http)
        found = await comet.end_events(5, lambda e: e.attributes["supplier_operator_address"] == "alice")
    assert [int(event.attributes["session_id"], 16) for event in found] == list(range(7, 10_000, 1000))


async def test_an_answer_in_many_packets_is_read_whole():
    commit = {
        "signed_header": {
            "header": {"height": "5", "time": "2026-01-01T00:00:00Z"},
            "commit": {"block_id": {"hash": "AB" * 32}, "signatures": ["x" * 200] * 1000},
        }
    }
    body = told(commit)
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    async with node(lambda method, params: pieces) as address, aiohttp.ClientSession() as http:
        block = await CometClient([address], http).block(5)
    assert (block.height, block.hash) == (5, b"\xab" * 32)


async def test_a_small_answer_that_grows_without_end_is_refused():
    pieces = [b'{"result":"', *[b"x" * 65_536] * 20]
    async with node(lambda method, params: pieces) as address, aiohttp.ClientSession() as http:
        with pytest.raises(ChainUnavailable, match="too large"):
            await CometClient([address], http).block(5)


@pytest.mark.parametrize("body", [b"", b"<html>", told(None), told({"height": "5"})])
async def test_what_is_no_answer_is_unavailable_and_never_an_empty_block(body):
    async with node(lambda method, params: [body]) as address, aiohttp.ClientSession() as http:
        with pytest.raises(ChainUnavailable):
            await CometClient([address], http).end_events(5, everything)


async def test_a_node_that_keeps_more_is_asked_after_one_that_refuses():
    async with (
        node(lambda method, params: [PRUNED]) as pruned,
        node(lambda method, params: results_text(5, [settled_row("alice", 1)])) as archive,
        aiohttp.ClientSession() as http,
    ):
        comet = CometClient([pruned, archive], http)
        assert len(await comet.end_events(5, everything)) == 1
        assert comet._nodes.order() == [0, 1], "it answers: nothing is wrong with it"
        with pytest.raises(ChainUnavailable, match="lowest height is 100") as caught:
            await CometClient([pruned, pruned], http).end_events(5, everything)
        assert caught.value.failure is FailureClass.PRUNED_NODE


async def test_a_node_tells_what_it_keeps():
    status = {
        "node_info": {"network": "pocket", "other": {"tx_index": "off"}},
        "sync_info": {"latest_block_height": "400", "earliest_block_height": "100"},
    }

    def answer(method, params):
        return [told(status) if method == "status" else PRUNED]

    async with node(answer) as address, aiohttp.ClientSession() as http:
        keeping = await CometClient([address], http).retention()
    assert keeping == NodeRetention(100, 400, transactions=False, events=False)
    miner = load_manifests([TRIAL / "relayminer.yaml"]).relay_miners[0]
    texts = [str(finding) for finding in check_keeping(miner, "node:9090", keeping)]
    assert [text.split(" keeps ")[1].split(":")[0] for text in texts] == [
        'no transaction index (tx_index = "kv")',
        "no events of past blocks (discard_abci_responses = false)",
        "the last 300 blocks only",
    ]
    assert check_keeping(miner, "node:9090", NodeRetention(1, 3, transactions=True)) == []


@pytest.mark.parametrize(("earliest", "latest", "asked"), [(100, 400, 399), (400, 400, 400), (None, 1, 1)])
async def test_whether_a_node_retains_events_shows_at_the_last_block_but_one_that_it_has(earliest, latest, asked):
    """Of its latest block a node may not have the events yet. Before its earliest one every node has none."""
    sync, heights = {"latest_block_height": str(latest), "earliest_block_height": earliest}, []

    def answer(method, params):
        if method == "status":
            return [told({"node_info": {"network": "pocket"}, "sync_info": sync})]
        heights.append(int(params["height"]))
        return results_text(asked, [])

    async with node(answer) as address, aiohttp.ClientSession() as http:
        keeping = await CometClient([address], http).retention()
    assert (keeping, heights) == (NodeRetention(earliest or 1, latest, transactions=True), [asked])


async def test_it_is_no_refusal_where_a_node_that_may_keep_more_is_away():
    async with node(lambda method, params: [PRUNED]) as pruned, aiohttp.ClientSession() as http:
        away = CometClient([pruned, type(pruned).parse("127.0.0.1:1", "http://127.0.0.1:1")], http)
        with pytest.raises(ChainUnavailable, match="lowest height is 100") as caught:
            await away.end_events(5, everything)
        assert caught.value.failure is FailureClass.TRANSIENT
