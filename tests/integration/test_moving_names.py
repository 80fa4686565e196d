"""The entry of a name moves to another address, as after a fail-over by DNS: every client follows within seconds."""

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import grpc
import pytest
from aiohttp import web

from moving_names import FIRST, SECOND, name_server, resolved
from pocket.chain.block_feed import BlockFeed
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain.node_answer import HEIGHT_HEADER
from pocket.errors import ChainError
from pocket.protocol.pb import cosmos_base_tendermint_v1beta1_pb2 as comet_pb
from pocket.redis_store.store_errors import RedisStoreError
from pocket.runtime.http_sessions import http_session
from pocket_relayer.backends.grpc_calls import channel_to
from pocket_relayer.backends.http1_client import encode_head, plain_origin
from pocket_relayer.backends.http_calls import Clients
from recording import entries, publishing, record
from relayctl.local_ports import free_port
from servers import RedisServer, clients, until

SECONDS = 8.0
"""In which a client has to follow. gRPC resolves a name at most every 30 seconds, aiohttp every 10."""


class Node(grpc.GenericRpcHandler):
    """A node that states its address as its network. `state` is well, lags or hangs."""

    def __init__(self, name):
        self.name, self.state = name, "well"

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, _, context):
        if self.state == "hangs":
            await asyncio.Event().wait()
        if self.state == "lags":
            await context.abort(grpc.StatusCode.UNKNOWN, "codespace sdk code 26: invalid height: not yet")
        await context.send_initial_metadata(((HEIGHT_HEADER, "9"),))
        answer = comet_pb.GetNodeInfoResponse()
        answer.default_node_info.network = self.name
        return answer.SerializeToString()


@contextlib.asynccontextmanager
async def two_nodes(monkeypatch):
    """Yield two nodes with one port, what stops the first one, and the server of their name."""
    port, nodes, servers = free_port(), [], []
    for address in (FIRST, SECOND):
        node, server = Node(address), grpc.aio.server()
        server.add_generic_rpc_handlers((node,))
        server.add_insecure_port(f"{address}:{port}")
        await server.start()
        nodes.append(node)
        servers.append(server)
    open_channel = grpc.aio.insecure_channel
    async with name_server() as (names, at):
        monkeypatch.setattr(
            grpc.aio, "insecure_channel", lambda name, options: open_channel(f"dns://{at}/{name}", options=options)
        )
        try:
            yield port, nodes[0], lambda: servers[0].stop(None), names
        finally:
            await asyncio.gather(*(server.stop(None) for server in servers))


async def until_equal(ask, expected):
    """Query until the answer is as expected."""

    async def is_equal():
        return await ask() == expected

    await until(is_equal, SECONDS)


@pytest.mark.parametrize("state", ["stopped", "lags", "hangs"])
async def test_a_chain_nodes_name_is_resolved_again_once_the_node_fails(state, monkeypatch):
    async with two_nodes(monkeypatch) as (port, first, stop, names):
        node = NodeAddress.parse(f"grpc://node.test:{port}", "http://node.test:1")
        async with ChainClient([node], timeout_seconds=2.0) as client:

            async def network():
                try:
                    return await client.chain_id()
                except ChainError:
                    return None

            assert await network() == FIRST
            names.address, first.state = SECOND, state
            if state == "stopped":
                await stop()
            await until_equal(network, SECOND)


async def test_a_grpc_backends_name_is_resolved_again_once_the_backend_is_gone(monkeypatch):
    async with two_nodes(monkeypatch) as (port, _, stop, names):
        channel = channel_to(f"grpc://node.test:{port}", 1.0, 1000)
        try:

            async def network():
                try:
                    raw = await channel.unary_unary("/any/Method", None, None)(b"", timeout=1.0)
                except grpc.aio.AioRpcError:
                    return None
                return comet_pb.GetNodeInfoResponse.FromString(raw).default_node_info.network

            assert await network() == FIRST
            names.address = SECOND
            await stop()
            await until_equal(network, SECOND)
        finally:
            await channel.close()


def options_to(port, level, name):
    """Return an option of each connection of this process to a port."""
    options = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(path.name))) as one:
            if one.getpeername()[1:2] == (port,):
                options.append(one.getsockopt(level, name))
    return options


