"""A transaction reaches every node behind an address, wherever the standing connection leads."""

import asyncio
import contextlib
import itertools

import grpc
import pytest

from balancer import balanced
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.errors import ChainUnavailable
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb


class Node(grpc.GenericRpcHandler):
    """Accepts bytes once and then knows them, or gives each transaction the same code."""

    def __init__(self, code=None):
        self._code = code
        self.mempool = []

    def service(self, details):
        async def broadcast(request, context):
            raw = tx_pb.BroadcastTxRequest.FromString(request).tx_bytes
            code = self._code if self._code is not None else 19 if raw in self.mempool else 0
            self.mempool.append(raw)
            response = tx_pb.BroadcastTxResponse()
            response.tx_response.code = code
            response.tx_response.codespace = "sdk" if code else ""
            response.tx_response.txhash = "AB" * 32
            return response.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(broadcast)


@contextlib.asynccontextmanager
async def listening(node):
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((node,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield NodeAddress.parse(f"grpc://127.0.0.1:{port}", "http://127.0.0.1:1")
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def connections_in_turn(addresses):
    """Lead each new connection to the next address, as balancers of layer 4 do."""
    turn = itertools.cycle(addresses)

    async def forward(reader, writer):
        host, _, port = next(turn).name.rpartition(":")
        there, here = await asyncio.open_connection(host, int(port))
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, here))
            group.create_task(pump(there, writer))

    async def pump(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield NodeAddress.parse(f"grpc://127.0.0.1:{port}", "http://127.0.0.1:1")


@pytest.mark.parametrize("balancer", [connections_in_turn, balanced])
async def test_a_transaction_reaches_both_nodes_behind_one_address(balancer):
    cut_off, right = Node(), Node()
    async with (
        listening(cut_off) as first, listening(right) as second, balancer([first, second]) as address,
        ChainClient([address]) as chain,
    ):  # fmt: skip
        for raw in (b"one", b"two", b"three"):
            assert (await chain.broadcast(raw)).code == 0
            assert raw in cut_off.mempool
            assert raw in right.mempool


async def test_clients_that_send_in_step_reach_both_nodes():
    """A balancer that takes nodes in turn gives one client every second call, all of the same node."""
    cut_off, right = Node(), Node()
    raws = [f"{number}".encode() for number in range(5)]
    async with (
        listening(cut_off) as first, listening(right) as second, balanced([first, second]) as address,
        ChainClient([address]) as one, ChainClient([address]) as other,
    ):  # fmt: skip
        for raw in raws:
            await asyncio.gather(one.broadcast(raw), other.broadcast(b"of the other " + raw))
    missing = [raw for raw in raws for node in (cut_off, right) if raw not in node.mempool]
    assert len(missing) < 3, "one of 32 is expected to reach one node only, and is sent again at the next block"


@pytest.mark.parametrize("codes", [(5, None), (None, 5), (19, None), (None, 19)])
async def test_one_node_that_accepts_the_bytes_is_enough(codes):
    async with (
        listening(Node(codes[0])) as first, listening(Node(codes[1])) as second,
        connections_in_turn([first, second]) as address, ChainClient([address]) as chain,
    ):  # fmt: skip
        assert (await chain.broadcast(b"raw")).code == 0


async def test_bytes_that_every_node_has_already_are_reported_as_known():
    node = Node()
    async with listening(node) as address, ChainClient([address]) as chain:
        assert (await chain.broadcast(b"raw")).code == 0
        assert (await chain.broadcast(b"raw")).code == 19


class Keeping(Node):
    """Rejects a transaction and knows it from then on, as nodes that keep what they rejected."""

    def service(self, details):
        self._code = 19 if self.mempool else 5
        return super().service(details)


async def test_a_node_that_keeps_what_it_rejected_hides_no_rejection():
    async with listening(Keeping()) as address, ChainClient([address]) as chain:
        assert (await chain.broadcast(b"raw")).code == 5


async def test_an_address_without_a_node_is_unavailable():
    async with listening(Node()) as address:
        pass
    async with ChainClient([address], timeout_seconds=1.0) as chain:
        with pytest.raises(ChainUnavailable, match="no chain node answered"):
            await chain.broadcast(b"raw")


async def test_an_error_names_the_method_once_and_each_node_that_did_not_answer():
    async with listening(Node()) as first, listening(Node()) as second:
        addresses = [first, second]
    async with ChainClient(addresses, timeout_seconds=1.0) as chain:
        with pytest.raises(ChainUnavailable) as raised:
            await chain.latest_block()
    text = str(raised.value)
    assert text.startswith("GetLatestBlock: no chain node answered (")
    assert text.count("GetLatestBlock") == 1
    assert all(f"{address.name}: failed to connect" in text for address in addresses)


class Hanging(Node):
    """Takes the call and never answers."""

    def __init__(self):
        super().__init__()
        self.asked = asyncio.Event()

    def service(self, details):
        async def broadcast(request, context):
            self.asked.set()
            await asyncio.Event().wait()

        return grpc.unary_unary_rpc_method_handler(broadcast)


async def test_a_node_that_hangs_does_not_delay_a_transaction_that_another_one_accepted():
    hanging = Hanging()
    async with (
        listening(hanging) as first, listening(Node()) as second,
        ChainClient([first, second], timeout_seconds=3600.0) as chain,
    ):  # fmt: skip
        async with asyncio.timeout(30):
            assert (await chain.broadcast(b"raw")).code == 0
        assert hanging.asked.is_set()


@pytest.mark.parametrize("bad", ["hangs", "refuses"])
async def test_bad_nodes_behind_one_address_do_not_keep_a_transaction_from_a_good_one(bad):
    """The standing connection and the first new ones reach the bad node."""
    good, calls = Node(), []

    class Mostly(Hanging):
        def service(self, details):
            calls.append(details.method)
            if len(calls) >= 4:
                return good.service(details)
            if bad == "hangs":
                return super().service(details)

            async def refuse(request, context):
                await context.abort(grpc.StatusCode.UNAVAILABLE, "no")

            return grpc.unary_unary_rpc_method_handler(refuse)

    async with listening(Mostly()) as address, ChainClient([address], timeout_seconds=0.5) as chain:
        assert (await chain.broadcast(b"raw")).code == 0


async def test_broadcasts_wait_for_every_node_while_too_many_are_on_their_way(monkeypatch):
    monkeypatch.setattr("pocket.chain.broadcasting._MOST_SENDING", 1)
    async with (
        listening(Hanging()) as first, listening(Node()) as second,
        ChainClient([first, second], timeout_seconds=0.3) as chain,
    ):  # fmt: skip
        assert (await chain.broadcast(b"one")).code == 0
        assert chain._broadcaster.sending == 1
        assert (await chain.broadcast(b"two")).code == 0
        assert chain._broadcaster.sending == 0
