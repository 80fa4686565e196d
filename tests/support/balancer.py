"""A load balancer in front of several chain nodes: each call goes to the next one, as those of layer 7 do."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence

import aiohttp
import grpc
from aiohttp import web

from pocket.chain.channels import channel_of
from pocket.chain.failover import NodeAddress

_SECONDS = 5.0
_HOP = frozenset({"user-agent", "te", "content-type", "grpc-timeout", "grpc-accept-encoding"})


class _Forward(grpc.GenericRpcHandler):
    def __init__(self, channels: Sequence[grpc.aio.Channel]) -> None:
        self._next = itertools.cycle(channels)
        self.calls = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method

        async def forward(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            self.calls += 1
            metadata = tuple((k, v) for k, v in context.invocation_metadata() or () if k not in _HOP)
            call = next(self._next).unary_unary(method, None, None)(request, timeout=_SECONDS, metadata=metadata)
            try:
                answer = await call
                await context.send_initial_metadata(tuple(await call.initial_metadata()))
            except grpc.aio.AioRpcError as error:
                trailing = tuple(error.trailing_metadata() or ())
                await context.abort(error.code(), error.details() or "", trailing)
            return answer

        return grpc.unary_unary_rpc_method_handler(forward)


class _Rpc:
    def __init__(self, urls: Sequence[str], http: aiohttp.ClientSession) -> None:
        self._next, self._http = itertools.cycle(urls), http

    async def post(self, request: web.Request) -> web.Response:
        try:
            async with self._http.post(next(self._next), data=await request.read()) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
        except aiohttp.ClientError:
            return web.Response(status=502)

    async def socket(self, request: web.Request) -> web.StreamResponse:
        here = web.WebSocketResponse()
        await here.prepare(request)
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async with self._http.ws_connect(next(self._next) + "/websocket") as there:
                await _first_of(_frames(here, there), _frames(there, here))
        await here.close()
        return here


async def _frames(source, sink) -> None:
    async for frame in source:
        if frame.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(frame.data)


async def _first_of(*work) -> None:
    tasks = [asyncio.ensure_future(one) for one in work]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def balanced(nodes: Sequence[NodeAddress]) -> AsyncIterator[NodeAddress]:
    """One address for all nodes."""
    async with contextlib.AsyncExitStack() as stack:
        channels = [channel_of(node) for node in nodes]
        for channel in channels:
            stack.push_async_callback(channel.close)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Forward(channels),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        rpc = _Rpc([node.rpc for node in nodes], http)
        app = web.Application()
        app.router.add_post("/{path:.*}", rpc.post)
        app.router.add_get("/websocket", rpc.socket)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield NodeAddress.parse(f"grpc://127.0.0.1:{port}", f"http://127.0.0.1:{runner.addresses[0][1]}")
