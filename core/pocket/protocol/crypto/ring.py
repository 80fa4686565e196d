"""Decode, verify and create bLSAG ring signatures.

Source: docs/protocol/ring-signatures.md, sections 3 and 4.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pocket.errors import DecodingError, InvalidPoint, InvalidSignature
from pocket.fast_init import fast_init
from pocket.protocol.crypto import curve
from pocket.protocol.crypto.curve import N, Point
from pocket.protocol.crypto.hashing import challenge, hash_to_point, hash_to_scalar
from pocket.protocol.crypto.linear_combination import record_verified, ring_sums

_HEAD_BYTES = 69
_MEMBER_BYTES = 65
_FOREIGN_KEY = "the ring signature names a key that is neither the application's nor a delegated gateway's"


@fast_init
@dataclass(frozen=True, slots=True)
class RingSignature:
    """A decoded ring signature with scalars reduced mod N.

    `members` are compressed keys in signing order.
    """

    start: int
    key_image: Point
    scalars: tuple[int, ...]
    members: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the wire form of section 4."""
        parts = [len(self.members).to_bytes(4, "big"), curve.encode_scalar(self.start), self.key_image.encoded]
        for scalar, member in zip(self.scalars, self.members, strict=True):
            parts += [curve.encode_scalar(scalar), member]
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class ExpectedRing:
    """The keys of a ring and its number of members.

    A key may occur twice (section 5.1).
    """

    keys: frozenset[bytes]
    size: int

    @classmethod
    def of(cls, members: Sequence[bytes]) -> "ExpectedRing":
        """Return the ring of these member keys."""
        return cls(frozenset(members), len(members))


@lru_cache(maxsize=4096)
def _seen_key_image(encoded: bytes) -> Point:
    """Decode a key image with a bounded cache.

    Key images repeat per gateway. They are chosen by the sender, hence the bound.
    """
    return curve.decode_point(encoded)


def decode_ring_signature(data: bytes) -> RingSignature:
    """Decode a ring signature and ignore bytes after the last member (section 4).

    Raises DecodingError. The work is linear in `len(data)`: a stated member count that the data
    cannot hold is rejected before any point is decoded.
    """
    if len(data) < 4:
        raise DecodingError("ring signature: shorter than its member count")
    count = int.from_bytes(data[:4], "big")
    if count == 0:
        raise DecodingError("ring signature: no members")
    if len(data) < _HEAD_BYTES + _MEMBER_BYTES * count:
        raise DecodingError(f"ring signature: {len(data)} bytes cannot hold {count} members")
    try:
        key_image = _seen_key_image(data[36:69])
        scalars = []
        members = []
        for offset in range(_HEAD_BYTES, _HEAD_BYTES + _MEMBER_BYTES * count, _MEMBER_BYTES):
            scalars.append(curve.decode_scalar(data[offset : offset + 32]))
            member = data[offset + 32 : offset + 65]
            curve.decode_long_lived_point(member)
            members.append(member)
    except InvalidPoint as error:
        raise DecodingError(f"ring signature: {error}") from error
    return RingSignature(curve.decode_scalar(data[4:36]), key_image, tuple(scalars), tuple(members))


def verify_ring_equation(message_hash: bytes, signature: RingSignature) -> bool:
    """Return True if the ring equation closes for a message hash of 32 bytes.

    Section 3.
    """
    image = signature.key_image
    current = signature.start
    for scalar, member in zip(signature.scalars, signature.members, strict=True):
        point = curve.decode_long_lived_point(member)
        current = hash_to_scalar(message_hash + ring_sums(point, hash_to_point(member), image, scalar, current))
    return current % N == signature.start


def verify_ring_signature(message_hash: bytes, data: bytes, expected_members: frozenset[bytes]) -> RingSignature:
    """Decode the signature, check each key's membership, then check the equation.

    Raises DecodingError or InvalidSignature.

    Order as in section 5.2: no curve arithmetic beyond decoding before the set check.
    """
    signature = decode_ring_signature(data)
    if not expected_members.issuperset(signature.members):
        raise InvalidSignature(_FOREIGN_KEY)
    _check_equation(message_hash, signature)
    return signature


