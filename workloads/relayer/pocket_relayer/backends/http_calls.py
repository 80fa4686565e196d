"""Call HTTP backends (relay-lifecycle.md, section 4)."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakSet

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDictProxy
from yarl import URL

from pocket.api.services import Backend
from pocket.protocol.relays.envelope import Headers, HttpRequest, HttpResponse
from pocket.runtime.http_sessions import CONNECTOR_OPTIONS
from pocket.runtime.own_authorities import system_context
from pocket_relayer.backends.backend_connection import (
    HEADERS,
    LINE_BYTES,
    WITHOUT_BODY,
    BrokenResponse,
    ConnectionEnded,
    HeaderTooLong,
)
from pocket_relayer.backends.credentials import token_of
from pocket_relayer.backends.header_fields import answer_headers, check_method
from pocket_relayer.backends.http1_client import Http1Client, Http1Response, encode_head, plain_origin
from pocket_relayer.backends.paths import backend_target, origin_of
from pocket_relayer.backends.redirects import without_endpoint
from pocket_relayer.backends.response_bodies import plain_body, plain_chunks
from pocket_relayer.backends.responses import BackendStream, RetryableBackendError
from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected, RejectionReason

STREAMED: Final = frozenset({"text/event-stream", "application/x-ndjson"})
"""Media types of responses that are forwarded as they arrive."""
_FINAL: Final = range(200, 600)
_PARTIAL: Final = 206
_AFTER_SENDING: Final = (
    BrokenResponse, ConnectionEnded, aiohttp.ClientPayloadError, aiohttp.ClientResponseError,
    aiohttp.ServerDisconnectedError,
)  # fmt: skip
"""Errors of a connection that carried the request."""
_reused: ContextVar[bool] = ContextVar("reused", default=False)
"""True if this task's latest request reused a connection."""


class _Connector(aiohttp.TCPConnector):
    """Connector that records for each request if its connection is new."""

    def __init__(self, **options: Any) -> None:
        super().__init__(ssl=system_context(), **CONNECTOR_OPTIONS, **options)
        self._used: WeakSet[object] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp calls it
    ) -> Connection:
        _reused.set(False)
        connection = await super().connect(req, traces, timeout)
        _reused.set(connection.protocol in self._used)
        self._used.add(connection.protocol)
        return connection


@dataclass(frozen=True, slots=True)
class Clients:
    """HTTP clients of one service.

    Each service has its own, so that a slow backend cannot starve another service.

    `kept` reuses connections. `fresh` opens one for each request, to repeat what a kept connection did not carry
    because it had died.
    """

    kept: aiohttp.ClientSession
    fresh: aiohttp.ClientSession
    plain: Http1Client | None = None
    """Client for plain HTTP. Without it aiohttp's serves these URLs too."""

    @classmethod
    def open(cls, max_connections: int) -> "Clients":
        """Return clients without open connections.

        aiohttp's have no limit of their own, which WebSockets and requests to one host would share: relays and
        WebSockets wait for the slots of their endpoint.
        """
        return cls(
            _session(_Connector(limit=0, keepalive_timeout=90)),
            _session(_Connector(limit=0, force_close=True)),
            Http1Client(max_connections),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.kept.close()
        await self.fresh.close()
        if self.plain is not None:
            await self.plain.close()


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        max_line_size=LINE_BYTES,
        max_field_size=LINE_BYTES,
        max_headers=HEADERS,
    )


def _died_unused(error: Exception) -> bool:
    """Return True if a kept connection ended before the first byte of a response.

    The backend had closed it in the meantime, so the request was not processed.
    """
    if not _reused.get() or isinstance(error, aiohttp.ClientConnectorError):
        return False
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # otherwise part of a response arrived
    return isinstance(error, aiohttp.ClientOSError)


class _AiohttpResponse:
    """A response of aiohttp whose head has arrived."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    def signed_headers(self) -> Headers:
        """Return the headers as they are signed.

        Raises BrokenResponse for a name that is no token.
        """
        return answer_headers(self._response.headers.items())

    def complete_body(self) -> None:
        """Return None: the body is to be read."""

    async def read(self) -> bytes:
        """Return the next bytes of the body, or empty bytes at its end."""
        return await self._response.content.readany()

    def close(self) -> None:
        """Give the connection back, or close it if the response is incomplete."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


_Response = _AiohttpResponse | Http1Response


def _request(
    clients: Clients,
    method: str,
    endpoint: str,
    target: str,
    headers: CIMultiDictProxy[str],
    body: bytes,
    dial_seconds: float,
) -> Awaitable[_Response]:
    """Return the response of an endpoint, once its head has arrived.

    A request that a dead connection did not carry is sent once more, on a new one.
    """
    origin = plain_origin(endpoint) if clients.plain is not None else None
    if origin is not None and clients.plain is not None:
        head = encode_head(method, target, origin, headers.items(), len(body))
        return clients.plain.request(origin, head, body, dial_seconds, head_only=method == "HEAD")
    return _request_by_aiohttp(clients, method, endpoint, target, headers, body, dial_seconds)


