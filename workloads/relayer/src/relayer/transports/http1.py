"""The HTTP transport: relays, health and readiness on one port."""

import json
import logging
from collections.abc import Callable, Mapping

from aiohttp import web

from relayer import metrics
from relayer.rejection import Reason, Rejected
from relayer.service import RelayService

_LOG = logging.getLogger("relayer.http")


def error_body(message: str) -> bytes:
    """The unsigned error answer, escaped."""
    return json.dumps({"error": message}).encode()


class HttpTransport:
    """Routes of one worker."""

    def __init__(
        self,
        service: RelayService,
        *,
        health: Callable[[], dict[str, object]],
        ready_problem: Callable[[], str | None],
        service_ready: Callable[[str], Mapping[str, object] | None],
        draining: Callable[[], bool],
    ) -> None:
        self._service = service
        self._health = health
        self._ready_problem = ready_problem
        self._service_ready = service_ready
        self._draining = draining

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=self._service.max_body_bytes)
        for path in ("/health", "/healthz"):
            app.router.add_get(path, self._show_health)
        app.router.add_get("/ready", self._show_ready)
        app.router.add_get("/ready/{service}", self._show_service)
        app.router.add_route("*", "/{path:.*}", self._relay)
        return app

    async def _show_health(self, _: web.Request) -> web.Response:
        return web.json_response(self._health())

    async def _show_ready(self, _: web.Request) -> web.Response:
        problem = "draining" if self._draining() else self._ready_problem()
        body = {"ready": problem is None, **({"problem": problem} if problem else {}), **self._health()}
        return web.json_response(body, status=200 if problem is None else 503)

    async def _show_service(self, request: web.Request) -> web.Response:
        state = self._service_ready(request.match_info["service"])
        if state is None:
            return web.json_response({"error": "unknown service"}, status=404)
        return web.json_response(dict(state), status=200 if state["ready"] else 503)

    async def _read(self, request: web.Request) -> bytes:
        limit = self._service.max_body_bytes
        if (request.content_length or 0) > limit:
            raise Rejected(Reason.BODY_TOO_LARGE, f"the request is larger than {limit} bytes")
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise Rejected(Reason.BODY_TOO_LARGE, f"the request is larger than {limit} bytes") from None
        except (OSError, web.HTTPException, ValueError) as error:
            raise Rejected(Reason.BODY_UNREADABLE, "the request body cannot be read") from error

    async def _relay(self, request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        content_type = "application/json" if accept in ("", "*/*") or "," in accept else accept
        try:
            answer = await self._service.handle(await self._read(request), request.headers)
        except Rejected as rejected:
            metrics.REJECTED.labels(rejected.reason.label).inc()
            _LOG.debug("relay refused: %s", rejected.message, extra={"fields": {"reason": rejected.reason.label}})
            headers = {"Retry-After": "1"} if rejected.reason in (Reason.OVERLOADED, Reason.DRAINING) else None
            return web.Response(
                status=rejected.status,
                body=error_body(rejected.message),
                content_type="application/json",
                headers=headers,
            )
        except Exception:  # noqa: BLE001 - the border of one request: counted, logged, the process goes on
            metrics.REJECTED.labels(Reason.INTERNAL.label).inc()
            _LOG.exception("relay failed")
            return web.Response(status=500, body=error_body("internal error"), content_type="application/json")
        headers = {"Content-Type": content_type}
        if answer.retries:
            headers["Backend-Retries"] = str(answer.retries)
        return web.Response(body=answer.body, headers=headers)
