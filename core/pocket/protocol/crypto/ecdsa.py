"""ECDSA as the chain's key type uses it: RFC 6979, 64 bytes r‖s, low s.

Source: docs/protocol/ring-signatures.md, section 7.
"""

import hashlib
from typing import Final

from btclib_libsecp256k1 import ffi, lib

from pocket.errors import DecodingError, InvalidPoint
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.curve import N, Point, decode_long_lived_point, encode_point, multiply_base

_SIGN_CONTEXT: Final = lib.secp256k1_context_create(1)
_NEW_SIGNATURE: Final = ffi.typeof("secp256k1_ecdsa_signature *")


class PrivateKey:
    """A raw 32-byte scalar that signs and is never shown by repr, str or pickling."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < N:
            raise DecodingError("a private key has 32 bytes and lies between 1 and the group order")
        self._secret = bytes(secret)
        self.public_key: Final = encode_point(multiply_base(int.from_bytes(secret, "big")))

    @classmethod
    def from_hex(cls, text: str) -> "PrivateKey":
        """Parse a key from 64 hex digits, with or without `0x`.

        Raises DecodingError, whose message never repeats the text.
        """
        digits = text.strip().removeprefix("0x")
        try:
            secret = bytes.fromhex(digits) if len(digits) == 64 else b""
        except ValueError:
            secret = b""
        if not secret:
            raise DecodingError(f"a private key is written as 64 hex digits, this one has {len(digits)} characters")
        return cls(secret)

    @property
    def scalar(self) -> int:
        """Return the secret as an integer, for ring signing."""
        return int.from_bytes(self._secret, "big")

    def sign(self, message: bytes) -> bytes:
        """Return the deterministic 64-byte signature over SHA-256(message)."""
        signature = ffi.new(_NEW_SIGNATURE)
        digest = hashlib.sha256(message).digest()
        lib.secp256k1_ecdsa_sign(_SIGN_CONTEXT, signature, digest, self._secret, ffi.NULL, ffi.NULL)
        out = ffi.new("unsigned char[64]")
        lib.secp256k1_ecdsa_signature_serialize_compact(_SIGN_CONTEXT, out, signature)
        return bytes(ffi.buffer(out))

    def __repr__(self) -> str:
        return f"PrivateKey(public_key={self.public_key.hex()})"

    def __reduce__(self) -> str:
        raise TypeError("private keys are not pickled")


def verify_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether a compressed public key made the signature over SHA-256(message).

    Only 64-byte signatures with low s are accepted.
    """
    if len(signature) != 64:
        return False
    try:
        point = decode_long_lived_point(public_key)
    except InvalidPoint:
        return False
    parsed = ffi.new(_NEW_SIGNATURE)
    if not lib.secp256k1_ecdsa_signature_parse_compact(_SIGN_CONTEXT, parsed, signature):
        return False
    digest = hashlib.sha256(message).digest()
    return bool(lib.secp256k1_ecdsa_verify(_SIGN_CONTEXT, parsed, digest, point.raw))


def verify_signature_by_address(address: str, message: bytes, signature: bytes) -> bool:
    """Verify like `verify_signature`, knowing only the signer's address.

    The public key is recovered from the signature.
    """
    digest = hashlib.sha256(message).digest()
    recoverable, raw = ffi.new("secp256k1_ecdsa_recoverable_signature *"), ffi.new("secp256k1_pubkey *")
    for recovery in range(4 if len(signature) == 64 else 0):
        if not lib.secp256k1_ecdsa_recoverable_signature_parse_compact(
            _SIGN_CONTEXT, recoverable, signature, recovery
        ) or not lib.secp256k1_ecdsa_recover(_SIGN_CONTEXT, raw, recoverable, digest):
            continue
        key = Point(raw).encoded
        if address_of(key) == address:
            return verify_signature(key, message, signature)
    return False
