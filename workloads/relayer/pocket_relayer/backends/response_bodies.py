"""Bodies of answers, unpacked before they are signed (relay-lifecycle.md, section 6)."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Final

from pocket.protocol.relays.envelope import Headers
from pocket_relayer.backends.responses import RetryableBackendError
from pocket_relayer.rejection import Rejected, RejectionReason

_MAGIC: Final = b"\x1f\x8b"
_GZIP: Final = ("gzip", "x-gzip")
_PIECE: Final = 64 * 1024
_IN_PLACE: Final = 4 * 1024  # packed bytes that are unpacked without a thread


def too_large() -> Rejected:
    """More than the service's limit once it is unpacked."""
    return Rejected(RejectionReason.RESPONSE_TOO_LARGE, "the backend's decompressed answer is too large")


def cut_off() -> RetryableBackendError:
    """A declared compression that ends before its end: what there is must not pass for the whole."""
    return RetryableBackendError(
        Rejected(RejectionReason.BACKEND_FAILED, "backend failed: its compressed answer is cut off")
    )


class ResponseBodyDecoder:
    """Decode gzip of any number of members, fed piece by piece; more than `limit` plain bytes are refused."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._begun = False
        self._size = 0

    def feed(self, packed: bytes) -> bytes:
        """Return plain bytes; raises zlib.error, and Rejected beyond the limit."""
        out = bytearray()
        view = memoryview(packed)
        while view:
            piece, view = view[:_PIECE], view[_PIECE:]
            out += self._piece(bytes(piece))
        return bytes(out)

    def _piece(self, piece: bytes) -> bytes:
        out = bytearray()
        while piece:
            if self._member.eof:
                piece = piece.lstrip(b"\0")  # members may be padded
                if not piece:
                    break
                self._member, self._begun = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16), False
            self._begun = True
            plain = self._member.decompress(piece, self._limit + 1 - self._size)
            self._size += len(plain)
            if self._size > self._limit:
                raise too_large()
            out += plain
            piece = self._member.unused_data
        return bytes(out)

    @property
    def complete(self) -> bool:
        """Return whether the last member that was begun has ended."""
        return self._member.eof or not self._begun


def _declared(headers: Headers) -> bool:
    return headers.get("Content-Encoding", ("",))[0].strip().lower() in _GZIP


def _text(headers: Headers) -> bool:
    """Whether text is promised: only there is gzip without a word a mistake, elsewhere it is a file."""
    kind = headers.get("Content-Type", ("",))[0].partition(";")[0].strip().lower()
    return not kind or kind.startswith("text/") or kind.endswith(("json", "xml", "javascript"))


def _unpacked(body: bytes, limit: int, *, declared: bool) -> bytes | None:
    """Return the plain body, None for what is kept as it is; raises Rejected and Retryable."""
    decoder = ResponseBodyDecoder(limit)
    try:
        plain = decoder.feed(body)
    except zlib.error:
        return None
    if decoder.complete:
        return plain
    if declared:
        raise cut_off()
    return None


async def plain_body(headers: Headers, body: bytes, limit: int) -> tuple[Headers, bytes]:
    """Return headers and body without gzip, recognised by its header or by its first bytes where text is promised.

    What cannot be decoded is kept as it is. Raises Rejected beyond the limit, Retryable for what is cut off.
    """
    declared = _declared(headers)
    if not body or not (declared or (body.startswith(_MAGIC) and _text(headers))):
        return headers, body
    if len(body) > _IN_PLACE:
        plain = await asyncio.to_thread(_unpacked, body, limit, declared=declared)
    else:
        plain = _unpacked(body, limit, declared=declared)
    if plain is None:
        return headers, body
    kept = {name: values for name, values in headers.items() if name != "Content-Encoding"}
    if "Content-Length" in kept:
        kept["Content-Length"] = (str(len(plain)),)
    return kept, plain


async def plain_chunks(headers: Headers, chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """A stream without gzip; raises Rejected where it cannot be decoded, is cut off or grows beyond the limit."""
    decoder = ResponseBodyDecoder(limit) if _declared(headers) else None
    async for chunk in chunks:
        try:
            yield decoder.feed(chunk) if decoder is not None else chunk
        except zlib.error as error:
            raise Rejected(
                RejectionReason.BACKEND_FAILED, "backend failed: its compressed stream is damaged"
            ) from error
    if decoder is not None and not decoder.complete:
        raise cut_off().rejected
