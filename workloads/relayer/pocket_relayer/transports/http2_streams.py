"""Streams of HTTP/2 connections and their request bodies."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from multidict import CIMultiDict

from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.replies import too_large, too_late

_UPLOADS: Final = 1024
_GRPC_HEAD: Final = 5  # bytes of a message's head


@dataclass(slots=True, eq=False)
class Stream:
    """A request whose body may still be arriving. A task serves it afterwards."""

    number: int
    headers: CIMultiDict[str]
    reservation: MemoryReservation
    began: float
    body: bytearray = field(default_factory=bytearray)
    rejection: Rejected | None = None
    complete: bool = False
    closed: bool = False
    task: "asyncio.Task[None] | None" = None
    timer: asyncio.TimerHandle | None = None

    def header(self, name: str) -> str:
        """Return a header field, empty without it."""
        return self.headers.get(name, "")

    def take(self, data: bytes, limit: int) -> None:
        """Keep a part of the body.

        Raises Rejected for a body of more than `limit` bytes, or without memory for it.
        """
        self.reservation.acquire(len(data))
        self.body += data
        if len(self.body) > limit + _GRPC_HEAD:
            raise too_large(limit)

    def start_timer(self, timeouts: ClientTimeouts, on_late: Callable[["Stream", Rejected], None]) -> None:
        """Call `on_late` once the body does not keep arriving."""
        loop = asyncio.get_running_loop()
        left = self.began + timeouts.to_read(len(self.body)) - loop.time()
        if left > 0:
            self.timer = loop.call_later(left, self.start_timer, timeouts, on_late)
        else:
            on_late(self, too_late())

    def end_upload(self, rejection: Rejected | None = None) -> None:
        """Wait for nothing more. The body of a rejected stream is let go."""
        self.reservation.on_evict = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if rejection is not None:
            self.rejection = rejection
            self.body.clear()

    def read(self) -> bytes:
        """Return the body, once.

        Raises Rejected if it did not arrive.
        """
        if self.rejection is not None:
            raise self.rejection
        if not self.complete:
            raise too_late()
        body = bytes(self.body)
        self.body.clear()
        return body

    def close(self) -> None:
        """Release everything that was received."""
        self.closed = True
        self.end_upload()
        self.body.clear()
        self.reservation.close()


class StrangersUploads:
    """Unfinished streams of connections without a served relay.

    A stream beyond the limit ends the oldest one. So strangers who open streams replace each other's.
    """

    def __init__(self, limit: int = _UPLOADS) -> None:
        self._limit = limit
        self._streams: OrderedDict[Stream, Callable[[], None]] = OrderedDict()

    @property
    def unfinished(self) -> int:
        """Return their number."""
        return len(self._streams)

    def add(self, stream: Stream, end: Callable[[], None]) -> None:
        """Add a stream, which `end` ends."""
        if len(self._streams) >= self._limit:
            _, end_oldest = self._streams.popitem(last=False)
            end_oldest()
        self._streams[stream] = end

    def discard(self, stream: Stream) -> None:
        """Remove a stream that is complete or gone."""
        self._streams.pop(stream, None)