async def _request_by_aiohttp(
    clients: Clients,
    method: str,
    endpoint: str,
    target: str,
    headers: CIMultiDictProxy[str],
    body: bytes,
    dial_seconds: float,
) -> _AiohttpResponse:
    timeout = aiohttp.ClientTimeout(total=None, connect=dial_seconds)
    url = URL(origin_of(endpoint) + target, encoded=True)
    options: dict[str, Any] = {
        "data": body or None, "headers": headers, "allow_redirects": False, "timeout": timeout,
    }  # fmt: skip
    try:
        return _AiohttpResponse(await clients.kept.request(method, url, **options))
    except aiohttp.ClientError as error:
        if not _died_unused(error):
            raise
    return _AiohttpResponse(await clients.fresh.request(method, url, **options))


async def _chunks(answer: _Response) -> AsyncIterator[bytes]:
    try:
        while chunk := await answer.read():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise Rejected(RejectionReason.BACKEND_FAILED, f"backend failed: {type(error).__name__}") from error


def _media_type(headers: Headers) -> str:
    return headers.get("Content-Type", ("",))[0].partition(";")[0].strip().lower()


async def call_http(
    clients: Clients,
    backend: Backend,
    url: str,
    request: HttpRequest,
    headers: CIMultiDictProxy[str],
    limit: int,
    deadline: float,
    reservation: MemoryReservation | None = None,
) -> HttpResponse | BackendStream:
    """Call one endpoint once.

    Returns a final response below status 500. Raises Rejected or RetryableBackendError.
    """
    check_method(request.method)
    answer: _Response | None = None
    kept = False
    try:
        target = backend_target(url, backend.base_path, request.url)
        method, dial_seconds = request.method or "POST", backend.dial_timeout_seconds
        answer = await _request(clients, method, url, target, headers, request.body, dial_seconds)
        if answer.status not in _FINAL:
            raise RetryableBackendError(
                Rejected(RejectionReason.BACKEND_FAILED, f"backend failed: {answer.status} is no final status"),
                reached=True,
            )
        if answer.status >= 500:
            raise RetryableBackendError(
                Rejected(RejectionReason.BACKEND_ERROR, "the backend answered with an error", answer.status),
                reached=True,
            )
        named = answer.signed_headers()
        if _media_type(named) in STREAMED and answer.status not in WITHOUT_BODY:
            kept = True
            shown, _ = without_endpoint(answer.status, named, b"", url, backend.base_path, token_of(backend, headers))
            chunks = plain_chunks(named, _chunks(answer), limit)
            return BackendStream(answer.status, shown, chunks, _closing(answer), deadline)
        body = answer.complete_body()
        if body is None:
            body = await _body(answer, limit, reservation)
        else:
            _count(len(body), len(body), limit, reservation)
    except (aiohttp.ClientError, OSError) as error:
        if _head_too_long(error):  # the request is at fault, not the endpoint
            raise Rejected(
                RejectionReason.RESPONSE_TOO_LARGE, f"a header of the backend has over {LINE_BYTES} bytes"
            ) from error
        raise RetryableBackendError(
            Rejected(RejectionReason.BACKEND_FAILED, f"backend failed: {type(error).__name__}"),
            reached=isinstance(error, _AFTER_SENDING),
        ) from error
    except ValueError as error:
        raise Rejected(
            RejectionReason.INVALID_REQUEST, f"the payload's method, URL or headers cannot be sent: {error}"
        ) from error
    finally:
        if answer is not None and not kept:
            answer.close()
    # A part of a compressed body cannot be decompressed alone.
    plain_headers, plain = (named, body) if answer.status == _PARTIAL else await plain_body(named, body, limit)
    token = token_of(backend, headers)
    plain_headers, plain = without_endpoint(answer.status, plain_headers, plain, url, backend.base_path, token)
    return HttpResponse(answer.status, plain_headers, plain)


def _head_too_long(error: BaseException | None) -> bool:
    """Return True if a line of the response's head exceeded the limit."""
    while error is not None and not isinstance(error, (LineTooLong, HeaderTooLong)):
        error = error.__cause__
    return error is not None


async def _body(answer: _Response, limit: int, reservation: MemoryReservation | None) -> bytes:
    """Read the whole body.

    Raises Rejected beyond `limit` bytes, or if there is no memory left for `reservation`.
    """
    chunks, size = [], 0
    while chunk := await answer.read():
        chunks.append(chunk)
        size += len(chunk)
        _count(len(chunk), size, limit, reservation)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _count(read: int, size: int, limit: int, reservation: MemoryReservation | None) -> None:
    """Count what was read of a body that has `size` bytes so far.

    Raises Rejected beyond `limit` bytes, or if there is no memory left for `reservation`.
    """
    if reservation is not None:
        reservation.acquire(read)
    if size > limit:
        raise Rejected(RejectionReason.RESPONSE_TOO_LARGE, f"the backend's answer is larger than {limit} bytes")


def _closing(answer: _Response) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        answer.close()

    return close
