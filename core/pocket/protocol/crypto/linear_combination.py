"""Compute a·A + b·B for ring signatures.

The optional accelerator or libsecp256k1 does it. The accelerator (native/) is used if both points have tables. It is
loaded at import unless RELAY_ACCELERATOR is `off`, and only if it agrees with libsecp256k1 on a few sums. Both give the
same bytes (tests/unit/test_accelerator.py).

A table takes 131 KiB and about a millisecond to build, so only points that recur in *verified* signatures get one. The
key image of an unauthenticated request never does. RELAY_ACCELERATOR_TABLES bounds their number (default 256, 33 MiB a
process); the least recently used go first.
"""

import ctypes
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pocket.errors import InvalidPoint
from pocket.protocol.acceleration import load_native, native_library
from pocket.protocol.crypto import curve
from pocket.protocol.crypto.curve import POINT_BYTES, Point, decode_long_lived_point, encode_point, multiply_base

_LIBRARY: Final = native_library("combine")
EARNED_BY: Final = 32
"""Verified signatures by which a point earns a table. Building one costs what forty signatures save: a point that
recurs less often never pays for it, and one that recurs for ever loses no more than that cost."""
EARNED_FROM_ANOTHER_BY: Final = 64
"""Verified signatures by which a point takes the place of another table, so that points that take turns do not replace
each other."""
_CANDIDATES: Final = 4096
BASE: Final = decode_long_lived_point(encode_point(multiply_base(1)))
"""The generator."""


def plain(first: Point, a: int, second: Point, b: int) -> bytes:
    """Return the compressed form of a·first + b·second, computed by libsecp256k1."""
    if first is BASE:
        return encode_point(curve.multiply_base_and_point(a, b, second))
    return encode_point(curve.add(curve.multiply(a, first), curve.multiply(b, second)))


_Encoded: Final = ctypes.c_char * POINT_BYTES
_EncodedPair: Final = ctypes.c_char * (2 * POINT_BYTES)


class _Table:
    """A table of the library, freed with its last reference."""

    __slots__ = ("_library", "address")

    def __init__(self, library: Any, address: int) -> None:
        self._library = library
        self.address: Final = address

    def __del__(self) -> None:
        self._library.ra_table_free(self.address)


def _open(library: Path) -> Any:
    """Load the library and declare its functions (combine.c).

    Raises OSError or AttributeError.
    """
    functions = ctypes.CDLL(str(library))
    functions.ra_table_new.argtypes = [ctypes.c_char_p]
    functions.ra_table_new.restype = ctypes.c_void_p
    functions.ra_table_free.argtypes = [ctypes.c_void_p]
    functions.ra_table_free.restype = None
    functions.ra_combine.argtypes = [
        ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p
    ]  # fmt: skip
    functions.ra_combine.restype = ctypes.c_int
    functions.ra_combine_pair.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 4, ctypes.c_char_p, ctypes.c_char_p]
    functions.ra_combine_pair.restype = ctypes.c_int
    return functions


