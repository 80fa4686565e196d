"""A channel to a node is open while it is used, so that gRPC's threads end with the queries."""

import asyncio
import contextlib

import grpc.aio
import pytest

from pocket.chain.channels import IdleChannel

METHOD = "/test.Node/Query"


class HeldNode(grpc.GenericRpcHandler):
    """A node that answers a query with its request, `held` once it may."""

    def __init__(self):
        self.may_answer = asyncio.Event()
        self.asked = asyncio.Event()

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request, context):
        if request == b"held":
            self.asked.set()
            await self.may_answer.wait()
        return request


class CountedChannels:
    """Opens channels to a port, and counts those that are open."""

    def __init__(self, port):
        self.port = port
        self.opened = self.open = 0
        self.all_closed, self.one_closed = asyncio.Event(), asyncio.Event()

    def __call__(self):
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")
        self.opened += 1
        self.open += 1
        self.all_closed.clear()
        close = channel.close

        async def closed(grace):
            await close(grace)
            self.open -= 1
            self.one_closed.set()
            if not self.open:
                self.all_closed.set()

        channel.close = closed
        return channel


@contextlib.asynccontextmanager
async def idle_channel(seconds):
    node = HeldNode()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((node,))
    channels = CountedChannels(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    channel = IdleChannel(channels, seconds)
    try:
        async with asyncio.timeout(10):
            yield node, channels, channel, channel.unary_unary(METHOD, None, None)
    finally:
        await channel.close()
        await server.stop(None)


async def test_a_channel_is_opened_by_the_first_query_and_closed_once_none_is_left():
    async with idle_channel(0.0) as (_, channels, _, query):
        assert channels.opened == 0
        for number in (1, 2):
            answers = await asyncio.gather(query(b"one", timeout=5.0), query(b"two", timeout=5.0))
            assert answers == [b"one", b"two"]
            await channels.all_closed.wait()
            assert channels.opened == number


async def test_a_channel_stays_open_for_a_while_after_a_query():
    async with idle_channel(60.0) as (_, channels, channel, query):
        await query(b"one", timeout=5.0)
        await query(b"two", timeout=5.0)
        assert (channels.opened, channels.open) == (1, 1)
        await channel.close()
        assert channels.open == 0
        with pytest.raises(grpc.aio.UsageError):
            query(b"three", timeout=5.0)


async def test_a_query_that_waits_keeps_its_channel_and_one_that_is_cancelled_does_not():
    async with idle_channel(0.0) as (node, channels, _, query):
        waiting = query(b"held", timeout=5.0)
        await node.asked.wait()
        for _ in range(5):
            assert await query(b"other", timeout=5.0) == b"other"
        assert (channels.opened, channels.open) == (1, 1)
        node.may_answer.set()
        assert await waiting == b"held"
        await channels.all_closed.wait()
        node.may_answer.clear()
        cancelled = query(b"held", timeout=5.0)
        cancelled.cancel()
        await channels.all_closed.wait()
        assert channels.opened == 2


async def test_a_query_that_fails_ends_the_use_of_its_channel():
    async with idle_channel(0.0) as (_, channels, _, query):
        with pytest.raises(grpc.aio.AioRpcError):
            await query(b"held", timeout=0.01)
        await channels.all_closed.wait()
        assert channels.opened == 1


async def test_a_renewed_channel_is_closed_after_its_last_query_and_at_most_once_a_second(monkeypatch):
    async with idle_channel(60.0) as (node, channels, channel, query):
        channel.renew()  # there is none yet
        waiting = query(b"held", timeout=5.0)
        await node.asked.wait()
        channel.renew()
        await query(b"one", timeout=5.0)
        assert channels.opened == 1, "it was opened a moment ago"
        monkeypatch.setattr("pocket.chain.channels._RENEWAL_SECONDS", 0.0)
        channel.renew()
        await query(b"one", timeout=5.0)
        assert (channels.opened, channels.open) == (2, 2), "a query still runs over the former one"
        node.may_answer.set()
        assert await waiting == b"held"
        await channels.one_closed.wait()
        assert channels.open == 1
        channel.renew()
        await query(b"one", timeout=5.0)
        assert channels.opened == 3
        channel.renew()
        await channel.close()
        assert channels.open == 0
