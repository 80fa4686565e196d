"""Batches of a streamed answer: lines, sent after 100 ms, 100 KiB or 100 lines (relay-lifecycle.md, section 9)."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Final

from relayer.rejection import Reason, Rejected

BATCH_SECONDS: Final = 0.1
BATCH_BYTES: Final = 100 * 1024
BATCH_LINES: Final = 100
LINE_BYTES: Final = 256 * 1024


class _Batch:
    def __init__(self) -> None:
        self.lines = bytearray()
        self.partial = bytearray()
        self.count = 0

    def add(self, chunk: bytes) -> None:
        self.partial += chunk
        end = self.partial.rfind(b"\n") + 1
        if end:
            self.count += self.partial.count(b"\n", 0, end)
            self.lines += self.partial[:end]
            del self.partial[:end]
        if len(self.partial) > LINE_BYTES:
            raise Rejected(Reason.RESPONSE_TOO_LARGE, f"a line of the stream is longer than {LINE_BYTES} bytes")

    @property
    def full(self) -> bool:
        return len(self.lines) >= BATCH_BYTES or self.count >= BATCH_LINES

    def taken(self) -> bytes:
        out = bytes(self.lines)
        self.lines.clear()
        self.count = 0
        return out


async def batches(
    chunks: AsyncIterator[bytes], deadline: float, seconds: float = BATCH_SECONDS
) -> AsyncGenerator[bytes, None]:
    """Non-empty batches of lines; the last may lack its newline. A real timer sends what a slow stream holds back.

    deadline: on the event loop's clock; a stream that goes on beyond it is refused. Raises Rejected.
    """
    loop = asyncio.get_running_loop()
    batch = _Batch()
    due: float | None = None
    reading: asyncio.Task[bytes] | None = None
    try:
        while True:
            if reading is None:
                reading = asyncio.ensure_future(_next(chunks))
            until = deadline if due is None else min(due, deadline)
            done, _ = await asyncio.wait({reading}, timeout=max(0.0, until - loop.time()))
            if loop.time() >= deadline:
                raise Rejected(Reason.BACKEND_TIMEOUT, "the stream did not end in time")
            if done:
                chunk, reading = reading.result(), None
                if not chunk:
                    break
                batch.add(chunk)
                if due is None and batch.lines:
                    due = loop.time() + seconds
            if batch.lines and (batch.full or not done):
                yield batch.taken()
                due = None
    finally:
        if reading is not None:
            reading.cancel()
            with suppress(asyncio.CancelledError, Rejected):
                await reading
    batch.lines += batch.partial
    if batch.lines:
        yield batch.taken()


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    async for chunk in chunks:
        if chunk:
            return chunk
    return b""
