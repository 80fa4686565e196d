"""Batches of a streamed response: whole lines, as they arrive.

Source: relay-lifecycle.md, section 9.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from pocket.protocol.relays.envelope import HttpResponse
from pocket_relayer.backends.responses import BackendResponse, BackendStream
from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected, RejectionReason

BATCH_BYTES: Final = 100 * 1024
BATCH_LINES: Final = 100
LINE_BYTES: Final = 256 * 1024


def _batch_end(lines: bytearray, number: int) -> int:
    """Return the length of the first lines in bytes.

    They are at most `number` lines and about as many bytes as a batch may have.
    """
    end = count = 0
    while count < number and end < BATCH_BYTES:
        line_end = lines.find(b"\n", end) + 1
        if not line_end:
            break
        end, count = line_end, count + 1
    return end


async def batches(chunks: AsyncIterator[bytes], deadline: float) -> AsyncGenerator[bytes, None]:
    """Yield non-empty batches of lines as soon as they have arrived.

    The last batch may lack its newline. What arrives while a batch is sent waits in the backend's connection and makes
    the next batches larger. `deadline` is on the event loop's clock. Raises Rejected for a stream that exceeds it.
    """
    pending = bytearray()
    while chunk := await _next(chunks, deadline):
        pending += chunk
        while end := _batch_end(pending, BATCH_LINES):
            lines = bytes(pending[:end])
            del pending[:end]
            yield lines
            await asyncio.sleep(0)  # signing a batch takes the loop's time, and a chunk may hold a thousand of them
        if len(pending) > LINE_BYTES:
            raise Rejected(
                RejectionReason.RESPONSE_TOO_LARGE, f"a line of the stream is longer than {LINE_BYTES} bytes"
            )
    if pending:
        yield bytes(pending)


async def _next(chunks: AsyncIterator[bytes], deadline: float) -> bytes:
    """Return the next bytes, or empty bytes at the end.

    Raises Rejected.
    """
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in chunks:
                if chunk:
                    return chunk
    except TimeoutError:
        raise Rejected(RejectionReason.BACKEND_TIMEOUT, "the stream did not end in time") from None
    return b""


async def collect(served: BackendStream, limit: int, reservation: MemoryReservation | None) -> BackendResponse:
    """Return a stream as one response, for transports that cannot forward it.

    Raises Rejected for a stream of more than `limit` bytes, or if there is no memory for it.
    """
    body = bytearray()
    try:
        async with aclosing(batches(served.chunks, served.deadline)) as line_batches:
            async for lines in line_batches:
                if reservation is not None:
                    reservation.acquire(len(lines))
                body += lines
                if len(body) > limit:
                    raise Rejected(RejectionReason.RESPONSE_TOO_LARGE, f"the stream is larger than {limit} bytes")
    finally:
        await served.close()
    return BackendResponse(HttpResponse(served.status, served.headers, bytes(body)), served.retries)