class Accelerator:
    """The compiled library and its tables, one for each process."""

    def __init__(self, library: Path, tables: int = 256) -> None:
        """Load the library and build the generator's table. Raises OSError."""
        self._lib = _open(library)
        self._combine = self._lib.ra_combine
        self._combine_pair = self._lib.ra_combine_pair
        self._tables: OrderedDict[bytes, _Table] = OrderedDict()
        self._earned: OrderedDict[bytes, int] = OrderedDict()
        self._most = tables
        self._base = self._table(BASE.encoded)
        self.missed = False
        """True if a point had no table since the last promotion."""

    def __len__(self) -> int:
        """Return the number of points with a table, without the generator."""
        return len(self._tables)

    def _table(self, encoded: bytes) -> _Table:
        made = self._lib.ra_table_new(encoded) if len(encoded) == POINT_BYTES else None
        if made is None:
            raise InvalidPoint("cannot build a table: not a point of secp256k1")
        return _Table(self._lib, made)

    def linear_combination(self, first: Point, a: int, second: Point, b: int) -> bytes | None:
        """Compute like `plain`, or return None if a point has no table.

        Scalars are below 2^256.
        """
        tables, first_encoded, second_encoded = self._tables, first.encoded, second.encoded
        one = self._base if first is BASE else tables.get(first_encoded)
        other = self._base if second is BASE else tables.get(second_encoded)
        if one is not None and first is not BASE:
            tables.move_to_end(first_encoded)
        if other is not None and second is not BASE:
            tables.move_to_end(second_encoded)
        if one is None or other is None:
            self.missed = True
            return None
        out = _Encoded()
        first_scalar, second_scalar = a.to_bytes(32, "big"), b.to_bytes(32, "big")
        if not self._combine(out, one.address, first_scalar, other.address, second_scalar):
            return None
        return out.raw

    def ring_sums(self, member: Point, hashed: Point, image: Point, s: int, c: int) -> bytes | None:
        """Compute like `ring_sums` below, or return None if a point has no table.

        Scalars are below 2^256.
        """
        tables = self._tables
        try:
            for point in (member, hashed, image):
                tables.move_to_end(point.encoded)
        except KeyError:
            self.missed = True
            return None
        first, second, third = tables[member.encoded], tables[hashed.encoded], tables[image.encoded]
        out = _EncodedPair()
        response, challenge = s.to_bytes(32, "big"), c.to_bytes(32, "big")
        if not self._combine_pair(
            out, self._base.address, first.address, second.address, third.address, response, challenge
        ):
            return None
        return out.raw

    def promote(self, points: Iterable[bytes]) -> None:
        """Count the points of a verified signature and build tables for frequent ones."""
        self.missed = False
        for encoded in points:
            if encoded in self._tables:
                continue
            number = self._earned.pop(encoded, 0) + 1
            if number < (EARNED_BY if len(self._tables) < self._most else EARNED_FROM_ANOTHER_BY):
                self._earned[encoded] = number
                if len(self._earned) > _CANDIDATES:
                    self._earned.popitem(last=False)
                continue
            self._tables[encoded] = self._table(encoded)
            if len(self._tables) > self._most:
                self._tables.popitem(last=False)

    def self_test(self) -> bool:
        """Return whether some sums, edge cases included, equal those of `plain`."""
        other = decode_long_lived_point(encode_point(multiply_base(7)))
        self._tables[other.encoded] = self._table(other.encoded)
        scalars = (0, 1, curve.N - 1, curve.N, curve.N - 7, 2**256 - 1, curve.N // 3)
        good = all(
            self.linear_combination(BASE, a, other, b) == plain(BASE, a, other, b)
            for a in scalars
            for b in (*scalars, 0x1234567)
        ) and all(
            self.ring_sums(other, other, other, a, b) == plain(BASE, a, other, b) + plain(other, a, other, b)
            for a in scalars
            for b in (*scalars, 0x1234567)
        )
        del self._tables[other.encoded]
        return good


def load(environment: Mapping[str, str] = os.environ, library: Path | None = _LIBRARY) -> Accelerator | None:
    """Return the accelerator, or None if `load_native` rejects it."""

    def open_library(library: Path) -> Accelerator:
        return Accelerator(library, max(8, int(environment.get("RELAY_ACCELERATOR_TABLES", "256"))))

    return load_native("ring signatures", library, open_library, Accelerator.self_test, environment)


accelerator: Accelerator | None = load()
"""None if everything is computed by libsecp256k1."""


def linear_combination(first: Point, a: int, second: Point, b: int) -> bytes:
    """Return the compressed form of a·first + b·second.

    Infinity is encoded as by `encode_point`. Scalars are below 2^256.
    """
    if accelerator is not None and (total := accelerator.linear_combination(first, a, second, b)) is not None:
        return total
    return plain(first, a, second, b)


def ring_sums(member: Point, hashed: Point, image: Point, s: int, c: int) -> bytes:
    """Return both points of one step of the ring equation, compressed.

    They are s·G + c·member and s·hashed + c·image.
    """
    if accelerator is not None and (sums := accelerator.ring_sums(member, hashed, image, s, c)) is not None:
        return sums
    return linear_combination(BASE, s, member, c) + linear_combination(hashed, s, image, c)


def record_verified(points: Iterable[bytes]) -> None:
    """Record the points of a verified signature as candidates for tables."""
    if accelerator is not None and accelerator.missed:  # otherwise all of them have tables
        accelerator.promote(points)
