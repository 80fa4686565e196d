"""Close a connection whose client still sends.

So the client can read its last response. Closing a socket that has unread bytes resets the connection, and a reset
discards what the client has not read yet (RFC 9112, section 9.6). So the sending side is closed first, and what arrives
is discarded, within limits.
"""

import asyncio
from typing import Final

from pocket_relayer.transports.client_connections import Connection
from pocket_relayer.transports.client_timeouts import ClientTimeouts

LINGER_BYTES: Final = 16 * 1024 * 1024
"""Bytes that are discarded at most."""
_PERIODS: Final = 6
"""Periods of `linger_seconds` after which the connection ends in any case."""


class LingeringClose(asyncio.Protocol):
    """A connection that got its last response.

    Further bytes are discarded, and it holds none of them.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection, timeouts: ClientTimeouts) -> None:
        self._transport = transport
        self._connection = connection
        self._seconds = timeouts.linger_seconds
        self._discarded = self._discarded_before = 0
        self._periods = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take the connection over from its protocol."""
        transport = self._transport
        if transport.is_closing():
            return
        transport.set_protocol(self)
        self._connection.linger()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._check)
        try:
            transport.write_eof()
            transport.resume_reading()
        except (OSError, RuntimeError):  # the client is gone
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Discard further bytes, up to the limit."""
        self._discarded += len(data)
        if self._discarded > LINGER_BYTES:
            self._transport.abort()

    def _check(self) -> None:
        """End the connection once its client sends nothing more.

        After several periods it ends in any case.
        """
        self._periods += 1
        if self._discarded == self._discarded_before or self._periods >= _PERIODS:
            self._transport.abort()
            return
        self._discarded_before = self._discarded
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place of the connection."""
        if self._timer is not None:
            self._timer.cancel()
        self._connection.lost()
