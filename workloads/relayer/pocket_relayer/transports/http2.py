"""Cleartext HTTP/2 with prior knowledge: gRPC, and relays as over HTTP/1.1, by the h2 library."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes
from hpack import Decoder
from multidict import CIMultiDict

from pocket_relayer import relayer_metrics
from pocket_relayer.memory_budget import MemoryReservation, overloaded
from pocket_relayer.rejection import Rejected
from pocket_relayer.traceback_frames import clear_frames_of
from pocket_relayer.transports.client_connections import Connection
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http2_frames import FrameBudget
from pocket_relayer.transports.replies import IncomingRequest, OutgoingResponse, too_large, too_late
from pocket_relayer.transports.request_bodies import GzipRequestDecoder, is_packed
from pocket_relayer.transports.request_router import RequestRouter

_LOG = logging.getLogger("relayer.http2")
_STREAMS: Final = 250
_WINDOW: Final = 1024 * 1024
_HEADER_LIST: Final = 64 * 1024  # bytes of a request's headers; more of them end its stream ...
_HEADER_LIST_READ: Final = 1024 * 1024  # ... and the connection beyond what is read to keep the compression's state
_HEADERS_COST: Final = 50.0  # resets
_NOT_IN_HTTP2 = {"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"}


@dataclass(slots=True)
class _Stream:
    headers: CIMultiDict[str]
    hold: MemoryReservation
    began: float
    body: bytearray = field(default_factory=bytearray)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    refused: Rejected | None = None
    whole: bool = False
    gone: bool = False
    task: "asyncio.Task[None] | None" = None

    def refuse(self, refused: Rejected) -> None:
        """Let the reader of the body be told, and forget what came of it."""
        self.refused = refused
        self.hold.drop = None
        self.body.clear()
        self.ended.set()


class _Decoder(Decoder):
    """Reads longer lists of headers than clients are told of: what is too long ends its stream, not the connection."""

    @property
    def max_header_list_size(self) -> int:
        """Asked for by hpack."""
        return _HEADER_LIST_READ

    @max_header_list_size.setter
    def max_header_list_size(self, announced: int) -> None:
        """Called by h2 with what clients are told."""


class _Protocol(H2Connection):
    """h2, without its limit of open streams: a stream beyond ours is refused, the connection goes on."""

    def __init__(self) -> None:
        super().__init__(H2Configuration(client_side=False, header_encoding="utf-8"))
        table = self.decoder.max_allowed_table_size
        self.decoder = _Decoder()
        self.decoder.max_allowed_table_size = table

    @property
    def open_inbound_streams(self) -> int:
        """Called by h2 before it opens a stream; to count them makes it forget those that are closed."""
        return min(super().open_inbound_streams, 0)


class Http2Server:
    """Connections of one worker."""

    def __init__(
        self,
        endpoints: RequestRouter,
        max_body_bytes: Callable[[], int],
        timeouts: ClientTimeouts | None = None,
        decoder: GzipRequestDecoder | None = None,
    ) -> None:
        self.decoder = decoder or GzipRequestDecoder()
        self.timeouts = timeouts or ClientTimeouts()
        self.endpoints = endpoints
        self.max_body_bytes = max_body_bytes
        self.connections: set[Http2Connection] = set()

    def __call__(self, connection: Connection) -> "Http2Connection":
        """A protocol for a new connection."""
        return Http2Connection(self, connection)

    async def drain(self, seconds: float) -> None:
        """Tells all clients to go elsewhere, and waits for what runs."""
        for connection in list(self.connections):
            connection.leave()
        running = [task for connection in self.connections for task in connection.tasks]
        if running:
            await asyncio.wait(running, timeout=seconds)
        for connection in list(self.connections):
            connection.close()


class Http2Connection(asyncio.Protocol):
    """One connection; each stream is served by a task that belongs to it."""

    def __init__(self, server: Http2Server, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._frames = FrameBudget()
        self._h2 = _Protocol()
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, _Stream] = {}
        self._room = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._late: asyncio.TimerHandle | None = None
        self._active_at = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when the connection is handed over."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        self._h2.initiate_connection()
        # Not before: what is changed before is believed to be agreed on, though the client never hears of it.
        self._h2.update_settings(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: _STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: _HEADER_LIST,
            }
        )
        self._h2.increment_flow_control_window(4 * _WINDOW)
        self._flush()
        self._active_at = asyncio.get_running_loop().time()
        self._look()

    def _look(self) -> None:
        """Closes the connection when it carried nothing for long."""
        loop, seconds = asyncio.get_running_loop(), self._server.timeouts.idle_seconds
        left = seconds if self.tasks else self._active_at + seconds - loop.time()
        if left <= 0:
            self.leave()
            self.close()
            return
        self._idle = loop.call_later(left, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop: what runs for this client is cancelled."""
        for timer in (self._idle, self._late):
            if timer is not None:
                timer.cancel()
        self._transport = None
        self._connection.lost()
        self._server.connections.discard(self)
        self._room.set()
        self._writable.set()
        for stream in self._streams.values():
            stream.gone = True
        for task in self.tasks:
            task.cancel()

    def pause_writing(self) -> None:
        """Called by the event loop: who does not take what is sent is not asked for more, and dropped after a while."""
        self._writable.clear()
        if self._transport is not None:
            self._transport.pause_reading()
        self._late = asyncio.get_running_loop().call_later(self._server.timeouts.write_seconds, self._not_read)

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._writable.set()
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._transport is not None:
            self._transport.resume_reading()

    def _not_read(self) -> None:
        relayer_metrics.CLOSED.labels("not_read").inc()
        self._connection.abort()

    def leave(self) -> None:
        """No new streams."""
        if self._transport is not None:
            with suppress(H2Error):
                # Last stream id of all ones would allow new streams: this refuses them.
                self._h2.close_connection(last_stream_id=max(self._streams, default=0))
                self._flush()

    def close(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        now = self._active_at = asyncio.get_running_loop().time()
        if not self._frames.take(data, now):
            self._calm()
            return
        try:
            events = self._h2.receive_data(data)
        except (ProtocolError, ValueError, UnicodeDecodeError):
            self._flush()
            self.close()
            return
        for event in events:
            if not self._handle(event):
                return
        self._flush()

    def _handle(self, event: Event) -> bool:
        """Whether the connection goes on."""
        try:
            if isinstance(event, RequestReceived):
                self._begin(event)
            elif isinstance(event, DataReceived):
                self._take(event)
            elif isinstance(event, StreamEnded):
                if event.stream_id in self._streams:
                    self._streams[event.stream_id].whole = True
                    self._streams[event.stream_id].ended.set()
            elif isinstance(event, StreamReset):
                self._reset(event)
            elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
                self._room.set()
            elif isinstance(event, ConnectionTerminated):
                self._flush()
                self.close()
                return False
        except H2Error as error:
            _LOG.debug("connection cut: %s", error)
            self._flush()
            self.close()
            return False
        return True

    def _begin(self, event: RequestReceived) -> None:
        number = event.stream_id
        if number is None or event.headers is None:
            return
        loop = asyncio.get_running_loop()
        size = sum(len(name) + len(value) + 32 for name, value in event.headers)
        if size > _HEADER_LIST:
            self._refuse(number, ErrorCodes.ENHANCE_YOUR_CALM, _HEADERS_COST, loop.time())
            return
        if len(self.tasks) >= _STREAMS:
            self._refuse(number, ErrorCodes.REFUSED_STREAM, 1.0, loop.time())
            return
        headers: CIMultiDict[str] = CIMultiDict()
        for name, value in event.headers:
            headers.add(_text(name), _text(value))
        stream = self._streams[number] = _Stream(headers, self._connection.memory.hold(), loop.time())
        stream.task = loop.create_task(self._serve(number, stream))
        self.tasks.add(stream.task)
        stream.task.add_done_callback(self.tasks.discard)

    def _refuse(self, number: int, code: ErrorCodes, cost: float, now: float) -> None:
        """Ends a stream; a client that goes on so ends its connection."""
        if not self._frames.refused(cost, now):
            self._calm()
            return
        with suppress(H2Error):
            self._h2.reset_stream(number, code)

    def _calm(self) -> None:
        """Ends the connection of a client that floods it."""
        relayer_metrics.CLOSED.labels("flood").inc()
        with suppress(H2Error):
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
        self._flush()
        self.close()

    def _take(self, event: DataReceived) -> None:
        if event.stream_id is None or event.data is None:
            return
        stream = self._streams.get(event.stream_id)
        self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        if stream is None or stream.refused is not None:
            return
        try:
            stream.hold.take(len(event.data))
            stream.body += event.data
            if len(stream.body) > self._server.max_body_bytes() + 5:
                raise too_large(self._server.max_body_bytes())
        except Rejected as refused:
            stream.refuse(refused)

    def _reset(self, event: StreamReset) -> None:
        stream = self._streams.pop(event.stream_id, None) if event.stream_id is not None else None
        if stream is not None:
            stream.gone = True
            if stream.task is not None:
                stream.task.cancel()
        self._room.set()

    async def _serve(self, number: int, stream: _Stream) -> None:
        """Answers one stream; only cancellation leaves it."""
        headers = stream.headers

        async def read() -> bytes:
            return await self._whole(stream)

        reply: OutgoingResponse | None = None
        try:
            asked = IncomingRequest(
                headers.get(":method", ""), headers.get(":path", ""), headers, read, stream.hold,
                self._connection.prove, self._server.decoder,
            )  # fmt: skip
            reply = await self._server.endpoints.answer(asked)
            stream.hold.drop = lambda: self._give_up(number, stream)
            await self._send(number, stream, reply)
            if not stream.whole and not stream.gone and self._transport is not None:
                # Answered before all was sent: the client need not send the rest, and gRPC waits for being told.
                self._h2.reset_stream(number, ErrorCodes.NO_ERROR)
                self._flush()
        except (H2Error, TimeoutError, OSError, Rejected) as error:
            _LOG.debug("stream cut: %s", error)
            if not stream.gone and self._transport is not None:
                with suppress(H2Error):
                    self._h2.reset_stream(number, ErrorCodes.CANCEL)
                self._flush()
            clear_frames_of(error)
        except asyncio.CancelledError as error:
            clear_frames_of(error)
            raise
        finally:
            if reply is not None and reply.pieces is not None:
                await reply.pieces.aclose()  # refunds what was not mined
            stream.body.clear()
            stream.hold.close()
            self._streams.pop(number, None)

    async def _whole(self, stream: _Stream) -> bytes:
        """The body of a stream once it is whole; raises Rejected. It must go on coming."""
        loop, timeouts = asyncio.get_running_loop(), self._server.timeouts
        stream.hold.drop = lambda: stream.refuse(overloaded())
        while not stream.ended.is_set():
            left = stream.began + timeouts.to_read(len(stream.body)) - loop.time()
            if left <= 0:
                raise too_late()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await stream.ended.wait()
        stream.hold.drop = None
        if stream.refused is not None:
            raise stream.refused
        body = bytes(stream.body)
        stream.body.clear()
        if is_packed(stream.headers):
            return await self._server.decoder.decode(body, self._server.max_body_bytes(), stream.hold)
        return body

    def _give_up(self, number: int, stream: _Stream) -> None:
        """Ends a stream whose answer is not taken while its memory is needed."""
        stream.gone = True
        with suppress(H2Error):
            self._h2.reset_stream(number, ErrorCodes.CANCEL)
        self._room.set()
        self._flush()

    async def _send(self, number: int, stream: _Stream, reply: OutgoingResponse) -> None:
        headers = [(":status", str(reply.status))]
        headers += [(n.lower(), v) for n, v in reply.headers.items() if n.lower() not in _NOT_IN_HTTP2]
        empty = not reply.body and reply.pieces is None and not reply.trailers
        if stream.gone:
            return
        self._h2.send_headers(number, headers, end_stream=empty)
        self._flush()
        if empty:
            return
        await self._send_data(number, stream, reply.body)
        if reply.pieces is not None:
            async for piece in reply.pieces:
                await self._send_data(number, stream, piece)
        if stream.gone:
            return
        if reply.trailers:
            self._h2.send_headers(number, list(reply.trailers.items()), end_stream=True)
        else:
            self._h2.end_stream(number)
        self._flush()

    async def _send_data(self, number: int, stream: _Stream, data: bytes) -> None:
        view = memoryview(data)
        async with asyncio.timeout(self._server.timeouts.to_write(len(data))):
            while view and not stream.gone:
                await self._writable.wait()
                while not stream.gone and self._h2.local_flow_control_window(number) <= 0:
                    self._room.clear()
                    await self._room.wait()
                if stream.gone:
                    return
                room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size, len(view))
                self._h2.send_data(number, bytes(view[:room]))
                self._frames.sent(1)
                view = view[room:]
                self._flush()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
