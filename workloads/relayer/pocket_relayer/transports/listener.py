"""One port for HTTP/1.1 and cleartext HTTP/2, distinguished by the first bytes."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.pipeline.fair_queue import FairQueue
from pocket_relayer.transports.client_connections import Connection, Connections
from pocket_relayer.transports.client_timeouts import ClientTimeouts

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Sniffer(asyncio.Protocol):
    """Protocol that hands a connection over once its first bytes are known."""

    def __init__(
        self,
        http1: Callable[[Connection], asyncio.Protocol],
        http2: Callable[[Connection], asyncio.Protocol],
        connections: Connections,
        turns: FairQueue,
        timeouts: ClientTimeouts | None = None,
    ) -> None:
        """Create the protocol of a connection.

        `turns` are those in which HTTP/2 connections begin.
        """
        self._http1 = http1
        self._http2 = http2
        self._connections = connections
        self._timeouts = timeouts or ClientTimeouts()
        self._turns = turns
        self._task: asyncio.Task[None] | None = None
        self._first_bytes_timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection and start its timer."""
        self._connection = self._connections.admit(transport)
        if self._connection is not None:
            self._transport = cast("asyncio.Transport", transport)
            loop = asyncio.get_running_loop()
            self._first_bytes_timer = loop.call_later(self._timeouts.idle_seconds, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place of a connection that was not handed over."""
        self._cancel_timer()
        if self._connection is not None:
            self._connection.lost()

    def _cancel_timer(self) -> None:
        if self._first_bytes_timer is not None:
            self._first_bytes_timer.cancel()
            self._first_bytes_timer = None

    def data_received(self, data: bytes) -> None:
        """Hand the connection over once its first bytes decide."""
        self._seen += data
        if self._transport is None or self._connection is None:
            return
        if len(self._seen) < len(PREFACE) and PREFACE.startswith(self._seen):
            return
        self._cancel_timer()
        if not self._seen.startswith(PREFACE):
            self._hand_over(self._http1, self._transport, self._connection)
            return
        reservation = self._connection.memory.reserve()
        waits = not self._turns.take_free_turn()
        if waits:
            try:
                reservation.acquire(len(self._seen))
            except Rejected:  # served at once it needs no memory, and its request learns that there is none
                waits = False
        if waits:
            self._transport.pause_reading()
            begin = self._begin_in_turn(self._transport, self._connection, reservation)
            self._task = asyncio.get_running_loop().create_task(begin)
        else:
            self._hand_over(self._http2, self._transport, self._connection)

    async def _begin_in_turn(
        self, transport: asyncio.Transport, connection: Connection, reservation: MemoryReservation
    ) -> None:
        """Begin an HTTP/2 connection in turn: many at once would delay every relay."""
        reservation.on_evict = connection.abort
        try:
            await self._turns.turn(connection.memory.address)
        except Rejected:
            connection.abort()
            return
        finally:
            reservation.close()
        if not transport.is_closing():
            transport.resume_reading()
            self._hand_over(self._http2, transport, connection)

    def _hand_over(
        self, serve: Callable[[Connection], asyncio.Protocol], transport: asyncio.Transport, connection: Connection
    ) -> None:
        protocol = serve(connection)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(self._seen)
