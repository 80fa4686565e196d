"""Dispatch requests by their shape, the same over HTTP/1.1 and HTTP/2.

Source: relay-lifecycle.md, section 1.
"""

import asyncio
import functools
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.relayminer import ResponseCompression
from pocket_relayer.backends.header_fields import METHODS, check_method, stream_headers
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.pipeline import RelayPipeline, StreamedResult
from pocket_relayer.pipeline.relay import Transport, TransportInfo
from pocket_relayer.transports import grpc_relays
from pocket_relayer.transports.replies import IncomingRequest, OutgoingResponse

_LOG: FilteringBoundLogger = structlog.get_logger()
_PROBE_METHODS = ("GET", "HEAD")
_PROBES = ("/health", "/healthz", "/ready")
_COME_AGAIN = (429, 503)
_PACKED_IN_PLACE = 64 * 1024  # bytes of a body up to which no thread is used


@dataclass(frozen=True, slots=True)
class Probes:
    """Sources of the health and readiness responses."""

    health: Callable[[], dict[str, object]]
    ready_problem: Callable[[], str | None]
    service_ready: Callable[[str], Mapping[str, object] | None]
    draining: Callable[[], bool]


def _json(status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> OutgoingResponse:
    return OutgoingResponse(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(body).encode())


def error_reply(rejected: Rejected) -> OutgoingResponse:
    """Return the unsigned error response."""
    headers = {"Request-Id": rejected.request_id}
    if rejected.status in _COME_AGAIN:
        headers["Retry-After"] = "1"
    if rejected.reason is RejectionReason.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(METHODS))
    body = {"error": rejected.message, "code": rejected.reason.label, "request_id": rejected.request_id}
    return _json(rejected.status, body, headers)


def accepts_gzip(headers: Mapping[str, str]) -> bool:
    """Return True if Accept-Encoding names gzip, or anything, with a weight above 0."""
    weights = {}
    for part in headers.get("Accept-Encoding", "").lower().split(","):
        name, _, parameter = part.strip().partition(";")
        weight = parameter.strip().removeprefix("q=")
        try:
            weights[name.strip()] = float(weight or 1)
        except ValueError:
            weights[name.strip()] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def needs_body(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """Return False if the answer is known without a body.

    It is a probe, or nothing that is served.
    """
    if method not in METHODS or (method in _PROBE_METHODS and _is_probe(path)):
        return False
    content_type = headers.get("Content-Type", "")
    return not content_type.startswith("application/grpc") or grpc_relays.is_relay(method, path)


def _is_probe(path: str) -> bool:
    path = path.partition("?")[0]
    return path in _PROBES or path.startswith("/ready/")


class RequestRouter:
    """Answers every request except WebSocket upgrades."""

    def __init__(
        self,
        pipeline: RelayPipeline,
        probes: Probes,
        compression: Callable[[], ResponseCompression] = ResponseCompression,
    ) -> None:
        self._pipeline = pipeline
        self._probes = probes
        self._compression = compression

    def serves_relays(self) -> bool:
        """Return True while a relay is served."""
        return self._pipeline.in_flight.any()

    async def answer(self, request: IncomingRequest) -> OutgoingResponse:
        """Return the response. It raises nothing except cancellation."""
        try:
            probe = self._probe(request) if request.method in _PROBE_METHODS else None
            return probe if probe is not None else await self._dispatch(request)
        except Rejected as rejected:
            _LOG.debug(
                "relay rejected", message=rejected.message, reason=rejected.reason.label, request_id=rejected.request_id
            )
            return error_reply(rejected)
        except Exception:  # noqa: BLE001 - the border of one request: counted, logged, the process goes on
            caller = TransportInfo(Transport.HTTP, request.headers, request.address)
            failed = Rejected(RejectionReason.INTERNAL, "internal error")
            self._pipeline.count_rejection(failed, caller)
            _LOG.exception("relay failed", request_id=failed.request_id)
            return error_reply(failed)

    def reject_unreadable(self, status: int, address: str) -> OutgoingResponse:
        """Count a request that is not valid HTTP and return its error response."""
        rejected = Rejected(RejectionReason.INVALID_REQUEST, "the request is not valid HTTP", status)
        self._pipeline.count_rejection(rejected, TransportInfo(Transport.HTTP, {}, address))
        return error_reply(rejected)

    def _probe(self, request: IncomingRequest) -> OutgoingResponse | None:
        """Return the response to a probe, None for other requests."""
        path = request.path.partition("?")[0]
        if path in ("/health", "/healthz"):
            return _json(200, self._probes.health())
        if path == "/ready":
            return self._ready()
        if path.startswith("/ready/"):
            return self._service_ready(path.removeprefix("/ready/"))
        return None

    def _dispatch(self, request: IncomingRequest) -> Awaitable[OutgoingResponse]:
        """Return the response of what serves the request."""
        content_type = request.headers.get("Content-Type", "")
        if content_type.startswith("application/grpc-web") or grpc_relays.is_preflight(request):
            return grpc_relays.answer_web(self._pipeline, request)
        if content_type.startswith("application/grpc"):
            return grpc_relays.answer(self._pipeline, request)
        return self._relay(request)

    def _ready(self) -> OutgoingResponse:
        problem = "draining" if self._probes.draining() else self._probes.ready_problem()
        body = {"ready": problem is None, **({"problem": problem} if problem else {}), **self._probes.health()}
        return _json(200 if problem is None else 503, body)

    def _service_ready(self, name: str) -> OutgoingResponse:
        state = self._probes.service_ready(name)
        if state is None:
            return error_reply(Rejected(RejectionReason.UNKNOWN_SERVICE, "this service is not served here"))
        return _json(200 if state["ready"] else 503, state)

    async def _relay(self, request: IncomingRequest) -> OutgoingResponse:
        caller = request.transport_info(Transport.HTTP)
        try:
            check_method(request.method)
            body = await request.read()
        except Rejected as rejected:
            self._pipeline.count_rejection(rejected, caller)
            raise
        answer = await self._pipeline.handle(body, caller, streams=True)
        request.on_served()
        if isinstance(answer, StreamedResult):
            return OutgoingResponse(answer.status, stream_headers(answer.headers), pieces=answer.pieces)
        accept = request.headers.get("Accept", "")
        plain = accept in ("", "*/*") or "," in accept or not accept.isascii()
        headers = {"Content-Type": "application/json" if plain else accept}
        if answer.retries:
            headers["Backend-Retries"] = str(answer.retries)
        return OutgoingResponse(200, headers, await self._compressed(answer.body, request, headers))

    async def _compressed(self, body: bytes, request: IncomingRequest, headers: dict[str, str]) -> bytes:
        """Return the body, compressed if configured, worthwhile and accepted.

        It sets the headers that declare the compression.
        """
        wanted = self._compression()
        if not wanted.enabled or len(body) < wanted.min_bytes or not accepts_gzip(request.headers):
            return body
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        pack = functools.partial(gzip.compress, body, compresslevel=1, mtime=0)
        return await asyncio.to_thread(pack) if len(body) > _PACKED_IN_PLACE else pack()
