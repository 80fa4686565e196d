"""HTTP/1.1: requests with a reply, streams, and WebSocket upgrades, by aiohttp."""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web, web_response

from relayer.rejection import Reason, Rejected
from relayer.transports.endpoints import Endpoints, error_reply
from relayer.transports.replies import (
    IDLE_SECONDS,
    READ_SECONDS,
    WRITE_SECONDS,
    Asked,
    BodyRoom,
    Reply,
    too_large,
    too_late,
)
from relayer.transports.websocket import WebSockets

_LOG = logging.getLogger("relayer.http")
# Of every answer, the parser's own errors too: no versions for strangers.
web_response.SERVER_SOFTWARE = "relayer"  # type: ignore[attr-defined]


class _Body:
    """A body that is read once, within its limit and the worker's room."""

    def __init__(self, request: web.Request, limit: int, room: BodyRoom) -> None:
        self._request = request
        self._limit = limit
        self._room = room
        self._held = 0

    async def read(self) -> bytes:
        """The body; raises Rejected. A client that drips is cut after a minute."""
        if (self._request.content_length or 0) > self._limit:
            raise too_large(self._limit)
        content = self._request.content
        if content.is_eof():  # it came with the head: nothing to wait for
            body = content.read_nowait()
            self._held += self._room.take(len(body))
            if self._held > self._limit:
                raise too_large(self._limit)
            return body
        chunks = []
        try:
            async with asyncio.timeout(READ_SECONDS):
                while chunk := await content.readany():
                    self._held += self._room.take(len(chunk))
                    chunks.append(chunk)
                    if self._held > self._limit:
                        raise too_large(self._limit)
        except TimeoutError:
            raise too_late() from None
        except (OSError, web.HTTPException, ValueError) as error:
            raise Rejected(Reason.BODY_UNREADABLE, "the request body cannot be read") from error
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def close(self) -> None:
        """Gives the room back."""
        self._room.give(self._held)
        self._held = 0


class Http1:
    """Routes of one worker."""

    def __init__(
        self,
        endpoints: Endpoints,
        sockets: WebSockets,
        max_body_bytes: Callable[[], int],
        room: BodyRoom | None = None,
    ) -> None:
        self._room = room or BodyRoom()
        self._endpoints = endpoints
        self._sockets = sockets
        self._max_body_bytes = max_body_bytes

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.router.add_route("*", "", self._answer)  # CONNECT has no path
        return app

    def runner(self, *, shutdown_seconds: float, idle_seconds: float = IDLE_SECONDS) -> web.AppRunner:
        """Serves the application once it is set up; connections without request are closed after `idle_seconds`."""
        return web.AppRunner(
            self.application(), access_log=None, handle_signals=False, shutdown_timeout=shutdown_seconds,
            keepalive_timeout=idle_seconds,
        )  # fmt: skip

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            try:
                return await self._sockets.bridge(request)
            except Rejected as rejected:
                return _response(error_reply(rejected))
        body = _Body(request, self._max_body_bytes(), self._room)
        try:
            reply = await self._endpoints.answer(
                Asked(request.method, request.raw_path, request.headers, body.read, request.remote or "")
            )
        finally:
            body.close()
        if reply.pieces is not None:
            return await _stream(request, reply)
        response = _response(reply)
        if not request.content.at_eof():
            response.force_close()  # what is left of the body is not read
        return response


def _response(reply: Reply) -> web.Response:
    headers = {**reply.headers, **reply.trailers} if reply.trailers else reply.headers
    return web.Response(status=reply.status, headers=headers, body=reply.body)


async def _stream(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Pieces as they come; a failure cuts the connection, since the status is sent."""
    response = web.StreamResponse(status=reply.status, headers={**reply.headers, "Connection": "close"})
    response.force_close()
    try:
        await response.prepare(request)
        if reply.pieces is not None:
            async for piece in reply.pieces:
                async with asyncio.timeout(WRITE_SECONDS):
                    await response.write(piece)
        await response.write_eof()
    except (Rejected, TimeoutError, OSError) as error:
        _LOG.debug("stream cut: %s", error)
        if request.transport is not None:
            request.transport.abort()
    finally:
        if reply.pieces is not None:
            await reply.pieces.aclose()  # refunds what was not mined
    return response
