"""Serve the admin port: health, readiness, metrics and what the miner owns."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import generate_latest

from pocket.api.problems import Problem
from pocket.errors import ConfigurationError

Rows = Callable[[], Mapping[str, Any]]
AsyncRows = Callable[[], Awaitable[Mapping[str, Any]]]


async def serve_admin(
    host: str,
    port: int,
    *,
    health: Rows,
    report: Rows,
    status: AsyncRows,
    problems: Callable[[], Sequence[Problem]],
    routes: Sequence[web.RouteDef] = (),
) -> web.AppRunner:
    """Serve until the runner is cleaned up.

    Raises ConfigurationError if the port is taken.
    """

    async def show_metrics(_: web.Request) -> web.Response:
        # A thousand suppliers have tens of thousands of series, so they are rendered off the event loop.
        body = await asyncio.to_thread(generate_latest)
        return web.Response(body=body, content_type="text/plain", charset="utf-8")

    async def show_ready(_: web.Request) -> web.Response:
        current = problems()
        rows = [problem.model_dump() for problem in current]
        body = {"ready": not current, "problem": str(current[0]) if current else "", "problems": rows}
        return web.json_response(body, status=503 if current else 200)

    def show(rows: Rows) -> Callable[[web.Request], Any]:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response(dict(rows()))

        return answer

    async def show_status(_: web.Request) -> web.Response:
        return web.json_response(dict(await status()))

    app = web.Application()
    app.add_routes(
        [
            web.get("/status", show_status),
            web.get("/report", show(report)),
            web.get("/health", show(health)),
            web.get("/ready", show_ready),
            web.get("/metrics", show_metrics),
            *routes,
        ]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError(
            f"miner: admin port {port} is taken: {error.strerror}. Stop the other process."
        ) from error
    return runner
