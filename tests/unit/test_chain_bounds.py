"""What one chain node's answer means at the bounds of the rules, over connections and clocks of the test."""

import asyncio
import contextlib
import itertools
import json
from types import SimpleNamespace

import aiohttp
import pytest

from chunked_response import ChunkedResponse
from pocket.chain import convert
from pocket.chain.block_feed import BlockFeed
from pocket.chain.broadcast_answers import best_result
from pocket.chain.comet import CometClient
from pocket.chain.failover import Failover, NodeAddress
from pocket.chain.fallback_blocks import FallbackBlocks
from pocket.chain.model import Block, checked_block
from pocket.chain.node_answer import height_of
from pocket.chain.node_health import NodeHealthTable, NodeProbe
from pocket.chain.node_monitor import NodeMonitor
from pocket.errors import ChainUnavailable, DecodingError, FailureClass
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.transactions.build import Timestamp
from virtual_time import in_virtual_time

NODE = NodeAddress.parse("grpc://node:1", "http://node:2")
HASH = "AB" * 32


def block(height):
    return Block(height, bytes(32), Timestamp(0))


@pytest.mark.parametrize("origin", [0.0, 1e6])
async def test_a_node_that_answered_quickly_does_not_raise_the_patience_with_the_next(origin):
    loop = asyncio.get_running_loop()
    begun, silent = loop.time(), []

    async def ask(node):
        if node in silent:
            await asyncio.Event().wait()
        return node

    nodes = Failover(["one", "two"], clock=lambda: origin + loop.time() - begun, names=["one", "two"])
    for _ in range(5):
        assert await nodes.call("query", ask, 100.0, 0.001) == "one"
    silent.append("one")
    async with asyncio.timeout(5):
        assert await nodes.call("query", ask, 100.0, 0.001) == "two"


async def test_the_only_address_is_asked_three_times_while_it_is_silent():
    asked = []

    async def ask(node):
        asked.append(node)
        await asyncio.Event().wait()

    with pytest.raises(ChainUnavailable):
        await Failover(["one"], names=["one"]).call("query", ask, 0.2, 0.05)
    assert len(asked) == 3


def answer(code, codespace="sdk", tx_hash="AA"):
    response = {"txhash": tx_hash, "code": code, "codespace": codespace if code else ""}
    return tx_pb.BroadcastTxResponse(tx_response=response).SerializeToString()


ACCEPTED, KNOWN, REJECTED, ODD, NOTHING = answer(0), answer(19), answer(13), answer(19, "app"), answer(5, tx_hash="")
BEST = [{ACCEPTED}, {KNOWN}, {REJECTED, ODD}]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_best_answer_to_a_transaction_is_accepted_then_known_then_any_refusal_in_any_order(number):
    for rows in itertools.product([ACCEPTED, KNOWN, REJECTED, ODD, NOTHING], repeat=number):
        best = next((kind for kind in BEST if kind & set(rows)), None)
        found = best_result(b"raw", rows)
        codes = None if best is None else {tx_pb.BroadcastTxResponse.FromString(row).tx_response.code for row in best}
        assert (found is None) == (best is None)
        assert found is None or found.code in codes
    for first, later in itertools.product([(), (ACCEPTED,), (KNOWN,), (REJECTED,)], [ACCEPTED, KNOWN, REJECTED]):
        found = best_result(b"raw", first, [later])
        kept = first if first == (REJECTED,) and later == KNOWN else (*first, later)
        assert found == best_result(b"raw", kept)


@pytest.mark.parametrize(
    ("height", "size", "sound"),
    [(1, 32, True), (2**63 - 1, 32, True), (0, 32, False), (2**63, 32, False), (1, 31, False), (1, 33, False)],
)
def test_a_block_has_a_height_of_63_bits_and_a_hash_of_32_bytes(height, size, sound):
    if sound:
        assert checked_block(height, bytes(size), Timestamp(0)).height == height
    else:
        with pytest.raises(DecodingError):
            checked_block(height, bytes(size), Timestamp(0))


