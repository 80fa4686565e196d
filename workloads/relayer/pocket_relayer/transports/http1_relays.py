"""HTTP/1.1 connections that carry ordinary relays, at a fraction of aiohttp's CPU.

A connection begins here and stays as long as its requests are ordinary: POST with a length, one after the other. At the
first other request (a health check, a chunked body, an upgrade, anything malformed) the connection is handed over to
aiohttp with all bytes of that request, for good.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

import structlog
from structlog.typing import FilteringBoundLogger

from pocket_relayer import relayer_metrics
from pocket_relayer.limits.memory_budget import MemoryReservation, overloaded
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.limits.traceback_frames import clear_frames_of
from pocket_relayer.transports.client_connections import Connection, until_idle
from pocket_relayer.transports.client_timeouts import ClientTimeouts, UploadTimer
from pocket_relayer.transports.first_requests import FirstRequests, cost_of
from pocket_relayer.transports.http1_messages import RequestHead, encode_response_head, parse_head
from pocket_relayer.transports.http1_uploads import Body, Upload
from pocket_relayer.transports.lingering_close import LingeringClose
from pocket_relayer.transports.replies import IncomingRequest, OutgoingResponse, too_late
from pocket_relayer.transports.request_bodies import GzipRequestDecoder
from pocket_relayer.transports.request_router import RequestRouter
from pocket_relayer.transports.unread_timer import UnreadTimer

_LOG: FilteringBoundLogger = structlog.get_logger()
_PIECE: Final = 64 * 1024
_PIPELINED: Final = 64 * 1024
"""Bytes of pipelined requests beyond which aiohttp serves them."""


class RelayServer:
    """What the connections of one worker share."""

    def __init__(
        self,
        router: RequestRouter,
        max_body_bytes: Callable[[], int],
        timeouts: ClientTimeouts,
        decoder: GzipRequestDecoder,
        hand_over: Callable[[Connection], asyncio.Protocol],
        first_requests: FirstRequests,
    ) -> None:
        self.router = router
        self.max_body_bytes = max_body_bytes
        self.timeouts = timeouts
        self.decoder = decoder
        self.hand_over = hand_over
        self.first_requests = first_requests
        self.draining = False
        self.connections: set[RelayConnection] = set()

    async def drain(self, seconds: float) -> None:
        """Close the connections once their current request is answered.

        At the latest after `seconds`.
        """
        self.draining = True
        for connection in list(self.connections):
            connection.close_when_idle()
        await until_idle(self.connections, seconds)
        for connection in list(self.connections):
            connection.connection.abort()


class RelayConnection(asyncio.Protocol):
    """A connection whose requests so far were ordinary relays."""

    def __init__(self, server: RelayServer, connection: Connection) -> None:
        self._server = server
        self.connection = connection
        self.task: asyncio.Task[None] | None = None
        """Serves the current request."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unread = UnreadTimer(self._loop, server.timeouts.write_seconds)
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._upload: Upload | None = None
        self._behind = bytearray()
        self._pipelined = connection.memory.reserve()
        self._half_closed = False
        self._last = False
        self._drained: asyncio.Future[None] | None = None
        self._writing_paused = False
        self._reading_paused = False
        self._upload_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to read."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        self._idle_since = self._loop.time()
        self._idle_timer = self._loop.call_later(self._server.timeouts.idle_seconds, self._check_idle)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release everything that the connection holds.

        A relay in progress goes on: it may be recorded already.
        """
        self._leave()
        self._transport = None
        self.connection.lost()
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the client is gone"))
            self._drained.exception()

    def _leave(self) -> None:
        """Stop all timers and release what was read."""
        self._server.connections.discard(self)
        self._unread.stop()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        upload, self._upload = self._upload, None
        if upload is not None:
            self._end_upload(upload)
            upload.reservation.close()
        self._behind.clear()
        self._pipelined.close()

    def _check_idle(self) -> None:
        seconds = self._server.timeouts.idle_seconds
        left = self._idle_since + seconds - self._loop.time()
        if self.busy:
            left = seconds
        if left > 0:
            self._idle_timer = self._loop.call_later(left, self._check_idle)
        elif self._transport is not None:
            if self._transport.get_write_buffer_size():
                self._transport.abort()  # closing would wait for a client that does not read its last response
            else:
                self._transport.close()

    def close_when_idle(self) -> None:
        """Close the connection unless a request is being read or served."""
        if not self.busy and self._transport is not None:
            self._transport.close()

    @property
    def busy(self) -> bool:
        """Return True while a request is being read or served."""
        return self.task is not None or self._upload is not None

    def data_received(self, data: bytes) -> None:
        """Take the next bytes: of a request, of its body, or behind it."""
        if self.task is not None:
            self._keep_behind(data)
        elif self._upload is not None:
            self._take_upload(self._upload, data)
        else:
            self._take(data)

    def _keep_behind(self, data: bytes) -> None:
        """Keep bytes behind the current request, counted, or end the connection."""
        try:
            self._pipelined.acquire(len(data))
        except Rejected:
            self._behind.clear()
            self.connection.abort()
            return
        self._pipelined.on_evict = self.connection.abort
        self._behind += data
        if len(self._behind) > _PIPELINED and self._transport is not None and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _take(self, data: bytes) -> None:
        """Take the first bytes of a request."""
        parsed = parse_head(data)
        if parsed is None or parsed[0].body_bytes > self._server.max_body_bytes():
            self._hand_over(data)
            return
        head, at = parsed
        reservation = self.connection.memory.reserve()
        if len(data) - at < head.body_bytes:
            self._upload = upload = Upload(head, reservation)
            reservation.on_evict = lambda: self._refuse_upload(upload, overloaded())
            upload.timer = UploadTimer(
                self._server.timeouts, lambda: upload.size, lambda: self._refuse_upload(upload, too_late())
            )
            self._take_upload(upload, data[at:], at)
            return
        end = at + head.body_bytes
        try:
            reservation.acquire(end)
        except Rejected as rejected:
            self._serve(head, Body(b"", rejected), reservation)
        else:
            self._serve(head, Body(data[at:end]), reservation)
        if len(data) > end:
            self._keep_behind(data[end:])

    def _take_upload(self, upload: Upload, data: bytes, head_bytes: int = 0) -> None:
        missing = upload.missing
        part = data[:missing]
        try:
            upload.reservation.acquire(head_bytes + len(part))
        except Rejected as rejected:
            self._refuse_upload(upload, rejected)
            return
        upload.add(part)
        if upload.missing:
            if not self.connection.favoured:
                self._read_on_in_turn(upload, len(part))
            return
        body = b"".join(upload.parts)
        self._end_upload(upload)
        self._serve(upload.head, Body(body), upload.reservation)
        if len(data) > missing:
            self._keep_behind(data[missing:])

    def _read_on_in_turn(self, upload: Upload, size: int) -> None:
        """Read the next part of a body when it is its address's turn.

        `size` is that of the last part.
        """
        turns, transport, cost = self._server.first_requests.turns, self._transport, cost_of(size)
        if transport is None or turns.take_free_turn(cost):
            return
        transport.pause_reading()

        async def read_on() -> None:
            try:
                await turns.turn(self.connection.memory.address, cost)
            except Rejected as rejected:
                self._refuse_upload(upload, rejected)
            if not transport.is_closing() and not self._reading_paused:
                transport.resume_reading()

        upload.pause = self._loop.create_task(read_on())

    def _refuse_upload(self, upload: Upload, rejected: Rejected) -> None:
        """Answer a body that does not arrive, once. The rest of it is not read."""
        if self._upload is not upload:
            return
        self._end_upload(upload)
        self._last = self._upload_refused = True
        self._serve(upload.head, Body(b"", rejected), upload.reservation)

    def _end_upload(self, upload: Upload) -> None:
        self._upload = None
        upload.reservation.on_evict = None
        upload.parts = []
        if upload.timer is not None:
            upload.timer.stop()
            upload.timer = None

    def _hand_over(self, data: bytes) -> None:
        """Hand the connection over to aiohttp with the bytes of its next request."""
        transport, half_closed = self._transport, self._half_closed
        if transport is None or transport.is_closing():
            return
        self._leave()
        self._transport = None
        protocol = self._server.hand_over(self.connection)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)
        if half_closed and not protocol.eof_received():
            transport.close()

    def _serve(self, head: RequestHead, body: Body, reservation: MemoryReservation) -> None:
        self.task = self._loop.create_task(self._answer(head, body, reservation))

    async def _answer(self, head: RequestHead, body: Body, reservation: MemoryReservation) -> None:
        """Serve one request, then take the next one."""
        server = self._server
        close = True
        try:
            self.connection.begin_request()
            if not self.connection.favoured:
                body = await self._await_turn(body)
            incoming = IncomingRequest(
                "POST", head.path, head.headers, body.read, reservation, self.connection.trust, server.decoder
            )
            reply = await server.router.answer(incoming)
            close = server.draining or self._last or not head.keep_alive or (self._half_closed and not self._behind)
            if reply.pieces is not None:
                close = True
                await self._stream(reply)
            else:
                await self._send(reply, reservation, close=close)
            if self._writing_paused:
                await self._until_drained()
        except (Rejected, OSError, ValueError) as error:
            _LOG.debug("response cut", error=error)
            close = True
            self.connection.abort()
        except BaseException as error:
            self.connection.abort()
            clear_frames_of(error)
            raise
        finally:
            reservation.close()
            self.task = None
        self._next(close=close)

    async def _await_turn(self, body: Body) -> Body:
        """Wait for the turn of a connection without a served relay.

        Nothing more of it is read meanwhile. Returns the body to serve, which is a rejection if the turn did not come
        in time.
        """
        turns, transport = self._server.first_requests, self._transport
        if turns.take_free_turn(self.connection, body.size):
            return body
        pause = transport is not None and not self._reading_paused
        if pause and transport is not None:
            transport.pause_reading()
        try:
            await turns.turn(self.connection, body.size)
        except Rejected as rejected:
            body = Body(b"", rejected)
        if self._transport is None:
            raise ConnectionResetError("the client is gone")
        if pause:
            self._transport.resume_reading()
        return body

    def _next(self, *, close: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        self._idle_since = self._loop.time()
        data = bytes(self._behind)
        self._behind.clear()
        self._pipelined.close()
        if close:
            if data or self._upload_refused:
                self._linger(transport)
            else:
                transport.close()
            return
        if self._reading_paused:
            self._reading_paused = False
            transport.resume_reading()
        if len(data) > _PIPELINED:
            self._hand_over(data)  # cutting one request after the other off it would copy the rest each time
        elif data:
            self._take(data)
        elif self._half_closed:
            transport.close()

    def _linger(self, transport: asyncio.Transport) -> None:
        """Close without destroying the response to a client that may still send."""
        self._leave()
        self._transport = None
        LingeringClose(transport, self.connection, self._server.timeouts).start()

    async def _send(self, reply: OutgoingResponse, reservation: MemoryReservation, *, close: bool) -> None:
        """Send a response, a large one within its time."""
        transport, body = self._transport, reply.body
        if transport is None:
            return
        head = encode_response_head(reply, close=close)
        if len(body) <= _PIECE:
            transport.write(head + body)
            return
        transport.write(head)
        reservation.on_evict = self.connection.abort
        try:
            async with asyncio.timeout(self._server.timeouts.to_write(len(body))):
                view = memoryview(body)
                for at in range(0, len(view), _PIECE):
                    transport.write(view[at : at + _PIECE])
                    await self._until_drained()
        finally:
            reservation.on_evict = None

    async def _stream(self, reply: OutgoingResponse) -> None:
        """Send a stream as it comes. A failure cuts the connection after the status."""
        pieces, timeouts = reply.pieces, self._server.timeouts
        if pieces is None:
            return
        try:
            self._write(encode_response_head(reply, chunked=True, close=True))
            async for piece in pieces:
                if not piece:
                    continue
                self._write(b"%x\r\n%b\r\n" % (len(piece), piece))
                if self._writing_paused:
                    async with asyncio.timeout(timeouts.to_write(len(piece))):
                        await self._until_drained()
            self._write(b"0\r\n\r\n")
        finally:
            await pieces.aclose()  # refunds what was not mined

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)

    async def _until_drained(self) -> None:
        """Wait until the client has read enough. Raises ConnectionResetError."""
        if self._transport is None:
            raise ConnectionResetError("the client is gone")
        if self._writing_paused:
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    def pause_writing(self) -> None:
        """Wait for a client that reads slowly, and disconnect one that does not read."""
        self._writing_paused = True
        if self._transport is not None:
            self._unread.start(self._transport, self._abort_unread)

    def resume_writing(self) -> None:
        """Go on writing."""
        self._writing_paused = False
        self._unread.stop()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _abort_unread(self) -> None:
        relayer_metrics.CLOSED.labels("not_read").inc()
        self.connection.abort()

    def eof_received(self) -> bool:
        """Answer the complete requests of a client that sends no more."""
        self._half_closed = True
        return self.task is not None
