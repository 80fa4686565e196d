"""Serve cleartext HTTP/2 with prior knowledge for gRPC and relays, through h2."""

import asyncio
import functools
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

import structlog
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
from h2.exceptions import DenialOfServiceError, H2Error, ProtocolError
from h2.settings import SettingCodes
from structlog.typing import FilteringBoundLogger

from pocket_relayer import relayer_metrics
from pocket_relayer.limits.memory_budget import overloaded
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.limits.traceback_frames import clear_frames_of
from pocket_relayer.pipeline.fair_queue import QUANTUM, FairQueue
from pocket_relayer.transports.client_connections import Connection, until_idle
from pocket_relayer.transports.client_timeouts import ClientTimeouts, UploadTimer
from pocket_relayer.transports.fair_input import FairInput
from pocket_relayer.transports.first_requests import FirstRequests
from pocket_relayer.transports.http2_frames import FrameBudget
from pocket_relayer.transports.http2_memory import Http2Memory
from pocket_relayer.transports.http2_protocol import HEADER_LIST, ServerProtocol, go_away_frame
from pocket_relayer.transports.http2_responses import Http2Responses
from pocket_relayer.transports.http2_streams import StrangersUploads, Stream, decode_fields
from pocket_relayer.transports.lingering_close import LingeringClose
from pocket_relayer.transports.replies import IncomingRequest, OutgoingResponse, too_late
from pocket_relayer.transports.request_bodies import GzipRequestDecoder
from pocket_relayer.transports.request_router import RequestRouter, needs_body
from pocket_relayer.transports.unread_timer import UnreadTimer

_LOG: FilteringBoundLogger = structlog.get_logger()
_STREAMS: Final = 250
_STRANGERS_STREAMS: Final = 100
"""Streams before a served relay: what h2 announces first. gRPC may wait for ever after a later, lower number."""
_STREAM_BYTES: Final = 8 * 1024  # memory of an open stream in addition to its headers and body
_HEADERS_COST: Final = 200.0  # resets: a list that is too long takes milliseconds to decode
_TURNS: Final = QUANTUM
"""Cost of what strangers sent that one iteration of the event loop handles. A relay takes about ten iterations."""


class Http2Server:
    """The HTTP/2 server of one worker."""

    def __init__(
        self,
        router: RequestRouter,
        max_body_bytes: Callable[[], int],
        timeouts: ClientTimeouts | None = None,
        decoder: GzipRequestDecoder | None = None,
    ) -> None:
        self.decoder = decoder or GzipRequestDecoder()
        self.timeouts = timeouts or ClientTimeouts()
        self.router = router
        self.max_body_bytes = max_body_bytes
        self.turns = FairQueue(time.monotonic, per_iteration=_TURNS, gives_way=router.serves_relays)
        self.first_requests = FirstRequests(self.turns, burst=_STRANGERS_STREAMS)
        self.uploads = StrangersUploads()
        self.connections: set[Http2Connection] = set()

    def __call__(self, connection: Connection) -> "Http2Connection":
        """Return the protocol of a new connection."""
        return Http2Connection(self, connection)

    async def drain(self, seconds: float) -> None:
        """Ask all clients to connect elsewhere, and wait for running requests."""
        for connection in list(self.connections):
            connection.go_away()
        await until_idle(self.connections, seconds)
        for connection in list(self.connections):
            connection.close()


