"""Parse the input of connections without a served relay in portions and in turns.

A few bytes of HTTP/2 can begin hundreds of requests, and a read of HTTP/1.1 can hold forty thousand chunks. Parsed as
they arrive, those of many connections would delay every relay until all of them are parsed.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.pipeline.fair_queue import QUANTUM, FairQueue
from pocket_relayer.transports.client_connections import Connection

_LEAST, _FIRST, _MOST = 16, 128, 64 * 1024  # bytes of a portion
_PORTION_SECONDS: Final = 0.000_25
"""Time that parsing a portion may take: one quantum."""


class FairInput:
    """Feeds a connection's input to its parser, in turns with other connections.

    Portions get smaller while they take long, and each pays for the time of the one before. `on_fed` is called once
    nothing waits any more, so that reading goes on. A parser that is not `ready` gets nothing until `proceed` is
    called.
    """

    def __init__(
        self,
        turns: FairQueue,
        connection: Connection,
        feed: Callable[[bytes], None],
        on_fed: Callable[[], None],
        clock: Callable[[], float] = time.thread_time,
        *,
        ready: Callable[[], bool] | None = None,
        before_wait: Callable[[], None] | None = None,
        first_portion: int = _FIRST,
    ) -> None:
        """Create the input.

        `before_wait` is called before memory for waiting bytes is counted, which may evict.
        """
        self._turns = turns
        self._connection = connection
        self._feed = feed
        self._on_fed = on_fed
        self._clock = clock
        self._waiting = bytearray()
        self._reservation = connection.memory.reserve()
        self._ready = ready or _always
        self._before_wait = before_wait or _nothing
        self._portion = first_portion
        self._cost = QUANTUM
        self._parked: asyncio.Future[None] | None = None
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """Return True while bytes wait for their turn."""
        return self._task is not None

    def take(self, transport: asyncio.Transport, data: bytes) -> None:
        """Parse the next bytes, now or when it is their turn."""
        if self._task is None and self._ready() and self._turns.take_free_turn(self._cost):
            portion, data = data[: self._portion], data[self._portion :]
            self._parse(portion)
        if not data or self._closed:
            return
        try:
            self._before_wait()
            self._reservation.acquire(len(data))
        except Rejected:  # parsed at once it needs no memory, and its request learns that there is none
            data, waiting = bytes(self._waiting) + data, len(self._waiting)
            self._waiting.clear()
            self._reservation.release(waiting)
            self._feed(data)
            return
        self._waiting += data
        if self._task is None and not transport.is_closing():
            transport.pause_reading()
            self._task = asyncio.get_running_loop().create_task(self._parse_waiting(transport))

    def _parse(self, portion: bytes) -> None:
        """Parse a portion and set the size of the next one."""
        began = self._clock()
        self._feed(portion)
        seconds = self._clock() - began
        self._cost = QUANTUM * max(1.0, seconds / _PORTION_SECONDS)
        if seconds > _PORTION_SECONDS:
            self._portion = max(_LEAST, self._portion // 2)
        elif 2 * seconds < _PORTION_SECONDS:
            self._portion = min(_MOST, self._portion * 2)

    async def _parse_waiting(self, transport: asyncio.Transport) -> None:
        address = self._connection.memory.address
        try:
            while self._waiting and not transport.is_closing():
                self._reservation.on_evict = self._connection.abort
                await self._until_ready()
                await self._turns.turn(address, self._cost)
                self._reservation.on_evict = None  # what the portion needs may evict others of this connection
                portion = bytes(self._waiting[: self._portion])
                del self._waiting[: self._portion]
                if portion:
                    self._reservation.release(len(portion))
                    self._parse(portion)
        except Rejected:
            self._connection.abort()
        finally:
            self._waiting.clear()
            self._reservation.close()
            self._task = None
        if not transport.is_closing():
            self._on_fed()

    async def _until_ready(self) -> None:
        while not self._ready():
            self._parked = asyncio.get_running_loop().create_future()
            try:
                await self._parked
            finally:
                self._parked = None

    def proceed(self) -> None:
        """Go on with what waits: the parser is ready again."""
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(None)

    def close(self) -> None:
        """Forget what waits, and parse nothing more."""
        self._closed = True
        # Its owner would wait for a garbage collection.
        self._feed, self._on_fed, self._before_wait, self._ready = _discard, _nothing, _nothing, _always
        self.proceed()
        self._waiting.clear()
        self._reservation.close()


def _discard(_: bytes) -> None:
    """Parse nothing, in place of the parser of a closed connection."""


def _nothing() -> None:
    """Do nothing, in place of the connection of a closed input."""


def _always() -> bool:
    """Return True, in place of the parser of a closed connection."""
    return True