@pytest.mark.parametrize(
    ("text", "height"), [("7", 7), (b"7", 7), ("9" * 19, 10**19 - 1), ("9" * 20, 0), ("-1", 0), ("٣", 0), ("", 0)]
)
def test_the_height_of_an_answer_is_a_short_number_or_unknown(text, height):
    assert height_of([("other", "3"), ("X-Cosmos-Block-Height", text)]) == height
    assert height_of(None) == 0


@pytest.mark.parametrize(("addresses", "probed"), [(1, 0), (2, 3), (3, 3)])
async def test_nodes_are_probed_for_ever_where_there_are_several(addresses, probed):
    class Probing(NodeMonitor):
        number = 0

        async def probe_all(self):
            self.number += 1
            if self.number == 3:
                raise InterruptedError

    many = [NodeAddress.parse(f"grpc://n{at}:1", f"http://n{at}:2") for at in range(addresses)]
    async with Probing(many, None, "pocket", NodeHealthTable(addresses)) as monitor:
        with contextlib.suppress(InterruptedError):
            await monitor.run(0.0)
    assert monitor.number == probed


@pytest.mark.parametrize(("addresses", "reads"), [(1, 0), (2, 2)])
async def test_a_single_node_is_compared_with_none(addresses, reads):
    class Counting(NodeMonitor):
        number = 0

        async def _probe(self, client, blocks):
            self.number += 1
            return NodeProbe(problem="away")

    many = [NodeAddress.parse(f"grpc://n{at}:1", f"http://n{at}:2") for at in range(addresses)]
    async with Counting(many, None, "pocket", NodeHealthTable(addresses)) as monitor:
        await monitor.probe_all()
    assert monitor.number == reads


@pytest.mark.parametrize(
    ("probability", "sound"), [(0.0, True), (1.0, True), (-0.01, False), (1.01, False), (2.0, False)]
)
def test_a_proof_is_asked_for_with_a_probability(probability, sound):
    message = proof_pb.Params(proof_request_probability=probability)
    if sound:
        assert convert.proof_params(message).proof_request_probability == probability
    else:
        with pytest.raises(DecodingError):
            convert.proof_params(message)


class Node:
    """A node's RPC: answers by method, and a WebSocket that announces what the test gives."""

    def __init__(self, *frames, **answers):
        self.frames, self.answers, self.sent, self.asked = list(frames), answers, [], []

    def post(self, url, json, headers=None):
        self.asked.append(json)

        async def pieces():
            yield self.answers[json["method"]]

        return ChunkedResponse(pieces())

    def ws_connect(self, url, **_):
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return

    async def send_json(self, request):
        self.sent.append(request)

    async def receive(self, seconds):
        frame = self.frames.pop(0)
        if frame is None:
            raise TimeoutError
        kind = aiohttp.WSMsgType.TEXT if isinstance(frame, str) else aiohttp.WSMsgType.CLOSED
        return SimpleNamespace(type=kind, data=frame)


def announced(height):
    return json.dumps({"result": {"data": {"value": {"header": {"height": str(height)}}}}})


def status(network="pocket", height=9, earliest=1):
    row = {
        "node_info": {"network": network},
        "sync_info": {
            "latest_block_height": str(height), "latest_block_hash": HASH, "latest_block_time": "2026-01-01T00:00:00Z",
            "earliest_block_height": str(earliest),
        },
    }  # fmt: skip
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": row}).encode()


def failed(text):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"data": text}}).encode()


async def heights_of(node, block_seconds=10.0):
    found = []
    try:
        async for height in CometClient([NODE], node, block_seconds=block_seconds).heights():
            found.append(height)
    except ChainUnavailable as error:
        return found, str(error)
    return found, ""


async def test_heights_are_announced_after_a_subscription_until_the_connection_ends():
    node = Node('{"result": {}}', announced(7), announced(8), 7)
    assert await heights_of(node) == ([7, 8], "ws://node:2/websocket: closed")
    (request,) = node.sent
    assert (request["method"], "NewBlockHeader" in request["params"]["query"]) == ("subscribe", True)


