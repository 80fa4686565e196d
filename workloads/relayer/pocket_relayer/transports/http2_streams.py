"""Streams of HTTP/2 connections and their request bodies."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from multidict import CIMultiDict

from pocket_relayer.limits.memory_budget import MemoryReservation, overloaded
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.replies import too_late

_UPLOADS: Final = 4096


@dataclass(slots=True, eq=False)
class Stream:
    """A request whose body may still be arriving."""

    headers: CIMultiDict[str]
    reservation: MemoryReservation
    began: float
    body: bytearray = field(default_factory=bytearray)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    rejection: Rejected | None = None
    complete: bool = False
    closed: bool = False
    task: "asyncio.Task[None] | None" = None

    def reject(self, rejection: Rejected) -> None:
        """Reject the body, release it and wake its reader."""
        self.rejection = rejection
        self.reservation.on_evict = None
        self.body.clear()
        self.ended.set()

    async def read(self, timeouts: ClientTimeouts) -> bytes:
        """Return the body once it is complete.

        It must keep arriving. Raises Rejected.
        """
        loop = asyncio.get_running_loop()
        self.reservation.on_evict = lambda: self.reject(overloaded())
        while not self.ended.is_set():
            left = self.began + timeouts.to_read(len(self.body)) - loop.time()
            if left <= 0:
                raise too_late()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.ended.wait()
        self.reservation.on_evict = None
        if self.rejection is not None:
            raise self.rejection
        body = bytes(self.body)
        self.body.clear()
        return body


class StrangersUploads:
    """Unfinished streams of connections without a served relay.

    A stream beyond the limit rejects the oldest one. So strangers who open streams replace each other's.
    """

    def __init__(self, limit: int = _UPLOADS) -> None:
        self._limit = limit
        self._streams: OrderedDict[Stream, None] = OrderedDict()

    @property
    def unfinished(self) -> int:
        """Return their number."""
        return len(self._streams)

    @contextmanager
    def of(self, stream: Stream) -> Iterator[None]:
        """Hold the place of a stream while its body arrives."""
        if len(self._streams) >= self._limit:
            oldest, _ = self._streams.popitem(last=False)
            oldest.reject(overloaded())
        self._streams[stream] = None
        try:
            yield
        finally:
            self._streams.pop(stream, None)
