"""Batches of a streamed answer: whole lines, as they come (relay-lifecycle.md, section 9)."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from pocket_relayer.rejection import Rejected, RejectionReason

BATCH_BYTES: Final = 100 * 1024
BATCH_LINES: Final = 100
LINE_BYTES: Final = 256 * 1024


def _first(lines: bytearray, number: int) -> int:
    """Return the bytes of the first lines: `number` of them, and about as many as a batch may have."""
    end = count = 0
    while count < number and end < BATCH_BYTES:
        found = lines.find(b"\n", end) + 1
        if not found:
            break
        end, count = found, count + 1
    return end


async def batches(chunks: AsyncIterator[bytes], deadline: float) -> AsyncGenerator[bytes, None]:
    """Non-empty batches of lines, each as soon as its lines came; the last may lack its newline.

    What comes while a batch is sent waits in the backend's connection, and makes the next batches larger.

    deadline: on the event loop's clock; a stream that goes on beyond it is refused. Raises Rejected.
    """
    held = bytearray()
    while chunk := await _next(chunks, deadline):
        held += chunk
        while end := _first(held, BATCH_LINES):
            lines = bytes(held[:end])
            del held[:end]
            yield lines
        if len(held) > LINE_BYTES:
            raise Rejected(
                RejectionReason.RESPONSE_TOO_LARGE, f"a line of the stream is longer than {LINE_BYTES} bytes"
            )
    if held:
        yield bytes(held)


async def _next(chunks: AsyncIterator[bytes], deadline: float) -> bytes:
    """The next bytes; empty at the end. Raises Rejected."""
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in chunks:
                if chunk:
                    return chunk
    except TimeoutError:
        raise Rejected(RejectionReason.BACKEND_TIMEOUT, "the stream did not end in time") from None
    return b""
