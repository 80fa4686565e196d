"""A pooled HTTP/1.1 client for plain `http://` backends, which most nodes are.

It costs a fraction of the CPU of aiohttp's client, which serves all other URLs (decision 0027).
"""

import asyncio
import socket
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

from pocket.protocol.relays.envelope import Headers
from pocket.runtime.bounded_dict import BoundedDict
from pocket.runtime.http_sessions import keepalive_socket
from pocket_relayer.backends.backend_connection import BackendConnection, ConnectionEnded
from pocket_relayer.backends.header_fields import answer_headers

_IDLE_SECONDS: Final = 90.0
_HAPPY_EYEBALLS_SECONDS: Final = 0.25
_SHORT_HEAD: Final = 2048
"""Bytes up to which the head of a request or response is remembered."""
_known_heads: Final[BoundedDict[tuple[object, ...], bytes]] = BoundedDict(512)
"""Heads without their length: the relays of a session repeat them."""
_known_responses: Final[BoundedDict[tuple[tuple[bytes, bytes], ...], Headers]] = BoundedDict(512)
"""Headers as they are signed, by the fields of responses: those of one second are alike."""
_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods whose requests have no length if they have no body."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Address of a server, and how its requests name it."""

    host: str
    port: int
    name: str


@lru_cache(maxsize=1024)
def plain_origin(endpoint: str) -> Origin | None:
    """Return the origin of an endpoint that this client serves, or None.

    TLS, credentials in the URL and international host names are left to aiohttp.
    """
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or "@" in parts.netloc or not parts.hostname or not parts.netloc.isascii():
        return None
    port = parts.port or 80
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Origin(parts.hostname, port, host if port == 80 else f"{host}:{port}")


def encode_head(method: str, target: str, origin: Origin, headers: Iterable[tuple[str, str]], size: int) -> bytes:
    """Return the head of a request with a body of `size` bytes.

    Raises ValueError for a field that would end early or start another one.
    """
    fields = tuple(headers)
    key = (method, target, origin.name, *fields)
    known = _known_heads.get(key)
    if known is None:
        known = _encode_fields(method, target, origin, fields)
        if len(known) <= _SHORT_HEAD:
            _known_heads[key] = known
    return known + (b"Content-Length: %d\r\n\r\n" % size if size or method not in _BODILESS else b"\r\n")


def _encode_fields(method: str, target: str, origin: Origin, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1\r\nHost: {origin.name}"]
    lines += [f"{name}: {value}" for name, value in headers]
    text = "\r\n".join(lines)
    if not text.count("\r") == text.count("\n") == len(lines) or "\0" in text:
        raise ValueError("a header field holds the end of a line")
    return f"{text}\r\n".encode()


def _text(name: bytes, value: bytes) -> tuple[str, str]:
    return name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")


class Http1Response:
    """A response whose head has arrived, with the slot of its connection."""

    def __init__(self, client: "Http1Client", origin: Origin, connection: BackendConnection) -> None:
        self._client = client
        self._origin = origin
        self._connection: BackendConnection | None = connection
        self._fields = connection.headers
        self.status = connection.status

    def signed_headers(self) -> Headers:
        """Return the headers as they are signed.

        Raises BrokenResponse for a name that is no token.
        """
        key = tuple(self._fields)
        known = _known_responses.get(key)
        if known is None:
            known = answer_headers(_text(name, value) for name, value in key)
            if sum(len(name) + len(value) for name, value in key) <= _SHORT_HEAD:
                _known_responses[key] = known
        return known

    async def read(self) -> bytes:
        """Return the next bytes of the body, or empty bytes at its end.

        Raises OSError.
        """
        return b"" if self._connection is None else await self._connection.read()

    def complete_body(self) -> bytes | None:
        """Return the whole body if it has arrived and nothing of it was read, else None."""
        return None if self._connection is None else self._connection.complete_body()

    def close(self) -> None:
        """Give the connection back, or close it if the response is incomplete.

        It may be called twice.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.give_back(self._origin, connection)


class _Pool:
    """Idle connections and used slots of one origin."""

    def __init__(self, limit: int) -> None:
        self.idle: deque[BackendConnection] = deque()
        self.free = limit
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self, seconds: float) -> None:
        """Wait for a slot, in order of arrival.

        Raises TimeoutError.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.release()  # it was given in the meantime
            elif turn in self.waiting:
                self.waiting.remove(turn)
            raise

    def release(self) -> None:
        """Give a slot to the first that waits, or back."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1


class Http1Client:
    """Connections of one service to its plain HTTP backends.

    At most `limit` for each origin.
    """

    def __init__(self, limit: int, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._pools: dict[Origin, _Pool] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def idle(self) -> int:
        """The open connections that no request uses."""
        return sum(len(pool.idle) for pool in self._pools.values())

    async def request(
        self, origin: Origin, head: bytes, body: bytes, dial_seconds: float, *, head_only: bool = False
    ) -> Http1Response:
        """Send a request and return the response once its head has arrived.

        A request that a kept connection did not carry, because the backend had closed it, is sent once more on a new
        one. `dial_seconds` limits the wait for a connection. Raises OSError.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = _Pool(self._limit)
        if pool.free > 0:
            pool.free -= 1
        else:
            await pool.acquire(dial_seconds)
        connection: BackendConnection | None = None
        try:
            connection = self._idle(pool)
            if connection is not None:
                connection.send(head, body, head_only=head_only)
                try:
                    await connection.response_head()
                    return Http1Response(self, origin, connection)
                except ConnectionEnded:
                    connection.close()
            connection = await self._connect(origin, dial_seconds)
            connection.send(head, body, head_only=head_only)
            await connection.response_head()
            return Http1Response(self, origin, connection)
        except BaseException:
            if connection is not None:
                connection.close()
            pool.release()
            raise

    def _idle(self, pool: _Pool) -> BackendConnection | None:
        """Return the connection that was used last, if it still can be."""
        while pool.idle:
            connection = pool.idle.pop()
            if connection.reusable:
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin, dial_seconds: float) -> BackendConnection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(dial_seconds):
            addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            sock = await start_connection(
                addresses,
                happy_eyeballs_delay=_HAPPY_EYEBALLS_SECONDS,
                loop=loop,
                socket_factory=keepalive_socket,
            )
            try:
                _, connection = await loop.create_connection(lambda: BackendConnection(loop), sock=sock)
            except BaseException:
                sock.close()
                raise
            return connection

    def give_back(self, origin: Origin, connection: BackendConnection) -> None:
        """Keep a connection for the next request, or close it."""
        pool = self._pools[origin]
        pool.release()
        if self._closed or not connection.reusable or self._loop is None:
            connection.close()
            return
        connection.idle_since = self._loop.time()
        pool.idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._idle_seconds, self._close_idle)

    def _close_idle(self) -> None:
        """Close the connections that were idle for too long."""
        self._sweep = None
        if self._loop is None:
            return
        oldest = self._loop.time() - self._idle_seconds
        for pool in self._pools.values():
            while pool.idle and pool.idle[0].idle_since <= oldest:
                pool.idle.popleft().close()
        if any(pool.idle for pool in self._pools.values()):
            self._sweep = self._loop.call_later(self._idle_seconds / 2, self._close_idle)

    async def close(self) -> None:
        """Close all idle connections. Those in use are closed when they are given back."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for pool in self._pools.values():
            while pool.idle:
                pool.idle.pop().close()
