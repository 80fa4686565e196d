"""Send responses on the streams of an HTTP/2 connection, as fast as its client reads them."""

import asyncio
from collections.abc import Callable
from typing import Final

from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http2_frames import FrameBudget
from pocket_relayer.transports.http2_protocol import ServerProtocol
from pocket_relayer.transports.http2_streams import Stream
from pocket_relayer.transports.replies import OutgoingResponse

_LARGEST_FRAME: Final = 64 * 1024  # bytes of a DATA frame, whatever a client allows
_NOT_IN_HTTP2: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"})


class Http2Responses:
    """Sends the responses of one connection.

    Its owner sets `window_opened` and `writable`. `flush` writes what h2 has to send.
    """

    def __init__(
        self, protocol: ServerProtocol, frames: FrameBudget, timeouts: ClientTimeouts, flush: Callable[[], None]
    ) -> None:
        self._h2 = protocol
        self._frames = frames
        self._timeouts = timeouts
        self._flush = flush
        self.window_opened = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()

    def close(self) -> None:
        """Wake what waits, at the end of the connection."""
        self._flush = _nothing  # its owner would wait for a garbage collection
        self.window_opened.set()
        self.writable.set()

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
        async with asyncio.timeout(self._timeouts.to_write(len(data))):
            while view and not stream.closed:
                await self.writable.wait()
                while not stream.closed and self._h2.local_flow_control_window(number) <= 0:
                    self.window_opened.clear()
                    await self.window_opened.wait()
                if stream.closed:
                    return
                window = self._h2.local_flow_control_window(number)
                room = min(window, self._h2.max_outbound_frame_size, _LARGEST_FRAME, len(view))
                self._h2.send_data(number, bytes(view[:room]))
                self._frames.sent(1)
                view = view[room:]
                self._flush()


def _nothing() -> None:
    """Write nothing, in place of a connection that has ended."""
