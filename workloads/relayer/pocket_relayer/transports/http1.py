"""HTTP/1.1: requests with a reply, streams, and WebSocket upgrades, by aiohttp."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from aiohttp import web, web_response

from pocket_relayer.memory_budget import MemoryReservation
from pocket_relayer.rejection import Rejected, RejectionReason
from pocket_relayer.traceback_frames import clear_frames_of
from pocket_relayer.transports.client_connections import Connection
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http1_connection import Http1Connection
from pocket_relayer.transports.replies import IncomingRequest, OutgoingResponse, too_large, too_late
from pocket_relayer.transports.request_bodies import GzipRequestDecoder, is_packed
from pocket_relayer.transports.request_router import RequestRouter, error_reply
from pocket_relayer.transports.websocket import WebSockets

_LOG = logging.getLogger("relayer.http")
# Of every answer, the parser's own errors too: no versions for strangers.
web_response.SERVER_SOFTWARE = "relayer"  # type: ignore[attr-defined]
_PIECE: Final = 64 * 1024


class _Body:
    """A body that is read once, within its limit, its time and the memory for it."""

    def __init__(
        self,
        request: web.Request,
        limit: int,
        hold: MemoryReservation,
        timeouts: ClientTimeouts,
        decoder: GzipRequestDecoder,
    ) -> None:
        self._request = request
        self._limit = limit
        self._hold = hold
        self._timeouts = timeouts
        self._decoder = decoder

    async def read(self) -> bytes:
        """The body, unpacked; raises Rejected."""
        if (self._request.content_length or 0) > self._limit:
            raise too_large(self._limit)
        packed = is_packed(self._request.headers)
        content = self._request.content
        if content.is_eof():  # it came with the head: nothing to wait for
            body = content.read_nowait()
            self._hold.take(len(body))
            if len(body) > self._limit:
                raise too_large(self._limit)
        else:
            body = await self._rest()
        if packed:
            return await self._decoder.decode(body, self._limit, self._hold)
        return body

    async def _rest(self) -> bytes:
        content, hold, size = self._request.content, self._hold, 0
        chunks: list[bytes] = []
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._timeouts.to_read(0)) as waiting:
                hold.drop = lambda: waiting.reschedule(began)
                while chunk := await content.readany():
                    size += len(chunk)
                    if size > self._limit:
                        raise too_large(self._limit)
                    hold.take(len(chunk))
                    chunks.append(chunk)
                    waiting.reschedule(began + self._timeouts.to_read(size))
            hold.drop = None
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            hold.take(0)  # tells where it was dropped to make room
            raise too_late() from None
        except (OSError, web.HTTPException, ValueError) as error:
            raise Rejected(RejectionReason.BODY_UNREADABLE, "the request body cannot be read") from error
        finally:
            hold.drop = None
            chunks.clear()  # whatever keeps this frame keeps no body


class Http1:
    """Routes of one worker."""

    def __init__(
        self,
        endpoints: RequestRouter,
        sockets: WebSockets,
        max_body_bytes: Callable[[], int],
        timeouts: ClientTimeouts | None = None,
        decoder: GzipRequestDecoder | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._sockets = sockets
        self._max_body_bytes = max_body_bytes
        self._timeouts = timeouts or ClientTimeouts()
        self._decoder = decoder or GzipRequestDecoder()
        self._server: web.Server | None = None

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.router.add_route("*", "", self._answer)  # CONNECT has no path
        return app

    async def set_up(self, shutdown_seconds: float) -> web.AppRunner:
        """Begin to serve; the runner that is returned ends it within `shutdown_seconds`."""
        runner = web.AppRunner(
            self.application(), access_log=None, handle_signals=False, shutdown_timeout=shutdown_seconds
        )
        await runner.setup()
        self._server = runner.server
        return runner

    def __call__(self, connection: Connection) -> Http1Connection:
        """A protocol for a new connection."""
        if self._server is None:
            raise RuntimeError("the HTTP server is not set up")
        return Http1Connection(self._server, connection, self._timeouts)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        protocol = request.protocol
        if not isinstance(protocol, Http1Connection):
            raise TypeError("the server makes connections of its own")
        if request.headers.get("Upgrade", "").lower() == "websocket":
            try:
                return await self._sockets.bridge(request, protocol)
            except Rejected as rejected:
                refusal = _response(error_reply(rejected))
                refusal.force_close()  # what follows an upgrade is no request
                return refusal
            except ConnectionError as error:
                _LOG.debug("upgrade: %s", error)
                return web.Response()
        hold = protocol.connection.memory.hold()
        try:
            return await self._replied(request, protocol, hold)
        except BaseException as error:
            clear_frames_of(error)
            raise
        finally:
            hold.close()
            clear_frames_of(request.content.exception())

    async def _replied(
        self, request: web.Request, protocol: Http1Connection, hold: MemoryReservation
    ) -> web.StreamResponse:
        body = _Body(request, self._max_body_bytes(), hold, self._timeouts, self._decoder)
        asked = IncomingRequest(
            request.method,
            request.raw_path,
            request.headers,
            body.read,
            hold,
            protocol.connection.prove,
            self._decoder,
        )
        reply = await self._endpoints.answer(asked)
        last = protocol.last_request or not request.content.at_eof()  # what is left of a body is not read
        if reply.pieces is not None:
            return await self._stream(request, reply)
        if len(reply.body) > _PIECE:
            return await self._in_pieces(request, reply, hold, last=last)
        response = _response(reply)
        if last:
            response.force_close()
        return response

    async def _in_pieces(
        self, request: web.Request, reply: OutgoingResponse, hold: MemoryReservation, *, last: bool
    ) -> web.StreamResponse:
        """Send a large answer within its time; only its own bytes are held while the client takes them."""
        response = web.StreamResponse(status=reply.status, headers=_headers(reply))
        response.content_length = len(reply.body)
        if last:
            response.force_close()
        hold.drop = request.transport.abort if request.transport is not None else None
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
            hold.drop = None
        return response

    async def _stream(self, request: web.Request, reply: OutgoingResponse) -> web.StreamResponse:
        """Pieces as they come; a failure cuts the connection, since the status is sent."""
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


def _cut(request: web.Request, error: Exception) -> None:
    _LOG.debug("answer cut: %s", error)
    if request.transport is not None:
        request.transport.abort()


def _headers(reply: OutgoingResponse) -> dict[str, str]:
    return {**reply.headers, **reply.trailers}


def _response(reply: OutgoingResponse) -> web.Response:
    return web.Response(status=reply.status, headers=_headers(reply), body=reply.body)
