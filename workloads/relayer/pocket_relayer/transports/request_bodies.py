"""Request bodies with Content-Encoding gzip."""

import asyncio
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from pocket_relayer.memory_budget import MemoryReservation
from pocket_relayer.rejection import Rejected, RejectionReason

_PORTION: Final = 1024 * 1024
_WAITING: Final = 64  # packed requests that wait for their turn


def is_packed(headers: Mapping[str, str]) -> bool:
    """Return whether a body is packed with gzip; raises Rejected for any other packing."""
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise Rejected(RejectionReason.BODY_UNREADABLE, "of packed requests only gzip is understood", 415)
    return encoding == "gzip"


class GzipRequestDecoder:
    """Decode the gzip bodies of one worker, one at a time in a thread, so that packed bombs cost others no time."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def decode(self, packed: bytes, limit: int, hold: MemoryReservation) -> bytes:
        """Return the plain bytes of one whole gzip member, counted in `hold`; raises Rejected beyond `limit` bytes."""
        if self._waiting >= _WAITING:
            raise Rejected(RejectionReason.OVERLOADED, "too many packed requests wait, send it unpacked")
        self._waiting += 1
        pieces: list[bytes] = []
        try:
            async with self._turn:
                size, portions = 0, _portions(packed)
                while piece := await asyncio.to_thread(next, portions, b""):
                    size += len(piece)
                    if size > limit:
                        raise Rejected(
                            RejectionReason.BODY_TOO_LARGE, f"the unpacked request is larger than {limit} bytes"
                        )
                    hold.take(len(piece))
                    pieces.append(piece)
            return b"".join(pieces)
        except zlib.error as error:
            raise Rejected(RejectionReason.BODY_UNREADABLE, "the body is no whole gzip") from error
        finally:
            self._waiting -= 1
            pieces.clear()


def _portions(packed: bytes) -> Iterator[bytes]:
    """Yield the plain bytes piece by piece; raises zlib.error for what is cut or followed by something."""
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    rest = packed
    while not decoder.eof:
        piece = decoder.decompress(rest, _PORTION)
        rest = decoder.unconsumed_tail
        if piece:
            yield piece
        elif not rest and not decoder.eof:
            raise zlib.error("cut")
    if decoder.unused_data or rest:
        raise zlib.error("followed by something else")
