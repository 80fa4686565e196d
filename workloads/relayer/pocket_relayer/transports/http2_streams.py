"""Streams of HTTP/2 connections and their request bodies."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from multidict import CIMultiDict

from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.client_timeouts import UploadTimer
from pocket_relayer.transports.replies import too_large, too_late
from pocket_relayer.transports.request_bodies import GzipRequestDecoder, is_gzipped

_UPLOADS: Final = 1024
_GRPC_HEAD: Final = 5  # bytes of a message's head


def decode_fields(fields: Iterable[tuple[bytes | str, bytes | str]]) -> CIMultiDict[str]:
    """Return header fields as text."""
    decoded: CIMultiDict[str] = CIMultiDict()
    for name, value in fields:
        decoded.add(_decode(name), _decode(value))
    return decoded


def _decode(value: bytes | str) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


@dataclass(slots=True, eq=False)
class Stream:
    """A request whose body may still be arriving. A task serves it afterwards."""

    number: int
    headers: CIMultiDict[str]
    reservation: MemoryReservation
    body: bytearray = field(default_factory=bytearray)
    rejection: Rejected | None = None
    complete: bool = False
    closed: bool = False
    charged: bool = False
    """True while a relay is served that is charged already."""
    task: "asyncio.Task[None] | None" = None
    timer: UploadTimer | None = None

    def on_charged(self) -> None:
        """Serve the relay to its end.

        Reset after each charge, a request would use a backend for nothing.
        """
        self.charged = True

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

    def end_upload(self, rejection: Rejected | None = None) -> None:
        """Wait for nothing more. The body of a rejected stream is let go."""
        self.reservation.on_evict = None
        if self.timer is not None:
            self.timer.stop()
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

    async def read_decoded(self, decoder: GzipRequestDecoder, max_bytes: Callable[[], int]) -> bytes:
        """Return the body, once, without its compression.

        Raises Rejected if it did not arrive, or if it cannot be decoded to at most `max_bytes`.
        """
        body = self.read()
        return await decoder.decode(body, max_bytes(), self.reservation) if is_gzipped(self.headers) else body

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