def _check_equation(message_hash: bytes, signature: RingSignature) -> None:
    if not verify_ring_equation(message_hash, signature):
        raise InvalidSignature("the ring signature does not match the request")
    record_verified(_points(signature))


def verify_request_signature(message_hash: bytes, data: bytes, ring: ExpectedRing) -> bytes:
    """Verify a relay request's signature and return its identity.

    Raises DecodingError or InvalidSignature.

    Stricter than the chain, so that a signature has one form and rejecting one costs no more than its ring. Bytes after
    the last member, more members than the ring has, and scalars that are not reduced are rejected. Everything that
    needs no curve arithmetic is checked first.
    """
    count = int.from_bytes(data[:4], "big")
    if not 1 <= count <= ring.size:
        raise InvalidSignature(f"the ring signature has {count} members, the ring has {ring.size}")
    if len(data) != _HEAD_BYTES + _MEMBER_BYTES * count:
        raise DecodingError(f"ring signature: {len(data)} bytes are not those of {count} members")
    pairs = [data[at : at + _MEMBER_BYTES] for at in range(_HEAD_BYTES, len(data), _MEMBER_BYTES)]
    members = [pair[curve.SCALAR_BYTES :] for pair in pairs]
    if not ring.keys.issuperset(members):
        raise InvalidSignature(_FOREIGN_KEY)
    start = int.from_bytes(data[4:36], "big")
    scalars = [int.from_bytes(pair[: curve.SCALAR_BYTES], "big") for pair in pairs]
    if start >= N or max(scalars) >= N:
        raise DecodingError("ring signature: a scalar is not below the order of the curve")
    try:
        key_image = _seen_key_image(data[36:69])
        for member in members:
            curve.decode_long_lived_point(member)
    except InvalidPoint as error:
        raise DecodingError(f"ring signature: {error}") from error
    _check_equation(message_hash, RingSignature(start, key_image, tuple(scalars), tuple(members)))
    return _identity(pairs)


def _identity(pairs: list[bytes]) -> bytes:
    """Return 16 bytes that identify a signature.

    They are the same in all forms that it can take without a signer's key. Members may be rotated together with the
    start challenge, so neither their order nor that challenge counts. Scalars are random for each signature: two
    signatures of one request differ, though their signable bytes are equal.
    """
    return hashlib.sha256(b"".join(sorted(pairs))).digest()[:16]


def _points(signature: RingSignature) -> Iterator[bytes]:
    """Yield the points of the ring equation except the generator."""
    yield signature.key_image.encoded
    for member in signature.members:
        yield member
        yield hash_to_point(member).encoded


def sign_ring(
    message_hash: bytes, ring: Sequence[bytes], private_key: int, random_bytes: Callable[[int], bytes]
) -> RingSignature:
    """Sign with the first member that is the signer's key (section 3).

    `random_bytes(n)` must be a cryptographic source outside tests. Raises InvalidSignature when the ring
    has fewer than two members or lacks the signer's key.
    """
    own = curve.encode_point(curve.multiply_base(private_key))
    members = tuple(ring)
    if len(members) < 2 or own not in members:
        raise InvalidSignature("a ring needs at least two members, the signer's key among them")
    count, signer = len(members), members.index(own)
    base = hash_to_point(own)
    image = curve.multiply(private_key, base)
    if image is None:
        raise InvalidSignature("the private key is zero")

    def random_scalar() -> int:
        return int.from_bytes(random_bytes(40), "big") % (N - 1) + 1

    nonce = random_scalar()
    challenges = [0] * count
    scalars = [0] * count
    challenges[(signer + 1) % count] = challenge(message_hash, curve.multiply_base(nonce), curve.multiply(nonce, base))
    for step in range(1, count):
        index = (signer + step) % count
        scalars[index] = random_scalar()
        left = curve.multiply_base_and_point(
            scalars[index], challenges[index], curve.decode_long_lived_point(members[index])
        )
        right = curve.add(
            curve.multiply(scalars[index], hash_to_point(members[index])), curve.multiply(challenges[index], image)
        )
        challenges[(index + 1) % count] = challenge(message_hash, left, right)
    scalars[signer] = (nonce - challenges[signer] * private_key) % N
    return RingSignature(challenges[0] % N, image, tuple(scalars), members)
