"""gRPC's length-prefixed messages, with or without gzip."""

import zlib
from typing import Final

from pocket.errors import DecodingError

_HEAD: Final = 5
_MESSAGES: Final = 4096
TRAILERS: Final = 0x80


def frame(message: bytes, flag: int = 0) -> bytes:
    """Return one message with its prefix."""
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


class Framing:
    """Splits bodies into messages of at most `limit` bytes in all, decompressed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def all(self, body: bytes, encoding: str = "identity") -> list[bytes]:
        """Return all messages of a body.

        Raises DecodingError.
        """
        messages: list[bytes] = []
        at = size = 0
        while at < len(body):
            if len(body) - at < _HEAD:
                raise DecodingError("a prefix of 5 bytes is cut short")
            flag, length = body[at], int.from_bytes(body[at + 1 : at + _HEAD], "big")
            at += _HEAD
            if flag not in (0, 1):
                raise DecodingError(f"flag {flag} is not known")
            if length > self._limit or at + length > len(body):
                raise DecodingError("the message is shorter than its prefix declares, or too large")
            part = body[at : at + length]
            at += length
            message = self._unpacked(part, encoding, self._limit - size) if flag else part
            size += len(message)
            if size > self._limit or len(messages) == _MESSAGES:
                raise DecodingError("the messages are too large or too many")
            messages.append(message)
        return messages

    def one(self, body: bytes, encoding: str = "identity") -> bytes:
        """Return the only message of a body.

        Raises DecodingError.
        """
        messages = self.all(body, encoding)
        if len(messages) != 1:
            raise DecodingError(f"{len(messages)} messages where one is expected")
        return messages[0]

    @staticmethod
    def _unpacked(part: bytes, encoding: str, limit: int) -> bytes:
        if encoding != "gzip":
            raise DecodingError(f"compression {encoding[:20]!r} is not supported")
        decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            plain = decoder.decompress(part, limit + 1)
        except zlib.error as error:
            raise DecodingError("the message is not gzip") from error
        if len(plain) > limit:
            raise DecodingError("the message is too large when unpacked")
        if not decoder.eof or decoder.unused_data:
            raise DecodingError("the message is not one complete gzip member")
        return plain
