"""One port for HTTP/1.1 and cleartext HTTP/2, distinguished by the first bytes."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

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
        timeouts: ClientTimeouts | None = None,
    ) -> None:
        self._http1 = http1
        self._http2 = http2
        self._connections = connections
        self._timeouts = timeouts or ClientTimeouts()
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
        serve = self._http2 if self._seen.startswith(PREFACE) else self._http1
        protocol = serve(self._connection)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._seen)