async def test_the_kernel_gives_up_a_grpc_connection_whose_other_end_is_gone(monkeypatch):
    async with two_nodes(monkeypatch) as (port, *_):
        channel = channel_to(f"grpc://node.test:{port}", 1.0, 1000)
        node = NodeAddress.parse(f"grpc://node.test:{port}", "http://node.test:1")
        async with ChainClient([node]) as client:
            await client.chain_id()
            await channel.unary_unary("/any/Method", None, None)(b"", timeout=1.0)
            assert options_to(port, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == [10_000, 10_000]
        await channel.close()


@pytest.mark.redis
@pytest.mark.parametrize("state", ["killed", "demoted", "stopped"])
async def test_redis_is_found_again_at_the_address_to_which_its_name_moved(state, tmp_path):
    folders = [tmp_path / name for name in ("first", "second", "log")]
    for folder in folders:
        folder.mkdir()
    first = RedisServer(folders[0])
    first.arguments += ("--bind", "127.0.0.1", FIRST)
    second = RedisServer(folders[1], first.port)
    second.arguments += ("--bind", SECOND)
    try:
        first.start()
        with resolved(redis=FIRST) as names:
            async with (
                clients(f"redis://redis.test:{first.port}", f"redis://{SECOND}:{first.port}") as (redis, new),
                publishing(redis, folders[2]) as recorder,
            ):
                await recorder.maintain_once()
                await recorder.record(record(1))
                second.start()
                if state == "demoted":
                    async with clients(first.url) as (former,):
                        await former.replicaof(SECOND, first.port)
                elif state == "stopped":
                    first.child.send_signal(signal.SIGSTOP)
                else:
                    first.kill()
                names["redis.test"] = SECOND

                async def recorded():
                    with contextlib.suppress(RedisStoreError):
                        await recorder.maintain_once()
                        await recorder.record(record(2))
                        return {b"relay 1", b"relay 2"} <= set(await entries(new))

                await until(recorded, 3 * SECONDS)  # each of three connections may wait for its deadline
    finally:
        first.kill()
        second.kill()


class Rpc:
    """A CometBFT RPC that states its height."""

    def __init__(self, height):
        self.height, self.connections = height, set()

    async def post(self, request):
        self.connections.add(request.transport)
        block = {
            "latest_block_height": str(self.height), "latest_block_hash": "AB" * 32,
            "latest_block_time": f"2026-01-01T00:00:{self.height:02}Z",
        }  # fmt: skip
        return web.json_response({"result": {"sync_info": block, "node_info": {"network": "pocket"}}})


@contextlib.asynccontextmanager
async def two_rpcs():
    """Yield two nodes with one port, and what stops the first one."""
    port, rpcs = free_port(), (Rpc(5), Rpc(5))
    async with contextlib.AsyncExitStack() as stack:
        sites = []
        for rpc, address in zip(rpcs, (FIRST, SECOND), strict=True):
            app = web.Application()
            app.router.add_post("/", rpc.post)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, address, port).start()
            sites.append(runner)
        yield port, rpcs, sites[0].cleanup


@pytest.mark.parametrize("is_stopped", [True, False])
async def test_a_chain_nodes_rpc_name_is_resolved_again_once_it_tells_no_newer_block(is_stopped):
    async with two_rpcs() as (port, (_, second), stop), http_session() as http:
        comet = CometClient([NodeAddress.parse("grpc://node.test:1", f"http://node.test:{port}")], http, 1.0, 0.2)
        delivered = []

        async def on_block(block):
            delivered.append(block.height)

        async def latest():
            return delivered[-1] if delivered else None

        with resolved(node=FIRST) as names:
            feed = BlockFeed(comet, on_block, poll_seconds=0.2)
            following = asyncio.create_task(feed.run())
            try:
                await until_equal(latest, 5)
                names["node.test"], second.height = SECOND, 6
                if is_stopped:
                    await stop()
                await until_equal(latest, 6)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)


@pytest.mark.parametrize("client", ["nodes", "plain", "kept"])
async def test_the_kernel_gives_up_a_kept_http_connection_whose_other_end_is_gone(client):
    async with two_rpcs() as (port, *_), http_session() as http:
        clients, url = Clients.open(4), f"http://{FIRST}:{port}/"
        if client == "plain":
            origin = plain_origin(url)
            (await clients.plain.request(origin, encode_head("POST", "/", origin, (), 2), b"{}", 1.0)).close()
        else:
            async with (http if client == "nodes" else clients.kept).post(url, json={}):
                pass
        assert options_to(port, socket.SOL_SOCKET, socket.SO_KEEPALIVE).count(1) == 1
        assert options_to(port, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE).count(10) == 1
        await clients.close()


async def test_a_connection_to_a_node_is_kept_while_it_tells_newer_blocks():
    async with two_rpcs() as (port, (first, _), _), http_session() as http:
        comet = CometClient([NodeAddress.parse("grpc://node.test:1", f"http://node.test:{port}")], http, 1.0)
        with resolved(node=FIRST):
            for height in range(5, 10):
                first.height = height
                assert (await comet.block()).height == height
            assert len(first.connections) == 1
            for _ in range(3):
                await comet.block()
            assert len(first.connections) > 1
