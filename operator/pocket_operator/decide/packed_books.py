"""Keep the books in the cached status of a Supplier small.

They may name a thousand sessions.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


class PackedBooks:
    """The books of a status, compressed. They equal the same books in any form."""

    __slots__ = ("_data", "_digest")

    def __init__(self, books: Mapping[str, Any]) -> None:
        text = _canonical(books)
        self._data = zlib.compress(text, 1)
        self._digest = _digest(text)

    def __eq__(self, other: object) -> bool:
        """Return True for the same books, packed or not."""
        if isinstance(other, PackedBooks):
            return self._digest == other._digest
        return isinstance(other, Mapping) and self._digest == _digest(_canonical(other))

    def __hash__(self) -> int:
        """Return the hash of the books."""
        return hash(self._digest)

    def unpack(self) -> Object:
        """Return the books as the API server has them."""
        document: Object = json.loads(zlib.decompress(self._data))
        return document


def with_packed_books(supplier: Object) -> Object:
    """Return a Supplier whose status has its books packed."""
    status = supplier.get("status") or {}
    if not isinstance(status.get("books"), dict):
        return supplier
    return {**supplier, "status": {**status, "books": PackedBooks(status["books"])}}


def unpacked(books: Mapping[str, Any] | PackedBooks) -> Mapping[str, Any]:
    """Return books of a status, packed or not, as they are in the API server."""
    return books.unpack() if isinstance(books, PackedBooks) else books


def _canonical(books: Mapping[str, Any]) -> bytes:
    return json.dumps(books, sort_keys=True, separators=(",", ":")).encode()


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()
