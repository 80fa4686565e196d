"""Timeouts for clients."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Timeouts for clients in seconds.

    Those of bodies and responses grow with their size, which makes a minimum rate.
    """

    idle_seconds: float = 120.0
    """Limit for an idle connection.

    It has no request, an incomplete head, or is a WebSocket without a served relay.
    """
    read_seconds: float = 15.0
    """Limit for the first bytes of a body or message."""
    write_seconds: float = 30.0
    """Limit for the first bytes of a response, and for a client that reads nothing."""
    linger_seconds: float = 5.0
    """Limit for a client that sends nothing more after its last response, before its connection is closed."""
    bytes_per_second: float = 64 * 1024.0
    """Each so many bytes add one second to both limits."""

    def to_read(self, size: int) -> float:
        """Return the limit for a body or message of which `size` bytes have arrived."""
        return self.read_seconds + size / self.bytes_per_second

    def to_write(self, size: int) -> float:
        """Return the seconds within which the client must read `size` bytes."""
        return self.write_seconds + size / self.bytes_per_second


class UploadTimer:
    """Calls `on_late`, once, when a body does not keep arriving.

    `size` returns the bytes that have arrived.
    """

    __slots__ = ("_began", "_loop", "_on_late", "_size", "_timeouts", "_timer")

    def __init__(self, timeouts: ClientTimeouts, size: Callable[[], int], on_late: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeouts = timeouts
        self._size = size
        self._on_late = on_late
        self._began = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._check()

    def _check(self) -> None:
        left = self._began + self._timeouts.to_read(self._size()) - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._on_late()

    def stop(self) -> None:
        """Wait no longer: the body has arrived, or is not waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
