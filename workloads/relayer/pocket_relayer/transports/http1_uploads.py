"""Bodies of HTTP/1.1 requests: whole, or still arriving."""

import asyncio
from typing import Final

from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.client_timeouts import UploadTimer
from pocket_relayer.transports.http1_messages import RequestHead

_LARGE_PART: Final = 16 * 1024
"""Bytes of a part of a body from which it is kept as it came."""


class Body:
    """A whole request body, which is let go once it is read."""

    __slots__ = ("_body", "_rejection")

    def __init__(self, body: bytes, rejection: Rejected | None = None) -> None:
        self._body = body
        self._rejection = rejection

    @property
    def size(self) -> int:
        """Return its size in bytes."""
        return len(self._body)

    async def read(self) -> bytes:
        """Return the body, once.

        Raises Rejected if it did not arrive.
        """
        if self._rejection is not None:
            raise self._rejection
        body, self._body = self._body, b""
        return body


class Upload:
    """A body that is still arriving."""

    __slots__ = ("head", "missing", "parts", "pause", "reservation", "timer")

    def __init__(self, head: RequestHead, reservation: MemoryReservation) -> None:
        self.head = head
        self.reservation = reservation
        self.missing = head.body_bytes
        self.parts: list[bytes | bytearray] = []
        self.pause: asyncio.Task[None] | None = None
        self.timer: UploadTimer | None = None

    @property
    def size(self) -> int:
        """Return the bytes that have arrived."""
        return self.head.body_bytes - self.missing

    def add(self, part: bytes) -> None:
        """Keep a part of the body. Only small parts are copied."""
        self.missing -= len(part)
        if len(part) >= _LARGE_PART:
            self.parts.append(part)
        elif self.parts and isinstance(last := self.parts[-1], bytearray):
            last += part
        else:
            self.parts.append(bytearray(part))
