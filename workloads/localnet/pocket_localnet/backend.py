"""The demo backend: deterministic responses over every transport.

JSON-RPC, REST and CometBFT calls are echoed. A path that ends with `/events`, or `Accept: text/event-stream`, is
answered with a stream of three events. A WebSocket answers every call, and `eth_subscribe` with three further events.
gRPC, on a port of its own, echoes the message of any unary method.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from aiohttp import WSMsgType, web

_EVENTS: Final = 3


def _result(call: dict[str, Any], path: str) -> dict[str, Any]:
    result = {"method": call["method"], "params": call.get("params"), "path": path}
    return {"jsonrpc": "2.0", "id": call.get("id"), "result": result}


async def _answer(request: web.Request) -> web.StreamResponse:
    if request.path == "/health":
        return web.json_response({"status": "ok"})
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await _answer_web_socket(request)
    if request.path.endswith("/events") or "text/event-stream" in request.headers.get("Accept", ""):
        return await _stream_events(request)
    body = await request.read()
    try:
        call = json.loads(body) if body else {}
    except ValueError:
        return web.json_response({"error": "not JSON"}, status=400)
    if isinstance(call, dict) and "method" in call:
        return web.json_response(_result(call, request.path_qs))
    return web.json_response({"path": request.path_qs, "method": request.method})


async def _stream_events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(_EVENTS):
        await response.write(f"data: {json.dumps({'event': number, 'path': request.path})}\n\n".encode())
    await response.write_eof()
    return response


async def _answer_web_socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            continue
        try:
            call = json.loads(message.data)
        except ValueError:
            await socket.send_json({"error": "not JSON"})
            continue
        if not isinstance(call, dict) or "method" not in call:
            await socket.send_json({"error": "no JSON-RPC call"})
            continue
        await socket.send_json(_result(call, request.path_qs))
        for number in range(_EVENTS if call["method"] == "eth_subscribe" else 0):
            await socket.send_json({"jsonrpc": "2.0", "method": "eth_subscription", "params": {"event": number}})
    return socket


class _EchoAnyMethod(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Echoes the message of every unary method."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:  # type: ignore[type-arg]
        """Return the handler of any method."""

        async def echo(message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            await context.send_initial_metadata((("demo-method", handler_call_details.method),))
            return message

        return grpc.unary_unary_rpc_method_handler(echo)


@contextlib.asynccontextmanager
async def serve_backend(host: str = "127.0.0.1", port: int = 0, grpc_port: int | None = None) -> AsyncIterator[str]:
    """Serve the backend and yield its HTTP URL. Without `grpc_port` it serves no gRPC."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    server = None
    try:
        await web.TCPSite(runner, host, port).start()
        if grpc_port is not None:
            server = grpc.aio.server()
            server.add_generic_rpc_handlers((_EchoAnyMethod(),))
            server.add_insecure_port(f"{host}:{grpc_port}")
            await server.start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        if server is not None:
            await server.stop(1)
        await runner.cleanup()
