"""Serve HTTP/1.1.

A lean protocol serves ordinary relays, and aiohttp everything else and WebSocket upgrades.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web, web_response
from structlog.typing import FilteringBoundLogger

from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.limits.traceback_frames import clear_frames_of
from pocket_relayer.transports.client_connections import Connection
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.first_requests import FirstRequests
from pocket_relayer.transports.http1_connection import AIOHTTP_BYTES, Http1Connection
from pocket_relayer.transports.http1_relays import RelayConnection, RelayServer
from pocket_relayer.transports.replies import IncomingRequest, OutgoingResponse, too_large, too_late
from pocket_relayer.transports.request_bodies import GzipRequestDecoder, is_gzipped
from pocket_relayer.transports.request_router import RequestRouter, error_reply
from pocket_relayer.transports.websocket import WebSockets

_LOG: FilteringBoundLogger = structlog.get_logger()
# Reveal no versions, not even in the parser's own errors.
web_response.SERVER_SOFTWARE = "relayer"  # type: ignore[attr-defined]
_PIECE: Final = 64 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Body:
    """A request body that is read once, limited in size, time and memory."""

    def __init__(
        self,
        request: web.BaseRequest,
        limit: int,
        reservation: MemoryReservation,
        timeouts: ClientTimeouts,
        decoder: GzipRequestDecoder,
    ) -> None:
        self._request = request
        self._limit = limit
        self._reservation = reservation
        self._timeouts = timeouts
        self._decoder = decoder

    async def read(self) -> bytes:
        """Return the decompressed body.

        Raises Rejected.
        """
        if (self._request.content_length or 0) > self._limit:
            raise too_large(self._limit)
        expected = self._request.headers.get("Expect", "").lower()
        if expected not in ("", "100-continue"):
            raise Rejected(RejectionReason.INVALID_REQUEST, "Expect may only be 100-continue", 417)
        self._reservation.acquire(sum(len(name) + len(value) for name, value in self._request.raw_headers))
        compressed = is_gzipped(self._request.headers)
        content = self._request.content
        if content.is_eof() and content.exception() is None:  # it arrived with the head
            body = content.read_nowait()
            self._reservation.acquire(len(body))
            if len(body) > self._limit:
                raise too_large(self._limit)
        else:
            if expected and not content.total_bytes and self._request.transport is not None:
                self._request.transport.write(_CONTINUE)
            body = await self._read_rest()
        if compressed:
            return await self._decoder.decode(body, self._limit, self._reservation)
        return body

    async def _read_rest(self) -> bytes:
        content, reservation, size = self._request.content, self._reservation, 0
        chunks: list[bytes] = []
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._timeouts.to_read(0)) as waiting:
                reservation.on_evict = lambda: waiting.reschedule(began)
                while chunk := await content.readany():
                    size += len(chunk)
                    if size > self._limit:
                        raise too_large(self._limit)
                    reservation.acquire(len(chunk))
                    chunks.append(chunk)
                    waiting.reschedule(began + self._timeouts.to_read(size))
            reservation.on_evict = None
            if (error := content.exception()) is not None:
                raise error
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            reservation.acquire(0)  # raises if it was evicted to make room
            raise too_late() from None
        except (OSError, web.HTTPException, ValueError) as error:
            raise Rejected(RejectionReason.BODY_UNREADABLE, "the request body cannot be read") from error
        finally:
            reservation.on_evict = None
            chunks.clear()  # an exception that keeps this frame keeps no body


class Http1:
    """The HTTP/1.1 server of one worker."""

    def __init__(
        self,
        router: RequestRouter,
        sockets: WebSockets,
        max_body_bytes: Callable[[], int],
        timeouts: ClientTimeouts | None = None,
        decoder: GzipRequestDecoder | None = None,
        first_requests: FirstRequests | None = None,
    ) -> None:
        self._router = router
        self._sockets = sockets
        self._max_body_bytes = max_body_bytes
        self._timeouts = timeouts or ClientTimeouts()
        self._decoder = decoder or GzipRequestDecoder()
        self._server: web.Server | None = None
        self._first_requests = first_requests or FirstRequests()
        self._relays = RelayServer(
            router, max_body_bytes, self._timeouts, self._decoder, self._hand_over, self._first_requests
        )

    async def set_up(self, shutdown_seconds: float) -> web.ServerRunner:
        """Start to serve. The returned runner ends it within `shutdown_seconds`."""
        # An application would answer `Expect: 100-continue` before it is known whether the body is wanted.
        self._server = web.Server(self._handle)
        runner = web.ServerRunner(self._server, handle_signals=False, shutdown_timeout=shutdown_seconds)
        await runner.setup()
        return runner

    async def drain(self, seconds: float) -> None:
        """Wait for the requests of connections that only carried ordinary relays.

        At most `seconds`.
        """
        await self._relays.drain(seconds)

    def __call__(self, connection: Connection) -> RelayConnection:
        """Return the protocol of a new connection."""
        return RelayConnection(self._relays, connection)

    def _hand_over(self, connection: Connection) -> Http1Connection:
        """Return aiohttp's protocol for a connection.

        Its next request is no ordinary relay.
        """
        if self._server is None:
            raise RuntimeError("the HTTP server is not set up")
        try:
            connection.occupy(AIOHTTP_BYTES)
        except Rejected:
            connection.abort()
        address = connection.memory.address
        return Http1Connection(
            self._server,
            connection,
            self._timeouts,
            self._first_requests.turns,
            lambda status: _response(self._router.reject_unreadable(status, address)),
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        if not isinstance(protocol, Http1Connection):
            raise TypeError("the server makes connections of its own")
        turns = self._first_requests
        protocol.connection.begin_request()
        if not protocol.connection.favoured and not turns.take_free_turn(protocol.connection):
            try:
                await turns.turn(protocol.connection)
            except Rejected as rejected:
                return _response(error_reply(rejected))
        if request.headers.get("Upgrade", "").lower() == "websocket":
            try:
                return await self._sockets.bridge(request, protocol)
            except Rejected as rejected:
                refusal = _response(error_reply(rejected))
                refusal.force_close()  # no request can follow an upgrade
                return refusal
            except ConnectionError as error:
                _LOG.debug("upgrade failed", error=error)
                return web.Response()
        reservation = protocol.connection.memory.reserve()
        try:
            return await self._reply(request, protocol, reservation)
        except BaseException as error:
            clear_frames_of(error)
            raise
        finally:
            reservation.close()
            clear_frames_of(request.content.exception())

    async def _reply(
        self, request: web.BaseRequest, protocol: Http1Connection, reservation: MemoryReservation
    ) -> web.StreamResponse:
        body = _Body(request, self._max_body_bytes(), reservation, self._timeouts, self._decoder)
        incoming = IncomingRequest(
            request.method,
            request.raw_path,
            request.headers,
            body.read,
            reservation,
            protocol.connection.trust,
            self._decoder,
        )
        reply = await self._router.answer(incoming)
        content = request.content
        last = protocol.last_request or not content.at_eof() or content.exception() is not None  # no body follows
        if reply.pieces is not None:
            return await self._stream(request, reply)
        if len(reply.body) > _PIECE:
            return await self._write_in_pieces(request, reply, reservation, last=last)
        response = _response(reply)
        if last:
            response.force_close()
        return response

    async def _write_in_pieces(
        self, request: web.BaseRequest, reply: OutgoingResponse, reservation: MemoryReservation, *, last: bool
    ) -> web.StreamResponse:
        """Send a large response within its time, holding only its own bytes meanwhile."""
        response = web.StreamResponse(status=reply.status, headers=_headers(reply))
        response.content_length = len(reply.body)
        if last:
            response.force_close()
        reservation.on_evict = request.transport.abort if request.transport is not None else None
        try:
            async with asyncio.timeout(self._timeouts.to_write(len(reply.body))):
                await response.prepare(request)
                view = memoryview(reply.body)
                for at in range(0, len(view), _PIECE):
                    await response.write(view[at : at + _PIECE])
                await response.write_eof()
        except (TimeoutError, OSError) as error:
            _cut(request, error)
        finally:
            reservation.on_evict = None
        return response

    async def _stream(self, request: web.BaseRequest, reply: OutgoingResponse) -> web.StreamResponse:
        """Send a stream as it comes.

        A failure cuts the connection, since the status is sent already.
        """
        response = web.StreamResponse(status=reply.status, headers={**reply.headers, "Connection": "close"})
        response.force_close()
        try:
            await response.prepare(request)
            if reply.pieces is not None:
                async for piece in reply.pieces:
                    async with asyncio.timeout(self._timeouts.to_write(len(piece))):
                        await response.write(piece)
            await response.write_eof()
        except (Rejected, TimeoutError, OSError) as error:
            _cut(request, error)
        finally:
            if reply.pieces is not None:
                await reply.pieces.aclose()  # refunds what was not mined
        return response


def _cut(request: web.BaseRequest, error: Exception) -> None:
    _LOG.debug("response cut", error=error)
    if request.transport is not None:
        request.transport.abort()


def _headers(reply: OutgoingResponse) -> dict[str, str]:
    return {**reply.headers, **reply.trailers}


def _response(reply: OutgoingResponse) -> web.Response:
    return web.Response(status=reply.status, headers=_headers(reply), body=reply.body)
