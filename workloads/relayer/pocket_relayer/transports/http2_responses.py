"""Send responses on the streams of an HTTP/2 connection.

They are sent as fast as its client reads them. A window that a client opens by one byte wakes one response. Woken all
together, those of a connection would cost a hundred times what its frame costs.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from h2.events import RemoteSettingsChanged
from h2.settings import SettingCodes

from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http2_frames import FrameBudget
from pocket_relayer.transports.http2_protocol import ServerProtocol
from pocket_relayer.transports.http2_streams import Stream
from pocket_relayer.transports.replies import OutgoingResponse

_LARGEST_FRAME: Final = 64 * 1024  # bytes of a DATA frame, whatever a client allows
_NOT_IN_HTTP2: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"})

_Waiting = OrderedDict[int, "asyncio.Future[None]"]
"""Streams that wait, by their number."""


class Http2Responses:
    """Sends the responses of one connection.

    Its owner sets `writable` and reports opened windows. `flush` writes what h2 has to send.
    """

    def __init__(
        self, protocol: ServerProtocol, frames: FrameBudget, timeouts: ClientTimeouts, flush: Callable[[], None]
    ) -> None:
        self._h2 = protocol
        self._frames = frames
        self._timeouts = timeouts
        self._flush = flush
        self._of_stream: _Waiting = OrderedDict()
        """Streams whose own window is empty."""
        self._of_connection: _Waiting = OrderedDict()
        """Streams that wait for the connection's window, in the order in which they go on."""
        self.writable = asyncio.Event()
        self.writable.set()

    def close(self) -> None:
        """Wake what waits, at the end of the connection."""
        self._flush = _nothing  # its owner would wait for a garbage collection
        for waiting in (self._of_stream, self._of_connection):
            while waiting:
                _wake_first(waiting)
        self.writable.set()

    def on_window(self, number: int) -> None:
        """Go on with a stream whose window was opened.

        If it is 0, with the first that waits for the connection.
        """
        if not number:
            _wake_first(self._of_connection)
        else:
            _wake(self._of_stream, number)

    def on_settings(self, event: RemoteSettingsChanged, now: float) -> bool:
        """Go on with all streams if their windows became larger.

        Returns True if they are in the frame budget.
        """
        changed = event.changed_settings.get(SettingCodes.INITIAL_WINDOW_SIZE)
        if changed is None or changed.new_value <= (changed.original_value or 0):
            return True
        woken = len(self._of_stream)
        while self._of_stream:
            _wake_first(self._of_stream)
        return self._frames.take_cheap(woken, now)

    def on_closed(self, number: int) -> None:
        """Go on with a stream that was closed, wherever it waits."""
        for waiting in (self._of_stream, self._of_connection):
            _wake(waiting, number)

    async def send(self, stream: Stream, reply: OutgoingResponse) -> None:
        """Send a response until the stream is closed.

        Raises TimeoutError for a client that reads too slowly.
        """
        headers = [(":status", str(reply.status))]
        headers += [(n.lower(), v) for n, v in reply.headers.items() if n.lower() not in _NOT_IN_HTTP2]
        empty = not reply.body and reply.pieces is None and not reply.trailers
        empty = empty or stream.header(":method") == "HEAD"  # RFC 9110, section 9.3.2
        if stream.closed:
            return
        self._h2.send_headers(stream.number, headers, end_stream=empty)
        self._flush()
        if empty:
            return
        await self._send_data(stream, reply.body)
        if reply.pieces is not None:
            async for piece in reply.pieces:
                await self._send_data(stream, piece)
                if stream.closed:
                    return
        if stream.closed:
            return
        if reply.trailers:
            self._h2.send_headers(stream.number, list(reply.trailers.items()), end_stream=True)
        else:
            self._h2.end_stream(stream.number)
        self._flush()

    async def _send_data(self, stream: Stream, data: bytes) -> None:
        number, view = stream.number, memoryview(data)
        try:
            async with asyncio.timeout(self._timeouts.to_write(len(data))):
                while view:
                    await self.writable.wait()
                    window = await self._window_of(stream)
                    if stream.closed:
                        return
                    room = min(window, self._h2.max_outbound_frame_size, _LARGEST_FRAME, len(view))
                    self._h2.send_data(number, bytes(view[:room]))
                    view = view[room:]
                    self._frames.on_sent(room, last=not view)
                    self._flush()
        finally:
            self._pass_on()

    async def _window_of(self, stream: Stream) -> int:
        """Wait until a stream that is not closed may send, and return how many bytes."""
        number = stream.number
        while not stream.closed and (window := self._h2.local_flow_control_window(number)) <= 0:
            waiting = self._of_stream if self._h2.outbound_flow_control_window > 0 else self._of_connection
            opened = waiting[number] = asyncio.get_running_loop().create_future()
            self._pass_on()
            try:
                await opened
            finally:
                if waiting.get(number) is opened:
                    del waiting[number]
        return 0 if stream.closed else window

    def _pass_on(self) -> None:
        """Leave the rest of the connection's window to the next waiting stream."""
        if self._of_connection and self._h2.outbound_flow_control_window > 0:
            _wake_first(self._of_connection)


def _wake(waiting: _Waiting, number: int) -> None:
    if (opened := waiting.pop(number, None)) is not None and not opened.done():
        opened.set_result(None)


def _wake_first(waiting: _Waiting) -> None:
    while waiting:
        _, opened = waiting.popitem(last=False)
        if not opened.done():
            opened.set_result(None)
            return


def _nothing() -> None:
    """Write nothing, in place of a connection that has ended."""
