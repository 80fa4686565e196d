"""Compute with secp256k1 points and scalars on libsecp256k1.

btclib_libsecp256k1 carries the library. Only this module and `ecdsa` use its cffi binding. Its version is pinned, and
tests/unit/test_curve.py compares every operation with a slow affine implementation. Points are the library's opaque
64-byte structs, wrapped in `Point`; infinity is `None`. Source: docs/protocol/ring-signatures.md, section 1.
"""

from functools import lru_cache
from typing import Any, Final

from btclib_libsecp256k1 import ffi, lib

from pocket.errors import InvalidPoint

P: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFC2F
N: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
INFINITY_ENCODING: Final = b"\x02" + bytes(32)
POINT_BYTES: Final = 33
SCALAR_BYTES: Final = 32

_CONTEXT: Final = lib.secp256k1_context_create(1)
_COMPRESSED: Final = 258  # SECP256K1_EC_COMPRESSED
_NEW_POINT: Final = ffi.typeof("secp256k1_pubkey *")
_NEW_RECOVERABLE: Final = ffi.typeof("secp256k1_ecdsa_recoverable_signature *")
_POINT_LIST: Final = ffi.typeof("secp256k1_pubkey *[2]")


class Point:
    """A finite curve point."""

    __slots__ = ("_encoded", "raw")

    def __init__(self, raw: Any, encoded: bytes | None = None) -> None:
        self.raw = raw
        self._encoded = encoded

    @property
    def encoded(self) -> bytes:
        """Return the 33-byte compressed form."""
        if self._encoded is None:
            out = ffi.new("unsigned char[33]")
            size = ffi.new("size_t *", POINT_BYTES)
            lib.secp256k1_ec_pubkey_serialize(_CONTEXT, out, size, self.raw, _COMPRESSED)
            self._encoded = bytes(ffi.buffer(out))
        return self._encoded

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash(self.encoded)

    def __repr__(self) -> str:
        return f"Point({self.encoded.hex()})"


def decode_point(encoded: bytes) -> Point:
    """Decode a point from its compressed form.

    Raises InvalidPoint for a wrong length or first byte, for x >= p, and for an x that is not on the curve.
    """
    if len(encoded) != POINT_BYTES or encoded[0] not in (2, 3):
        raise InvalidPoint(f"a point has {POINT_BYTES} bytes and starts with 02 or 03, got {len(encoded)} bytes")
    raw = ffi.new(_NEW_POINT)
    if not lib.secp256k1_ec_pubkey_parse(_CONTEXT, raw, encoded, POINT_BYTES):
        raise InvalidPoint("x is not the coordinate of a point of secp256k1")
    return Point(raw, bytes(encoded))


@lru_cache(maxsize=4096)
def decode_long_lived_point(encoded: bytes) -> Point:
    """Decode a recurring point (a ring member or its H_p) with a bounded cache."""
    return decode_point(encoded)


def encode_point(point: Point | None) -> bytes:
    """Return the compressed form of a point.

    Infinity is 02 followed by 32 zero bytes, as the chain hashes it.
    """
    return INFINITY_ENCODING if point is None else point.encoded


def decode_scalar(encoded: bytes) -> int:
    """Big-endian scalar, silently reduced mod N (section 1)."""
    return int.from_bytes(encoded, "big") % N


def encode_scalar(scalar: int) -> bytes:
    """32 bytes big-endian of the reduced value."""
    return (scalar % N).to_bytes(SCALAR_BYTES, "big")


def multiply_base(scalar: int) -> Point | None:
    """Return scalar·G, or None for infinity."""
    scalar %= N
    if scalar == 0:
        return None
    raw = ffi.new(_NEW_POINT)
    lib.secp256k1_ec_pubkey_create(_CONTEXT, raw, scalar.to_bytes(32, "big"))
    return Point(raw)


def multiply(scalar: int, point: Point | None) -> Point | None:
    """Return scalar·point, or None for infinity."""
    scalar %= N
    if scalar == 0 or point is None:
        return None
    raw = ffi.new(_NEW_POINT, point.raw[0])
    lib.secp256k1_ec_pubkey_tweak_mul(_CONTEXT, raw, scalar.to_bytes(32, "big"))
    return Point(raw)


def add(left: Point | None, right: Point | None) -> Point | None:
    """Return left + right, or None for infinity."""
    if left is None:
        return right
    if right is None:
        return left
    raw = ffi.new(_NEW_POINT)
    if not lib.secp256k1_ec_pubkey_combine(_CONTEXT, raw, ffi.new(_POINT_LIST, [left.raw, right.raw]), 2):
        return None
    return Point(raw)


def multiply_base_and_point(base_scalar: int, scalar: int, point: Point) -> Point | None:
    """Return base_scalar·G + scalar·point from one multiplication.

    ECDSA public-key recovery computes r⁻¹·(s'·R − m·G) for the point R with x = r. With R = point,
    s' = scalar·r and m = −base_scalar·r that is the wanted sum. Recovery rejects s' = 0 and results at
    infinity, and r must be below N: those cases use two multiplications.
    """
    encoded = point.encoded
    r = int.from_bytes(encoded[1:], "big")
    s = scalar * r % N
    if r < N and s != 0:
        message = -base_scalar * r % N
        compact = encoded[1:] + s.to_bytes(32, "big")
        signature = ffi.new(_NEW_RECOVERABLE)
        raw = ffi.new(_NEW_POINT)
        if lib.secp256k1_ecdsa_recoverable_signature_parse_compact(
            _CONTEXT, signature, compact, encoded[0] & 1
        ) and lib.secp256k1_ecdsa_recover(_CONTEXT, raw, signature, message.to_bytes(32, "big")):
            return Point(raw)
    return add(multiply_base(base_scalar), multiply(scalar, point))
