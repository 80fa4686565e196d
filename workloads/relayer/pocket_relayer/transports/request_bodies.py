"""Request bodies with Content-Encoding gzip."""

import asyncio
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from pocket_relayer.backends.connection_slots import WAIT_SECONDS, ConnectionSlots
from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected, RejectionReason

_PORTION: Final = 1024 * 1024
_WAITING: Final = (32, 512)  # compressed requests of one address and of all in the queue
_SMALL: Final = 16 * 1024  # compressed bytes of a request that waits for no other one ...
_SMALL_PLAIN: Final = 64 * 1024  # ... if it has no more plain bytes than these


def is_gzipped(headers: Mapping[str, str]) -> bool:
    """Return True if a body is compressed with gzip.

    Raises Rejected for any other compression.
    """
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise Rejected(RejectionReason.BODY_UNREADABLE, "Content-Encoding of a request must be gzip or identity", 415)
    return encoding == "gzip"


class GzipRequestDecoder:
    """Decodes gzip bodies: small ones at once, others one at a time in a thread.

    Client addresses take turns, so the bombs of one client cost other clients little time.
    """

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        self._turns = ConnectionSlots(1, wait_seconds, _WAITING)

    async def decode(self, compressed: bytes, limit: int, reservation: MemoryReservation) -> bytes:
        """Return the plain bytes of one complete gzip member, counted in `reservation`.

        Raises Rejected beyond `limit` bytes, or if it is invalid.
        """
        address = reservation.connection.address
        try:
            plain = _small(compressed) if len(compressed) <= _SMALL else None
            if plain is not None and len(plain) <= limit:
                reservation.acquire(len(plain))
                return plain
            await self._acquire_turn(address)
            try:
                return await _decode_in_thread(compressed, limit, reservation)
            finally:
                self._turns.release(address)
        except zlib.error as error:
            raise Rejected(RejectionReason.BODY_UNREADABLE, "the body is not one complete gzip member") from error

    async def _acquire_turn(self, address: str) -> None:
        try:
            await self._turns.acquire(address)
        except Rejected as error:
            raise Rejected(
                RejectionReason.OVERLOADED, "too many compressed requests wait, send it uncompressed"
            ) from error


def _small(compressed: bytes) -> bytes | None:
    """Return the plain bytes of one complete member if there are few.

    Raises zlib.error.
    """
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    plain = decoder.decompress(compressed, _SMALL_PLAIN)
    return plain if decoder.eof and not decoder.unused_data else None


async def _decode_in_thread(compressed: bytes, limit: int, reservation: MemoryReservation) -> bytes:
    """Return the plain bytes, decoded in portions. Raises zlib.error or Rejected."""
    pieces: list[bytes] = []
    size, portions = 0, plain_portions(compressed)
    try:
        while piece := await asyncio.to_thread(next, portions, b""):
            size += len(piece)
            if size > limit:
                raise Rejected(RejectionReason.BODY_TOO_LARGE, f"the decompressed request is larger than {limit} bytes")
            reservation.acquire(len(piece))
            pieces.append(piece)
        return b"".join(pieces)
    finally:
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
