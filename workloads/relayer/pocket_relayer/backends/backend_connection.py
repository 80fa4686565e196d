"""Connect to a plain HTTP/1.1 backend, with one connection.

llhttp parses it (through httptools). A connection carries one request at a time. It is reused only after a complete
response that nothing follows.
"""

import asyncio
from collections import deque
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

HEADERS: Final = 512
LINE_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 1024 * 1024
"""Limit of everything before a body, provisional responses included."""
_BUFFER_BYTES: Final = 128 * 1024
"""Bytes of a body that wait for their reader, beyond which the backend has to wait."""
_SWITCHING: Final = 101
WITHOUT_BODY: Final = (204, 304)
_SEPARATE_FIELDS: Final = (b"content-length", b"transfer-encoding")


class BrokenResponse(OSError):
    """The backend's response is not valid HTTP, or incomplete."""


class ConnectionEnded(OSError):
    """The connection ended before the first byte of a response."""


class HeaderTooLong(OSError):
    """A header field of the response is too long."""


class BackendConnection(asyncio.Protocol):
    """A connection with its current exchange.

    `status` and `headers` are valid once `response_head` has returned.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = self._new_parser()
        self._waiter: asyncio.Future[None] | None = None
        self._error: OSError | None = None
        self._body: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._head_bytes = 0
        self._head_complete = False
        self._head_only = False
        self._keep_alive = False
        self._unusable = False
        self.requests = 0
        """Requests that were sent on this connection."""
        self.idle_since = 0.0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = True
        """True once the whole response has arrived."""

    def _new_parser(self) -> HttpResponseParser:
        parser = HttpResponseParser(self)
        # As aiohttp does for responses: real backends send such heads.
        parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        return parser

    @property
    def reusable(self) -> bool:
        """Return True if the next request may be sent on this connection."""
        transport = self._transport
        return (
            transport is not None
            and self.complete
            and self._keep_alive
            and not self._unusable
            and not self._body  # an unread body would be taken for the next response's
            and not self._paused
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        )

    def send(self, head: bytes, body: bytes, *, head_only: bool) -> None:
        """Send a request. The response to HEAD is `head_only`."""
        if self._transport is None:
            self._error = self._error or ConnectionEnded()
            return
        self.requests += 1
        self.complete = self._head_complete = self._keep_alive = False
        self._head_only = head_only
        self._head_bytes = 0
        self._transport.write(head + body if len(body) < LINE_BYTES else head)
        if len(body) >= LINE_BYTES:
            self._transport.write(body)

    async def response_head(self) -> None:
        """Wait for the head of the response.

        Raises BrokenResponse, ConnectionEnded or HeaderTooLong.
        """
        while not self._head_complete:
            await self._arrival()

    async def read(self) -> bytes:
        """Return the next bytes of the body, or empty bytes at its end.

        Raises BrokenResponse.
        """
        while not self._body:
            if self.complete:
                return b""
            await self._arrival()
        return self._take()

    def complete_body(self) -> bytes | None:
        """Return what is left of the body if the whole response has arrived, else None."""
        return self._take() if self.complete else None

    def _take(self) -> bytes:
        """Return the bytes that have arrived."""
        chunks, self._buffered = self._body, 0
        self._body = deque()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _arrival(self) -> "asyncio.Future[None]":
        """Return what ends once something has arrived or failed.

        Raises the error of the connection.
        """
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: OSError) -> None:
        self._error = self._error or error
        self.close()
        self._wake()

    def close(self) -> None:
        """Close the connection at once."""
        self._unusable = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response: a body without a length is complete, anything else is not."""
        self._transport = None
        self._unusable = True
        if not self.complete:
            if self._head_complete and exc is None and not self._has_length():
                self.complete = True
            elif self._head_complete or self._head_bytes:
                self._error = self._error or BrokenResponse()
            else:
                self._error = self._error or ConnectionEnded()
        self._wake()

    def _has_length(self) -> bool:
        return any(name.lower() in _SEPARATE_FIELDS for name, _ in self.headers)

    def data_received(self, data: bytes) -> None:
        """Parse the next bytes of the response."""
        if self.complete:  # nothing was asked for
            self.close()
            return
        self._head_bytes += len(data)  # also of trailers: set back by each part of a body
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self.complete:
                cause = error.__context__
                self._fail(cause if isinstance(cause, OSError) else BrokenResponse())
                return
            self._unusable = True  # something follows the response
        if not self.complete and self._head_bytes > _HEAD_BYTES:
            self._fail(HeaderTooLong())
            return
        if self._buffered > _BUFFER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self._head_complete:
            self._wake()

    def on_message_begin(self) -> None:
        """Start a response. One that was not asked for makes the connection unusable."""
        if self.complete:
            raise BrokenResponse
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header field."""
        if self._head_complete:  # trailers are not signed
            return
        if self._head_bytes > LINE_BYTES and (len(name) > LINE_BYTES or len(value) > LINE_BYTES):
            raise HeaderTooLong
        if len(self.headers) == HEADERS or b"\0" in value:
            raise BrokenResponse
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """End the head, unless it is provisional."""
        self.status = status = self._parser.get_status_code()
        if 100 <= status < 200 and status != _SWITCHING:
            return
        self._head_complete = True
        # A body that a response without one declares would be taken for the next response.
        declares_body = status in WITHOUT_BODY and self._has_length()
        self._keep_alive = self._parser.should_keep_alive() and status != _SWITCHING and not declares_body
        if self._head_only:
            # The parser cannot know that no body follows.
            self.complete, self._unusable = True, True

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body for its reader."""
        self._head_bytes = 0
        if not self._head_only:
            self._body.append(body)
            self._buffered += len(body)

    def on_message_complete(self) -> None:
        """End the response, unless it is provisional."""
        if self._head_complete:
            self.complete = True
