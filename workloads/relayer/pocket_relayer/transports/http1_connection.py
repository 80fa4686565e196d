"""aiohttp's connection, hardened for an open port.

A half-closed client gets its responses, and a client that reads nothing is disconnected.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from pocket_relayer import relayer_metrics
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.limits.traceback_frames import clear_frames_of
from pocket_relayer.pipeline.fair_queue import FairQueue
from pocket_relayer.transports.client_connections import Connection
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.fair_input import FairInput
from pocket_relayer.transports.lingering_close import LingeringClose
from pocket_relayer.transports.unread_timer import UnreadTimer
from pocket_relayer.transports.websocket_frames import IncomingMessages

AIOHTTP_BYTES: Final = 12 * 1024
"""Memory of a connection that aiohttp serves."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Limit of a request's line and header fields."""
_FIRST_PORTION: Final = 1024  # bytes of the first portion that is parsed: an ordinary head, or 170 chunks of a byte
_HEAD_TOO_LARGE: Final = "Request Header Fields Too Large"
_IDLE_POLL_SECONDS: Final = 1.0  # interval of the check if a half-closed client has all its responses


class Http1Connection(web.RequestHandler):
    """One HTTP/1.1 connection."""

    __slots__ = (
        "_ends_after_input",
        "_input",
        "_payload",
        "_pipelined",
        "_reading_ended",
        "_reject_unreadable",
        "_timeouts",
        "_unparsed",
        "_unread",
        "connection",
        "half_closed",
        "incoming",
        "on_overload",
    )  # fmt: skip

    def __init__(
        self,
        server: web.Server,
        connection: Connection,
        timeouts: ClientTimeouts,
        turns: FairQueue,
        reject_unreadable: Callable[[int], web.Response],
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            server, loop=loop, keepalive_timeout=timeouts.idle_seconds, auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]
        )  # fmt: skip
        # aiohttp's parser goes on counting a request that was taken from the queue before its body had come. So it may
        # stop one request earlier than the queue is full, and only a full queue makes aiohttp parse the rest later.
        self._max_msg_queue_size -= 1
        self.connection = connection
        self._timeouts = timeouts
        self._reject_unreadable = reject_unreadable
        self._unread = UnreadTimer(loop, timeouts.write_seconds)
        self._input = FairInput(
            turns, connection, self._receive, self._on_input_parsed, ready=self._takes_input,
            first_portion=_FIRST_PORTION,
        )  # fmt: skip
        self._ends_after_input = False
        self._reading_ended = False
        self._payload: StreamReader | None = None  # of the last request
        self._unparsed = connection.memory.reserve()
        self._pipelined = connection.memory.reserve()
        self.half_closed = False
        self.incoming: IncomingMessages | None = None
        self.on_overload: Callable[[], None] = connection.abort
        """Ends a WebSocket that sends more than there is room for."""

    @property
    def last_request(self) -> bool:
        """Return True if the client sends no other request after the current one."""
        return self.half_closed and not self._messages

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release everything that the connection holds."""
        self.connection.lost()
        self._leave(exc)

    def _leave(self, exc: BaseException | None) -> None:
        """Stop all timers and release what was read."""
        self._unread.stop()
        self._input.close()
        self._stop_reading()
        if self.incoming is not None:
            self.incoming.close()
        super().connection_lost(exc)
        self._messages.clear()
        self._pipelined.close()

    def data_received(self, data: bytes) -> None:
        """Feed the parser in portions and in turns.

        Frames of a WebSocket that serves relays do not wait.
        """
        if not data or (self._upgraded and self.connection.favoured and not self._input.waits):
            self._receive(data)
        elif self.transport is not None and not self._reading_ended:
            self._input.take(self.transport, data)

    def _takes_input(self) -> bool:
        """Return False while aiohttp keeps its input.

        It parses all of it later at once.
        """
        return not (self._reading_paused or self._buffer_paused)

    def _on_input_parsed(self) -> None:
        """Read on, or end the input of a client that sends no more."""
        if self._ends_after_input and self.transport is not None:
            if not self.eof_received():
                self.transport.close()
        elif self._takes_input():
            super()._resume_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Parse what aiohttp kept.

        Its bodies ask for this at each piece that is read, whether they paused or not.
        """
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _resume_transport_reading(self) -> None:
        """Parse what waits first."""
        if self._input.waits:
            self._input.proceed()
        else:
            super()._resume_transport_reading()

    def _receive(self, data: bytes) -> None:
        """Feed the parser, unless an earlier request ended the reading of this connection."""
        if self._reading_ended:
            return
        in_body = self._payload is not None and not self._payload.is_eof()
        waiting = len(self._messages)
        super().data_received(data)
        if len(self._messages) > waiting:
            self._unparsed.close()
            unfinished, self._payload = self._payload if in_body else None, self._messages[-1][1]
            self._forget_parser_error(unfinished)
        elif not in_body and not self._upgraded and waiting < self._max_msg_queue_size:
            self._count_unparsed(len(data))
        if self._upgraded and self._payload_parser is None:
            self._count_unparsed(len(self._message_tail) - self._unparsed.size)
        if len(self._messages) > (0 if self._request_in_progress else 1):
            self._count_pipelined(len(data))

    def _count_pipelined(self, size: int) -> None:
        """Count bytes of requests that wait for an earlier one, or end the connection."""
        try:
            self._pipelined.acquire(size)
        except Rejected:
            self._stop_reading()
            self.connection.abort()
            return
        self._pipelined.on_evict = self.connection.abort

    def _count_unparsed(self, size: int) -> None:
        """Count bytes that belong to no request yet.

        The connection ends if there is no room for them.
        """
        try:
            self._unparsed.acquire(size)
        except Rejected:
            self._stop_reading()
            self.connection.abort()
            return
        self._unparsed.on_evict = self.connection.abort
        if not self._upgraded and self._unparsed.size > MAX_HEAD_BYTES:
            self._stop_reading()
            self._request_count += 1
            self._messages.append((_ErrInfo(431, ValueError("head too large"), _HEAD_TOO_LARGE), EMPTY_PAYLOAD))
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def _forget_parser_error(self, unfinished: StreamReader | None) -> None:
        """Replace an error of the parser by a short one.

        A body that it made unreadable fails at once. Its text and frames hold everything that was read.
        """
        message, body = self._messages[-1]
        if not isinstance(message, _ErrInfo):
            return
        clear_frames_of(message.exc)
        self._messages[-1] = (_ErrInfo(400, ValueError("unreadable"), "Bad Request"), body)
        self._stop_reading()
        if unfinished is not None and not unfinished.is_eof():
            unfinished.set_exception(ValueError("unreadable"))
            unfinished.feed_eof()  # a reader that was just woken checks for the end again, and not for the exception

    def _stop_reading(self) -> None:
        """Drop unparsed and further bytes, because no request can follow."""
        self._reading_ended = True
        self._message_tail = b""
        self._unparsed.close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answer a request. After a rejected upgrade it is the last one of its connection.

        aiohttp would parse what follows it as further requests.
        """
        if self._upgraded and self._payload_parser is None and not self._messages:
            self._stop_reading()
            resp.force_close()
        if not self._messages:
            self._pipelined.close()
        finished, reset = await super().finish_response(request, resp, start_time)
        if not finished.keep_alive and (self._reading_ended or self._messages or not request.content.is_eof()):
            self._linger()
        return finished, reset

    def _linger(self) -> None:
        """Close the connection of a client that may still send.

        Its response is not destroyed.
        """
        transport = self.transport
        if transport is None or self.half_closed:
            return
        self.transport = None  # aiohttp would close it
        LingeringClose(transport, self.connection, self._timeouts).start()
        self._leave(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Reject a request that the parser cannot read.

        Only defects of our own are logged as errors.
        """
        if status >= web.HTTPInternalServerError.status_code:
            return super().handle_error(request, status, exc, message)
        response = self._reject_unreadable(status)
        response.force_close()
        return response

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read."""
        super().pause_writing()
        if self.transport is not None:
            self._unread.start(self.transport, self._abort_unread)

    def resume_writing(self) -> None:
        """Stop the timer for a client that does not read."""
        self._unread.stop()
        super().resume_writing()

    def _abort_unread(self) -> None:
        relayer_metrics.CLOSED.labels("not_read").inc()
        self.connection.abort()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer the complete requests of a client that sends no more."""
        if self._input.waits and not self._ends_after_input:
            self._ends_after_input = True
            return True
        request = self._current_request
        if self._upgraded or self._idle or (request is not None and not request.content.is_eof()):
            return None
        self.half_closed = True
        if self._request_in_progress and request is None and not self._messages:
            self.close()  # the last answer is being written
        self._loop.call_later(_IDLE_POLL_SECONDS, self._close_when_idle)
        return True

    @property
    def _idle(self) -> bool:
        """Return True if no request waits for its response."""
        return not self._request_count or (self._waiter is not None and not self._waiter.done())

    def _close_when_idle(self) -> None:
        if self.transport is None:
            return
        if self._idle:
            self.force_close()
        else:
            self._loop.call_later(_IDLE_POLL_SECONDS, self._close_when_idle)

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """Count the frames of a connection that becomes a WebSocket."""
        self._unparsed.close()
        self.incoming = IncomingMessages(self.connection.memory.reserve(), self._loop.time)
        super().set_parser(_CountedReader(parser, self.incoming, self), data_received_cb)  # type: ignore[arg-type]


class _CountedReader:
    """Reader of WebSocket frames that counts their bytes first."""

    def __init__(self, reader: Any, incoming: IncomingMessages, connection: Http1Connection) -> None:
        self._reader = reader
        self._incoming = incoming
        self._connection = connection
        self._overloaded = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Count and parse the next bytes."""
        if self._overloaded:
            return False, b""
        try:
            self._incoming.feed(data)
        except Rejected:
            self._overloaded = True
            self._connection.on_overload()
            return False, b""
        eof, tail = self._reader.feed_data(data)
        return eof, tail

    def feed_eof(self) -> None:
        """Pass on the end of the stream."""
        self._reader.feed_eof()
