"""Hash to points and scalars (docs/protocol/ring-signatures.md, section 2)."""

import hashlib
from functools import lru_cache

from pocket.errors import InvalidPoint
from pocket.protocol.crypto.curve import N, Point, decode_point, encode_point

_ATTEMPTS = 128  # the chain's library gives up after this many digests


@lru_cache(maxsize=8192)
def hash_to_point(encoded: bytes) -> Point:
    """Return H_p of a compressed point.

    By repeated SHA3-256, with even y (section 2.1). Depends on the public key only, hence the cache. Raises
    InvalidPoint after 128 digests.
    """
    digest = encoded
    for _ in range(_ATTEMPTS):
        digest = hashlib.sha3_256(digest).digest()
        try:
            return decode_point(b"\x02" + digest)
        except InvalidPoint:
            continue
    raise InvalidPoint("no point found within 128 digests")


def hash_to_scalar(data: bytes) -> int:
    """Return SHA3-512 mod N as the chain's library computes it.

    That is with its left-alignment quirk (section 2.2). The shortest big-endian form of the reduced value is placed at
    the *left* of 32 bytes. Without this about 1 challenge in 256 differs from the chain. The shifted value is not
    reduced again.
    """
    reduced = int.from_bytes(hashlib.sha3_512(data).digest(), "big") % N
    length = (reduced.bit_length() + 7) // 8
    return reduced << (8 * (32 - length)) if reduced else 0


def challenge(message_hash: bytes, left: Point | None, right: Point | None) -> int:
    """Return the next ring challenge from L and R (section 2.3)."""
    return hash_to_scalar(message_hash + encode_point(left) + encode_point(right))
