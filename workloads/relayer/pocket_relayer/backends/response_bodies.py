"""Response bodies, decompressed before they are signed.

Source: relay-lifecycle.md, section 6.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Final

from pocket.protocol.relays.envelope import Headers
from pocket_relayer.backends.responses import RetryableBackendError
from pocket_relayer.limits.rejection import Rejected, RejectionReason

_MAGIC: Final = b"\x1f\x8b"
_GZIP: Final = ("gzip", "x-gzip")
_PIECE: Final = 64 * 1024
_IN_PLACE: Final = 4 * 1024  # compressed bytes up to which no thread is used


def too_large() -> Rejected:
    """Return the rejection of a response that is too large once decompressed."""
    return Rejected(RejectionReason.RESPONSE_TOO_LARGE, "the backend's decompressed answer is too large")


def cut_off() -> RetryableBackendError:
    """Return the failure of a declared compression that is cut off.

    An incomplete body must not pass for the whole.
    """
    return RetryableBackendError(
        Rejected(RejectionReason.BACKEND_FAILED, "backend failed: its compressed answer is cut off"), reached=True
    )


class ResponseBodyDecoder:
    """Incremental gzip decoder of any number of members, limited in plain bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._begun = False
        self._size = 0

    def feed(self, compressed: bytes) -> bytes:
        """Return the plain bytes of the next piece.

        Raises zlib.error, and Rejected beyond the limit.
        """
        out = bytearray()
        view = memoryview(compressed)
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
        """Return True if the last member that began has ended."""
        return self._member.eof or not self._begun


def _declared(headers: Headers) -> bool:
    encoding = headers.get("Content-Encoding")
    return encoding is not None and encoding[0].strip().lower() in _GZIP


def _text(headers: Headers) -> bool:
    """Return True if the headers promise text.

    Only text with undeclared gzip is a mistake of the backend. Anything else is a file.
    """
    kind = headers.get("Content-Type", ("",))[0].partition(";")[0].strip().lower()
    return not kind or kind.startswith("text/") or kind.endswith(("json", "xml", "javascript"))


def _decompressed(body: bytes, limit: int, *, declared: bool) -> bytes | None:
    """Return the plain body, or None for a body that is kept as it is.

    Raises Rejected and RetryableBackendError.
    """
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
    """Return headers and body without gzip.

    Gzip is recognised by its header, or by its first bytes where text is promised. A body that cannot be decoded is
    kept as it is. Raises Rejected beyond the limit and RetryableBackendError for a body that is cut off.
    """
    declared = _declared(headers)
    if not body or not (declared or (body.startswith(_MAGIC) and _text(headers))):
        return headers, body
    if len(body) > _IN_PLACE:
        plain = await asyncio.to_thread(_decompressed, body, limit, declared=declared)
    else:
        plain = _decompressed(body, limit, declared=declared)
    if plain is None:
        return headers, body
    kept = {name: values for name, values in headers.items() if name != "Content-Encoding"}
    if "Content-Length" in kept:
        kept["Content-Length"] = (str(len(plain)),)
    return kept, plain


async def plain_chunks(headers: Headers, chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """Yield a stream without gzip.

    Raises Rejected if the stream cannot be decoded, is cut off or grows beyond the limit.
    """
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
