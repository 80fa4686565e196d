"""Compute node digests, and access the parts of a root.

Source: docs/protocol/smst.md, sections 1 and 2.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

HASH_BYTES: Final = 32
DIGEST_BYTES: Final = 48
PLACEHOLDER: Final = bytes(DIGEST_BYTES)
MAX_DEPTH: Final = 256
LEAF_PREFIX: Final = b"\x00"
INNER_PREFIX: Final = b"\x01"
EXTENSION_PREFIX: Final = b"\x02"
MASK_64: Final = (1 << 64) - 1
_ONE: Final = (1).to_bytes(8, "big")


def sha256_digest(preimage: bytes) -> bytes:
    """Return the 32-byte hash part of a node's digest."""
    return hashlib.sha256(preimage).digest()


def path_of(key: bytes) -> bytes:
    """Return the path of a key. For a relay the key is the relay hash."""
    return hashlib.sha256(key).digest()


def leaf_data(value: bytes, weight: int) -> bytes:
    """Value ‖ weight ‖ count 1, the `value hash` of proofs."""
    return value + weight.to_bytes(8, "big") + _ONE


def leaf_preimage(path: bytes, value: bytes, weight: int) -> bytes:
    """Return the bytes that a leaf's digest hashes."""
    return LEAF_PREFIX + path + leaf_data(value, weight)


def leaf_digest(path: bytes, value: bytes, weight: int) -> bytes:
    """48-byte digest of a leaf."""
    return hashlib.sha256(leaf_preimage(path, value, weight)).digest() + weight.to_bytes(8, "big") + _ONE


def digest_sum(digest: bytes) -> int:
    """Sum of weights below a node, compute units."""
    return int.from_bytes(digest[32:40], "big")


def digest_count(digest: bytes) -> int:
    """Return the number of leaves below a node."""
    return int.from_bytes(digest[40:48], "big")


def _totals(left: bytes, right: bytes) -> bytes:
    total = (digest_sum(left) + digest_sum(right)) & MASK_64
    count = (digest_count(left) + digest_count(right)) & MASK_64
    return total.to_bytes(8, "big") + count.to_bytes(8, "big")


def inner_preimage(left: bytes, right: bytes) -> bytes:
    """Return the bytes that an inner node's digest hashes.

    Additions wrap modulo 2^64.
    """
    return INNER_PREFIX + left + right + _totals(left, right)


def inner_digest(left: bytes, right: bytes) -> bytes:
    """48-byte digest of an inner node."""
    totals = _totals(left, right)
    return hashlib.sha256(INNER_PREFIX + left + right + totals).digest() + totals


def path_bit(path: bytes, depth: int) -> int:
    """Bit `depth` of a path, bit 0 being the most significant of the first byte."""
    return path[depth >> 3] >> (7 - (depth & 7)) & 1


def lift(digest: bytes, path: bytes, depth: int, to_depth: int) -> bytes:
    """Return the digest of an inner node as seen from a depth above it.

    The extension is written out.
    """
    for level in range(depth - 1, to_depth - 1, -1):
        digest = inner_digest(PLACEHOLDER, digest) if path_bit(path, level) else inner_digest(digest, PLACEHOLDER)
    return digest


def extension_bytes(start: int, end: int, path: bytes, child: bytes) -> bytes:
    """Serialise an extension node over levels start … end−1."""
    return EXTENSION_PREFIX + bytes((start, end)) + path + child + child[32:48]


def mask_path(path: bytes, start: int, end: int) -> bytes:
    """Return the path with all bits outside start … end−1 cleared.

    Those bits are free in an extension node.
    """
    value = int.from_bytes(path, "big")
    mask = ((1 << (MAX_DEPTH - start)) - 1) & ~((1 << (MAX_DEPTH - end)) - 1)
    return (value & mask).to_bytes(HASH_BYTES, "big")


@dataclass(frozen=True, slots=True)
class Root:
    """A claimed root: 32 bytes of hash, sum in compute units, number of relays."""

    digest: bytes

    @property
    def total(self) -> int:
        """Claimed compute units."""
        return digest_sum(self.digest)

    @property
    def count(self) -> int:
        """Claimed relays."""
        return digest_count(self.digest)
