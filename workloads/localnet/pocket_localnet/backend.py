"""The demo backend: a JSON-RPC and REST echo with deterministic responses."""

import contextlib
import json
from collections.abc import AsyncIterator

from aiohttp import web


async def _answer(request: web.Request) -> web.Response:
    body = await request.read()
    if request.path == "/health":
        return web.json_response({"status": "ok"})
    try:
        call = json.loads(body) if body else {}
    except ValueError:
        return web.json_response({"error": "not JSON"}, status=400)
    if isinstance(call, dict) and "method" in call:
        result = {"method": call["method"], "params": call.get("params"), "path": request.path_qs}
        return web.json_response({"jsonrpc": "2.0", "id": call.get("id"), "result": result})
    return web.json_response({"path": request.path_qs, "method": request.method})


@contextlib.asynccontextmanager
async def serve_backend(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve the backend and yield its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    try:
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