class Http2Connection(asyncio.Protocol):
    """One HTTP/2 connection. A task serves each stream whose body has arrived."""

    def __init__(self, server: Http2Server, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._frames = FrameBudget()
        self._h2 = ServerProtocol(self._frames.take_fields)
        memory = self._memory = Http2Memory(connection)
        self._input = FairInput(server.turns, connection, self._receive, self._resume_reading, before_wait=memory.hold)
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._takes_input = False
        self._responses = Http2Responses(self._h2, self._frames, server.timeouts, self._flush)
        self._unread = UnreadTimer(asyncio.get_running_loop(), server.timeouts.write_seconds)
        self._active_at = 0.0
        self._requested_at = 0.0
        """Time of the latest request. PING and other frames keep no connection."""
        self._allowed_streams = _STRANGERS_STREAMS
        self._draining = False
        self._idle: asyncio.TimerHandle | None = None
        self._abort: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Return True while a request is being read or served."""
        return bool(self._streams)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the connection with our settings."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        if not self._memory.open():
            return
        self._h2.open(self._allowed_streams)
        self._flush()
        self._active_at = self._requested_at = asyncio.get_running_loop().time()
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        """Close the connection after a long time without requests."""
        loop, seconds = asyncio.get_running_loop(), self._server.timeouts.idle_seconds
        left = seconds if self.busy else self._requested_at + seconds - loop.time()
        if left <= 0:
            self.go_away()
            self.close()
            return
        self._idle = loop.call_later(left, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place of this client and cancel what runs for it."""
        self._leave()
        self._connection.lost()

    def _leave(self) -> None:
        """Stop all timers and tasks."""
        self._unread.stop()
        self._input.close()
        for timer in (self._idle, self._abort):
            if timer is not None:
                timer.cancel()
        self._transport = None
        self._server.connections.discard(self)
        self._responses.close()
        for stream in list(self._streams.values()):
            self._end(stream)
        self._h2.release()
        self._memory.close()

    def pause_writing(self) -> None:
        """Pause reading from a client that does not read, and start its timer."""
        self._responses.writable.clear()
        if self._transport is not None:
            self._transport.pause_reading()
            self._unread.start(self._transport, self._abort_unread)

    def resume_writing(self) -> None:
        """Resume reading, and stop the timer."""
        self._responses.writable.set()
        self._unread.stop()
        self._resume_reading()

    def _resume_reading(self) -> None:
        """Read on if the client reads, and if nothing waits to be parsed."""
        if self._transport is not None and self._responses.writable.is_set() and not self._input.waits:
            self._transport.resume_reading()

    def _abort_unread(self) -> None:
        relayer_metrics.CLOSED.labels("not_read").inc()
        self._connection.abort()

    def go_away(self) -> None:
        """Reject new streams. Those that run are served to their end."""
        if self._transport is None or self._draining:
            return
        self._draining = True
        self._flush()
        self._transport.write(go_away_frame(self._h2.highest_inbound_stream_id))

    def close(self) -> None:
        """Close the connection, at once if its client does not read what was written."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            loop, seconds = asyncio.get_running_loop(), self._server.timeouts.linger_seconds
            self._abort = loop.call_later(seconds, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Handle the next bytes, in turns until a relay of the connection is served."""
        if self._connection.favoured and not self._input.waits:
            self._receive(data)
        elif self._transport is not None:
            self._takes_input = True
            self._input.take(self._transport, data)
            self._takes_input = False
            if self._transport is not None:
                self._memory.release(idle=not self._streams)

    def _receive(self, data: bytes) -> None:
        """Handle bytes, unless the client exceeds its frame budget."""
        now = self._active_at = asyncio.get_running_loop().time()
        self._memory.hold()
        if not self._frames.take(data, now):
            self._reject_flood()
            return
        try:
            events = self._h2.receive_data(data)
        except DenialOfServiceError:
            self._reject_flood()
            return
        except (ProtocolError, ValueError):
            self._flush()
            self.close()
            return
        if not self._memory.count_unparsed(self._h2.unparsed_bytes):
            return
        contents = 0
        for event in events:
            contents += isinstance(event, DataReceived)
            if not self._handle(event):
                return
        if not self._frames.take_content(contents, now):
            self._reject_flood()
            return
        self._memory.release(idle=not self._streams)
        self._flush()

    def _handle(self, event: Event) -> bool:
        """Handle an event and return True if the connection goes on."""
        if self._transport is None or self._transport.is_closing():
            return False
        try:
            if isinstance(event, RequestReceived):
                self._open_stream(event)
            elif isinstance(event, DataReceived):
                self._receive_data(event)
            elif isinstance(event, StreamEnded):
                self._complete(event)
            elif isinstance(event, StreamReset):
                self._reset(event)
            elif isinstance(event, WindowUpdated):
                self._responses.on_window(event.stream_id or 0)
            elif isinstance(event, RemoteSettingsChanged) and not self._responses.on_settings(event, self._active_at):
                self._reject_flood()
                return False
            elif isinstance(event, ConnectionTerminated):
                self._flush()
                self.close()
                return False
        except H2Error as error:
            _LOG.debug("connection cut", error=error)
            self._flush()
            self.close()
            return False
        return True

    def _open_stream(self, event: RequestReceived) -> None:
        number = event.stream_id
        if number is None or event.headers is None:
            return
        now = self._requested_at = self._active_at
        self._memory.on_request()
        self._connection.begin_request()
        size = sum(len(name) + len(value) + 32 for name, value in event.headers)
        if size > HEADER_LIST:
            self._reject_stream(number, ErrorCodes.ENHANCE_YOUR_CALM, _HEADERS_COST, now)
            return
        if self._draining or len(self._streams) >= self._allowed_streams:
            self._reject_stream(number, ErrorCodes.REFUSED_STREAM, 1.0, now)
            return
        reservation = self._connection.memory.reserve()
        try:
            reservation.acquire(size + _STREAM_BYTES)
        except Rejected:
            self._reject_stream(number, ErrorCodes.REFUSED_STREAM, 1.0, now)
            return
        headers = decode_fields(event.headers)
        stream = self._streams[number] = Stream(number, headers, reservation)
        if event.stream_ended is not None:
            return  # its end is the next event
        if not needs_body(stream.header(":method"), stream.header(":path"), headers):
            self._start(stream)
            return
        reservation.on_evict = functools.partial(self._evict_upload, stream)
        if not self._connection.trusted:
            self._server.uploads.add(stream, functools.partial(self._refuse_upload, stream))
        stream.timer = UploadTimer(
            self._server.timeouts, lambda: len(stream.body), lambda: self._reject_upload(stream, too_late())
        )

    def _complete(self, event: StreamEnded) -> None:
        """Serve a stream whose body has arrived."""
        if (stream := self._streams.get(event.stream_id or 0)) is not None:
            stream.complete = True
            if stream.task is None:
                self._start(stream)

    def _start(self, stream: Stream) -> None:
        stream.end_upload()
        self._server.uploads.discard(stream)
        stream.task = asyncio.get_running_loop().create_task(self._serve(stream))
        stream.task.add_done_callback(lambda _: self._end(stream))  # a task that is cancelled at once never runs

    def _reject_upload(self, stream: Stream, rejection: Rejected) -> None:
        """Answer a body that is not taken, once. The rest of it is not read."""
        stream.end_upload(rejection)
        self._start(stream)

    def _evict_upload(self, stream: Stream) -> None:
        """End an unfinished stream, and answer a stranger only if its client needs room."""
        if self._connection.trusted or self._takes_input or self._memory.handling:
            self._reject_upload(stream, overloaded())
        else:
            self._refuse_upload(stream)

    def _refuse_upload(self, stream: Stream) -> None:
        self._end(stream)
        self._h2.reset_if_open(stream.number, ErrorCodes.REFUSED_STREAM)
        self._flush()

    def _end(self, stream: Stream) -> None:
        """Free a stream, and cancel what serves it unless its relay is charged."""
        if stream.charged and stream.task is not None and not stream.task.done():
            stream.closed = True
            return
        self._streams.pop(stream.number, None)
        self._server.uploads.discard(stream)
        task, stream.task = stream.task, None  # a cancelled task holds its frame, and with it this stream
        stream.close()
        if task is not None:
            task.cancel()
        self._memory.on_stream_ended(idle=not self._streams)

    def _trust(self) -> None:
        """Keep this connection and allow it more: it served a relay."""
        self._connection.trust()
        self._frames.trust()
        if self._allowed_streams < _STREAMS and self._transport is not None:
            self._allowed_streams = _STREAMS
            self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: _STREAMS})

    def _reject_stream(self, number: int, code: ErrorCodes, cost: float, now: float) -> None:
        """Reject a stream. A client that continues like this loses its connection."""
        if not self._frames.allows_rejection(cost, now):
            self._reject_flood()
            return
        self._h2.reset_if_open(number, code)

    def _reject_flood(self) -> None:
        """End the connection of a client that floods it."""
        relayer_metrics.CLOSED.labels("flood").inc()
        with suppress(H2Error):
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
        self._flush()
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._leave()
            LingeringClose(transport, self._connection, self._server.timeouts).start()

    def _receive_data(self, event: DataReceived) -> None:
        if event.stream_id is None or event.data is None:
            return
        stream = self._streams.get(event.stream_id)
        self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        if stream is None or stream.rejection is not None or stream.task is not None:
            return
        try:
            stream.take(event.data, self._server.max_body_bytes())
        except Rejected as rejected:
            if stream.task is None and not stream.closed:  # it did not make room for itself
                self._reject_upload(stream, rejected)

    def _reset(self, event: StreamReset) -> None:
        if (stream := self._streams.get(event.stream_id or 0)) is not None:
            self._end(stream)

    async def _serve(self, stream: Stream) -> None:
        """Serve one stream. Only cancellation leaves it."""
        headers, number = stream.headers, stream.number
        server = self._server
        read = functools.partial(stream.read_decoded, server.decoder, server.max_body_bytes)
        reply: OutgoingResponse | None = None
        try:
            if not self._connection.favoured and not server.first_requests.take_free_turn(self._connection):
                await server.first_requests.turn(self._connection)
            incoming = IncomingRequest(
                stream.header(":method"), stream.header(":path"), headers, read, stream.reservation,
                self._trust, server.decoder, stream.on_charged,
            )  # fmt: skip
            reply = await server.router.answer(incoming)
            stream.charged = False
            stream.reservation.on_evict = lambda: self._evict(number, stream)
            await self._responses.send(stream, reply)
            if not stream.complete and not stream.closed and self._transport is not None:
                # The client need not send the rest of its body. gRPC clients wait for this reset.
                self._h2.reset_stream(number, ErrorCodes.NO_ERROR)
                self._flush()
        except (H2Error, TimeoutError, OSError, ValueError, Rejected) as error:
            _LOG.debug("stream cut", error=error)
            if not stream.closed and self._transport is not None:
                refused = isinstance(error, Rejected) and reply is None
                self._h2.reset_if_open(number, ErrorCodes.REFUSED_STREAM if refused else ErrorCodes.CANCEL)
                self._flush()
            clear_frames_of(error)
        except asyncio.CancelledError as error:
            clear_frames_of(error)
            raise
        finally:
            if reply is not None and reply.pieces is not None:
                await reply.pieces.aclose()  # refunds what was not mined

    def _evict(self, number: int, stream: Stream) -> None:
        """End a stream whose response is not read while its memory is needed."""
        stream.closed = True
        self._h2.reset_if_open(number, ErrorCodes.CANCEL)
        self._responses.on_closed(number)
        self._flush()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
