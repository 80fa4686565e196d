"""Request bodies with Content-Encoding gzip."""

import asyncio
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from pocket_relayer.memory_budget import MemoryReservation
from pocket_relayer.rejection import Rejected, RejectionReason

_PORTION: Final = 1024 * 1024
_WAITING: Final = 64  # compressed requests in the queue


def is_gzipped(headers: Mapping[str, str]) -> bool:
    """Return True if a body is compressed with gzip.

    Raises Rejected for any other compression.
    """
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise Rejected(RejectionReason.BODY_UNREADABLE, "Content-Encoding of a request must be gzip or identity", 415)
    return encoding == "gzip"


class GzipRequestDecoder:
    """Decodes gzip bodies, one at a time in a thread.

    So the bombs of one client cost other clients no time.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def decode(self, compressed: bytes, limit: int, reservation: MemoryReservation) -> bytes:
        """Return the plain bytes of one complete gzip member, counted in `reservation`.

        Raises Rejected beyond `limit` bytes, or if it is invalid.
        """
        if self._waiting >= _WAITING:
            raise Rejected(RejectionReason.OVERLOADED, "too many compressed requests wait, send it uncompressed")
        self._waiting += 1
        pieces: list[bytes] = []
        try:
            async with self._turn:
                size, portions = 0, plain_portions(compressed)
                while piece := await asyncio.to_thread(next, portions, b""):
                    size += len(piece)
                    if size > limit:
                        raise Rejected(
                            RejectionReason.BODY_TOO_LARGE, f"the decompressed request is larger than {limit} bytes"
                        )
                    reservation.acquire(len(piece))
                    pieces.append(piece)
            return b"".join(pieces)
        except zlib.error as error:
            raise Rejected(RejectionReason.BODY_UNREADABLE, "the body is not one complete gzip member") from error
        finally:
            self._waiting -= 1
            pieces.clear()


def plain_portions(compressed: bytes) -> Iterator[bytes]:
    """Yield the plain bytes piece by piece.

    Raises zlib.error for a member that is cut off or followed by something.
    """
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    rest = compressed
    while not decoder.eof:
        piece = decoder.decompress(rest, _PORTION)
        rest = decoder.unconsumed_tail
        if piece:
            yield piece
        elif not rest and not decoder.eof:
            raise zlib.error("cut")
    if decoder.unused_data or rest:
        raise zlib.error("followed by something else")
