"""Reproduce the pseudo-random sample of the proof requirement (Go's math/rand).

Sources: docs/protocol/smst.md, section 6, and docs/protocol/claims-and-proofs.md, section 4.
"""

from typing import Final

_INT32_MAX: Final = (1 << 31) - 1
_MASK_64: Final = (1 << 64) - 1
_LENGTH: Final = 607
_TAP: Final = 606  # the generator's first output is vec[333] + vec[606]
_FEED: Final = 333
# The two of the generator's 607 additive constants that are ever needed.
_CONSTANTS: Final = {_FEED: 0xBFB2F4D968B759C3, _TAP: 0x39A00A3A31C025C6}


def varint_seed(digest: bytes) -> int:
    """Read an int64 as a zigzag varint from the start of the digest.

    Returns 0 for a number that is cut off or too long.
    """
    value = 0
    for index in range(min(10, len(digest))):
        byte = digest[index]
        if index == 9 and byte > 1:
            return 0
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)
    return 0


def first_int63(seed: int) -> int:
    """First 63-bit output of the generator with this int64 seed."""
    x = (abs(seed) % _INT32_MAX) * (1 if seed >= 0 else -1)
    if x < 0:
        x += _INT32_MAX
    if x == 0:
        x = 89482311
    for _ in range(20):
        x = 48271 * x % _INT32_MAX
    total = 0
    for index in range(_LENGTH):
        a = 48271 * x % _INT32_MAX
        b = 48271 * a % _INT32_MAX
        x = 48271 * b % _INT32_MAX
        if index in _CONSTANTS:
            total += ((a << 40) ^ (b << 20) ^ x ^ _CONSTANTS[index]) & _MASK_64
    return total & (1 << 63) - 1


def first_float64(seed: int) -> float:
    """Return the generator's first float in [0, 1].

    A result of 1.0 has probability 2^-54. The chain would then draw again, which is not reproduced here.
    """
    return float(first_int63(seed)) / float(1 << 63)