@pytest.mark.parametrize("looks", [1, 2, 3])
async def test_a_subscription_is_lost_only_after_the_silence_of_three_blocks(looks):
    """Each look takes a block: 40 seconds, of a silence of 120."""
    node = Node(*[None] * (looks - 1), announced(7), *[None] * (looks - 1), announced(8), *[None] * 9)
    found, error = await heights_of(node, 40.0)
    assert found == [7, 8]
    assert "silent" in error
    assert len(node.frames) == 9 - 3


@pytest.mark.parametrize(("network", "believed"), [("pocket", True), ("another", False)])
async def test_what_a_node_of_another_chain_states_is_not_used(network, believed):
    events = b'{"jsonrpc":"2.0","id":1,"result":{"height":"8","finalize_block_events":[]}}'
    comet = CometClient([NODE], Node(status=status(network), block_results=events), chain_id="pocket")
    for query in (comet.retention, comet.block):
        if believed:
            assert (await query()).height == 9
        else:
            with pytest.raises(ChainUnavailable) as raised:
                await query()
            assert raised.value.failure is FailureClass.WRONG_NODE


@pytest.mark.parametrize(
    ("answered", "events"), [(failed("could not find results for height #8"), False), (failed("internal error"), None)]
)
async def test_a_node_without_the_events_of_the_last_block_retains_none(answered, events):
    node = Node(status=status(), block_results=answered)
    comet = CometClient([NODE], node)
    if events is None:
        with pytest.raises(ChainUnavailable):
            await comet.retention()
        return
    assert (await comet.retention()).events is events
    assert node.asked[-1]["params"] == {"height": "8"}


class Blocks:
    """A source whose latest block the test sets."""

    def __init__(self, latest=None, announcements=()):
        self.latest, self.announcements, self.asked = latest, announcements, 0

    async def block(self, height=None):
        self.asked += 1
        if self.latest is None:
            raise ChainUnavailable("away")
        return self.latest

    async def latest_block(self, chain_id):
        return await self.block()

    async def heights(self):
        for height in self.announcements:
            self.latest = block(height)
            yield height
            await asyncio.sleep(0.01)


async def test_the_other_interface_is_asked_once_the_newest_block_is_stale():
    now, rpc, grpc = [1e6], Blocks(), Blocks(block(9))
    blocks = FallbackBlocks(rpc, grpc, block_seconds=10.0, clock=lambda: now[0])
    assert (await blocks.block()).height == 9, "RPC does not answer"
    asked = []
    for at, latest in ((29.0, 1), (29.0 + 29.9, 1), (29.0 + 30.0, 1), (60.0, 2), (89.9, 2), (90.0, 2)):
        rpc.latest, now[0], grpc.asked = block(latest), 1e6 + at, 0
        found = await blocks.block()
        asked.append(grpc.asked)
        assert found.height == (9 if grpc.asked else latest)
    assert asked == [0, 0, 1, 0, 0, 1]
    rpc.latest = grpc.latest = block(1)
    assert (await blocks.block()).height == 1


async def followed(source, known=0):
    """Return the blocks that a feed delivers until its subscription ends, and its pauses."""
    delivered, pauses = [], []

    async def on_block(found):
        delivered.append(found.height)

    async def sleep(seconds):
        pauses.append(seconds)
        raise InterruptedError

    feed = BlockFeed(source, on_block, poll_seconds=1.0, sleep=sleep)
    async with asyncio.timeout(10):
        with pytest.raises(InterruptedError):
            await feed.run()
    return delivered, pauses


async def test_each_announced_block_is_read_and_delivered_once():
    source = Blocks(block(5), announcements=(6, 6, 7, 8))
    assert (await followed(source))[0] == [5, 6, 7, 8]
    assert source.asked == 5, "at the start, for three new heights and after the end"


@in_virtual_time
async def test_a_silent_feed_polls_with_pauses_and_reads_what_was_not_announced():
    class Quiet(Blocks):
        async def heights(self):
            await asyncio.Event().wait()
            yield 0

    delivered, pauses = await followed(Quiet(block(5)))
    assert delivered == [5]
    (pause,) = pauses
    assert 0.02 <= pause <= 0.1, "a part of a block between two looks"
