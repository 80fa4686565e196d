"""A load generator that weighs little: raw keep-alive connections, so that latencies are the server's."""

import asyncio
import gc
import time
from collections.abc import Sequence
from typing import cast
from urllib.parse import urlsplit


class _Connection(asyncio.Protocol):
    """One exchange after the other; answers must have a Content-Length."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, float]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the way out."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def exchange(self, request: bytes) -> "asyncio.Future[tuple[int, float]]":
        """(status, time of the last byte by perf_counter)."""
        if self._transport is None:
            raise ConnectionError("not connected")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Ends the exchange once the whole body is there."""
        self._buffer = self._buffer + data if self._buffer else data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lowered = head.lower()
        at = lowered.index(b"content-length:") + 15
        length = int(lowered[at:].split(b"\r\n", 1)[0])
        if len(body) >= length and self._answer is not None and not self._answer.done():
            self._buffer = b""
            self._answer.set_result((int(head[9:12]), time.perf_counter()))


def encode_post(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A whole request."""
    parts = urlsplit(url)
    rows = {"Host": parts.netloc, "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
    return f"POST {parts.path or '/'} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def pulse(
    url: str, requests: Sequence[bytes], per_second: float, connections: int = 64
) -> tuple[list[float], int]:
    """(seconds of each exchange, waiting for a free connection included; how many were not answered with 200)."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    free: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
    made = [await loop.create_connection(_Connection, parts.hostname, parts.port) for _ in range(connections)]
    for _, connection in made:
        free.put_nowait(connection)
    latencies: list[float] = []
    failed = 0

    async def one(request: bytes, asked: float) -> None:
        nonlocal failed
        connection = await free.get()
        status, ended = await connection.exchange(request)
        free.put_nowait(connection)
        latencies.append(ended - asked)
        failed += status != 200

    begun = time.perf_counter()
    gc.freeze()
    gc.disable()
    try:
        async with asyncio.TaskGroup() as group:
            for number, request in enumerate(requests):
                due = begun + number / per_second
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                group.create_task(one(request, time.perf_counter()))
    finally:
        gc.enable()
        gc.unfreeze()
    for transport, _ in made:
        transport.close()
    return sorted(latencies), failed
