"""Carry all commands of a kind over one connection to a server.

None waits for the replies to earlier ones. redis-py takes a connection out of its pool, sends, and waits in a timeout
for each command. Here all commands of one iteration of the event loop are one write, and their replies are read as they
arrive. redis-py still opens the connection: with its login, TLS and the address that Sentinels name.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import hiredis
from redis._parsers import BaseParser
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, InvalidResponse, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pocket.redis_store.closed_transports import closed_transports

LONGEST_WAIT_SECONDS: Final = 5.0
"""How long a read may wait for news on a connection for such reads, which adds this to the deadline of a command."""
_CLOSED: Final = "Connection closed by server."
_INCOMPLETE: Final = object()
"""What the parser returns while a reply is not complete."""


class ConnectionGeneration(Protocol):
    """The generation of a server's connections.

    pocket.redis_store.connection_generation.Generation implements it.
    """

    number: int

    def condemn(self, number: int) -> bool:
        """Condemn a generation.

        Returns True if the next connection belongs to a newer one.
        """

    def lost(self, number: int) -> None:
        """Note that an open connection of a generation was found closed."""


class _Replies(asyncio.Protocol):
    """An open connection. Replies arrive in the order of the commands."""

    def __init__(
        self, connection: Connection, generation: ConnectionGeneration, number: int, timeout_seconds: float
    ) -> None:
        self.connection = connection
        self.number = number
        self.lost = True
        """False once the connection is closed on purpose."""
        self._generation = generation
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._sent: deque[tuple[float, int]] = deque()
        """Time and number of commands of each write whose replies are not complete."""
        self._timer: asyncio.TimerHandle | None = None
        self._retired = False
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=BaseParser.parse_error, notEnoughData=_INCOMPLETE
        )
        self._transport: asyncio.Transport = connection._writer.transport  # type: ignore[union-attr, assignment]  # noqa: SLF001 - redis-py has no accessor
        self._former: asyncio.BaseProtocol = self._transport.get_protocol()
        self._transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """Return True if commands may be sent."""
        return not self._retired and not self._transport.is_closing()

    def send(self, data: bytes, waiting: list["asyncio.Future[Any]"]) -> None:
        """Send commands. Each future gets the reply to its command, or its error."""
        self._waiting.extend(waiting)
        self._sent.append((self._loop.time(), len(waiting)))
        try:
            with closed_transports():
                self._transport.write(data)
        except RedisConnectionError as error:
            self._fail(error)
            return
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_seconds, self._check)

    def data_received(self, data: bytes) -> None:
        """Give the replies to their commands."""
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _INCOMPLETE:
                self._settle(waiting.popleft(), reply)
        except (RedisError, IndexError, ValueError) as error:
            self._fail(RedisConnectionError(f"the server's reply cannot be read: {error}"))

    def _settle(self, done: "asyncio.Future[Any]", reply: Any) -> None:
        written, number = self._sent[0]
        if number == 1:
            self._sent.popleft()
        else:
            self._sent[0] = written, number - 1
        if not done.done():  # otherwise its caller was cancelled
            if isinstance(reply, RedisError):
                done.set_exception(reply)
            else:
                done.set_result(reply)
        if self._retired or isinstance(reply, RedisConnectionError):  # of the login, or while the server loads its data
            self._retire()

    def _retire(self) -> None:
        self._retired = True
        if not self._waiting:
            self._transport.close()

    def retire(self) -> None:
        """Send nothing more, and close the connection after the last reply."""
        self.lost = False
        self._retire()

    async def aclose(self) -> None:
        """Close the connection at once."""
        self.lost = False
        self._fail(RedisConnectionError(_CLOSED))
        await self.connection.disconnect()

    def _check(self) -> None:
        """Close a connection whose server does not answer in time."""
        self._timer = None
        if not self._sent:
            return
        left = self._sent[0][0] + self._timeout_seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._fail(RedisTimeoutError("Timeout reading from the server"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the commands without a reply."""
        if self.lost:
            self._generation.lost(self.number)
        self._fail(RedisConnectionError(f"{_CLOSED} {exc}" if exc else _CLOSED))
        self._former.connection_lost(exc)
        self.connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001 - redis-py notes that it is closed

    def _fail(self, error: RedisError) -> None:
        self._retired = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        self._sent.clear()
        for done in waiting:
            if not done.done():
                done.set_exception(error)
                done.exception()  # its caller may be gone


class ScriptConnection:
    """The connection of one server's pool for scripts.

    It is opened at the first script, and again once it is lost. Every script has a deadline. A script that a demoted
    instance rejected is sent once more, on a new connection. Whether a script that was lost with its connection is
    repeated is the caller's decision.
    """

    def __init__(
        self, open_connection: Callable[[], Connection], generation: ConnectionGeneration, timeout_seconds: float
    ) -> None:
        self._open_connection = open_connection
        self._generation = generation
        self._timeout_seconds = timeout_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._replies: _Replies | None = None
        self._opening: asyncio.Task[None] | None = None
        self._data: list[bytes] = []
        self._waiting: list[asyncio.Future[Any]] = []

    async def call(self, command: tuple[Any, ...]) -> Any:
        """Execute a command. Raises what redis-py raises."""
        try:
            data = hiredis.pack_command(command)
        except TypeError as error:
            raise DataError("a value of a Redis command is neither text, bytes nor a number") from error
        number = self._generation.number
        try:
            return await self._send(data)
        except ReadOnlyError:
            if not self._generation.condemn(number):
                raise
        return await self._send(data)

    def _send(self, data: bytes) -> "asyncio.Future[Any]":
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        done = loop.create_future()
        self._waiting.append(done)
        self._data.append(data)
        return done

    def _flush(self) -> None:
        """Send what this iteration of the event loop has collected.

        It waits until the connection is open.
        """
        if self._opening is not None:
            return
        replies = self._replies
        if replies is not None and replies.number != self._generation.number:
            replies.retire()
        if replies is None or not replies.usable:
            self._replies = None
            self._opening = asyncio.get_running_loop().create_task(self._open())
            return
        data, waiting = self._take()
        if waiting:
            replies.send(data, waiting)

    def _take(self) -> tuple[bytes, list["asyncio.Future[Any]"]]:
        """Return the collected commands, except those whose callers are gone."""
        rows = [row for row in zip(self._data, self._waiting, strict=True) if not row[1].done()]
        self._data, self._waiting = [], []
        return b"".join(data for data, _ in rows), [done for _, done in rows]

    async def _open(self) -> None:
        number = self._generation.number
        connection = self._open_connection()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py's own
        except BaseException as error:
            self._opening = None
            failure = error if isinstance(error, (RedisError, OSError)) else RedisConnectionError(_CLOSED)
            for done in self._take()[1]:
                done.set_exception(failure)
                done.exception()
            if isinstance(error, (RedisError, OSError)):
                return
            raise
        self._opening = None
        self._replies = _Replies(connection, self._generation, number, self._timeout_seconds)
        self._flush()

    async def aclose(self) -> None:
        """Close the connection. Scripts without a reply fail."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._replies is not None:
            replies, self._replies = self._replies, None
            await replies.aclose()
