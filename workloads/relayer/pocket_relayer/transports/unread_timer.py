"""Detect clients that read nothing."""

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable
from typing import Final

_LEAST_BYTES: Final = 16 * 1024
"""Bytes that a client must read within one period to count as reading."""


def unread_bytes(transport: asyncio.WriteTransport) -> int:
    """Return the bytes that were written and that the client has not acknowledged.

    They are those of the transport's buffer and, where the system reports it, of the socket's.
    """
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    try:
        queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, AttributeError, ValueError):
        return waiting
    return waiting + int(struct.unpack("i", queued)[0])


class UnreadTimer:
    """Calls a function once a client reads too little within `seconds`.

    Only while writing is paused. It holds the function only while it runs: its owner would otherwise wait for a garbage
    collection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0

    def start(self, transport: asyncio.WriteTransport, on_unread: Callable[[], None]) -> None:
        """Start, since writing is paused."""
        self.stop()
        self._unread = unread_bytes(transport)
        self._timer = self._loop.call_later(self._seconds, self._check, transport, on_unread)

    def _check(self, transport: asyncio.WriteTransport, on_unread: Callable[[], None]) -> None:
        if self._unread - unread_bytes(transport) >= _LEAST_BYTES:
            self.start(transport, on_unread)
        else:
            self._timer = None
            on_unread()

    def stop(self) -> None:
        """Stop, since the client reads again or is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
