"""Generate load with little weight of its own, so that latencies are the server's.

It uses raw keep-alive connections.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit


@dataclass(slots=True)
class Exchanges:
    """Seconds of each exchange of a run, and how many were not answered with 200."""

    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    last_failure: str = ""


class _Connection(asyncio.Protocol):
    """Exchanges one message after the other over one connection.

    It is opened again when the server closes it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = (parts.hostname or "", parts.port or 80)
        self._buffer = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    async def open(self) -> None:
        """Connect.

        Raises OSError.
        """
        await asyncio.get_running_loop().create_connection(lambda: self, *self._place)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange in progress with an error."""
        self._transport, self._buffer = None, b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Complete the exchange once the whole response has arrived."""
        self._buffer = self._buffer + data if self._buffer else data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if found and _complete(head, body) and self._answer is not None and not self._answer.done():
            self._answer.set_result(self._buffer)
            self._buffer = b""

    async def exchange(self, request: bytes, into: Exchanges, asked: float) -> None:
        """Send one request and add its result to `into`, with the time since `asked`."""
        try:
            if self._transport is None:
                await self.open()
            self._answer = asyncio.get_running_loop().create_future()
            cast(asyncio.Transport, self._transport).write(request)
            answer = await self._answer
        except OSError as error:
            into.failed += 1
            into.last_failure = str(error) or type(error).__name__
            return
        into.latencies.append(time.perf_counter() - asked)
        if answer[9:12] != b"200":
            into.failed += 1
            into.last_failure = repr(answer[:12] + answer.partition(b"\r\n\r\n")[2][:200])


def _complete(head: bytes, body: bytes) -> bool:
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at >= 0:
        return len(body) >= int(lowered[at + 17 :].split(b"\r\n", 1)[0])
    return body.endswith(b"0\r\n\r\n")  # chunked


def encode_post(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return a complete HTTP request."""
    parts = urlsplit(url)
    rows = {"Host": parts.netloc, "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
    return f"POST {parts.path or '/'} HTTP/1.1\r\n{lines}\r\n".encode() + body


@contextlib.asynccontextmanager
async def _connected(url: str, number: int) -> AsyncIterator[list[_Connection]]:
    """Open the connections and pause garbage collection meanwhile."""
    made = [_Connection(url) for _ in range(number)]
    for connection in made:
        await connection.open()
    gc.freeze()
    gc.disable()
    try:
        yield made
    finally:
        gc.enable()
        gc.unfreeze()
        for connection in made:
            connection.close()


async def pulse(url: str, requests: Sequence[bytes], per_second: float, connections: int = 64) -> Exchanges:
    """Send requests at a steady rate.

    The wait for a free connection is part of the latency.
    """
    found = Exchanges()
    free: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()

    async def one(request: bytes, asked: float) -> None:
        connection = await free.get()
        await connection.exchange(request, found, asked)
        free.put_nowait(connection)

    async with _connected(url, connections) as made:
        for connection in made:
            free.put_nowait(connection)
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, request in enumerate(requests):
                if (early := begun + number / per_second - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                group.create_task(one(request, time.perf_counter()))
    return found


async def flood(url: str, requests: Iterable[bytes], connections: int) -> Exchanges:
    """As fast as the connections carry it."""
    found = Exchanges()
    pending = iter(requests)

    async def one(connection: _Connection) -> None:
        for request in pending:
            await connection.exchange(request, found, time.perf_counter())

    async with _connected(url, connections) as made:
        await asyncio.gather(*map(one, made))
    return found
