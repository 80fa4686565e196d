"""The miner's own port: health, readiness, metrics, what it owns."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import generate_latest

from pocket.api.problems import Problem
from pocket.errors import ConfigurationError

Facts = Callable[[], Mapping[str, Any]]
LateFacts = Callable[[], Awaitable[Mapping[str, Any]]]


async def serve_admin(
    host: str,
    port: int,
    *,
    health: Facts,
    report: Facts,
    status: LateFacts,
    problems: Callable[[], Sequence[Problem]],
    routes: Sequence[web.RouteDef] = (),
) -> web.AppRunner:
    """Serves until the runner is cleaned up; raises ConfigurationError when the port is taken."""

    async def show_metrics(_: web.Request) -> web.Response:
        # Of a thousand suppliers there are tens of thousands of rows; blocks are decided meanwhile.
        body = await asyncio.to_thread(generate_latest)
        return web.Response(body=body, content_type="text/plain", charset="utf-8")

    async def show_ready(_: web.Request) -> web.Response:
        found = problems()
        rows = [problem.model_dump() for problem in found]
        body = {"ready": not found, "problem": str(found[0]) if found else "", "problems": rows}
        return web.json_response(body, status=503 if found else 200)

    def show(facts: Facts) -> Callable[[web.Request], Any]:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response(dict(facts()))

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
        raise ConfigurationError(f"miner: admin port {port} is taken: {error.strerror}") from error
    return runner
