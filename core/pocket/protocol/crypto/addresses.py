"""Addresses: RIPEMD-160(SHA-256(public key)) in bech32 with prefix `pokt`.

Source: docs/protocol/ring-signatures.md, section 8.
"""

import hashlib
from functools import lru_cache
from typing import Final, NewType

from pocket.bech32_checksum import ALPHABET, remainder
from pocket.errors import InvalidAddress

Address = NewType("Address", str)

PREFIX: Final = "pokt"
_LONGEST: Final = 1023  # the chain's decoder accepts as much, a payload of 255 bytes needs 419 characters


def _regroup(data: bytes | list[int], source: int, target: int, *, pad: bool) -> list[int]:
    accumulator = bits = 0
    out = []
    for value in data:
        accumulator = accumulator << source | value
        bits += source
        while bits >= target:
            bits -= target
            out.append(accumulator >> bits & ((1 << target) - 1))
        accumulator &= (1 << bits) - 1
    if pad and bits:
        out.append(accumulator << (target - bits) & ((1 << target) - 1))
    elif not pad and (bits >= source or accumulator):
        raise InvalidAddress("address: non-zero padding")
    return out


def ripemd160(data: bytes) -> bytes:
    """RIPEMD-160 of some bytes.

    OpenSSL has it since 3.0.7, unless an administrator has taken it out.
    """
    try:
        return hashlib.new("ripemd160", data, usedforsecurity=False).digest()
    except ValueError:
        from Crypto.Hash import RIPEMD160  # noqa: PLC0415 - it loads a parser of C, 2 MiB

        return RIPEMD160.new(data).digest()


def encode_address(payload: bytes, prefix: str = PREFIX) -> Address:
    """Bech32 text of address bytes."""
    values = _regroup(payload, 8, 5, pad=True)
    check = remainder(prefix, [*values, 0, 0, 0, 0, 0, 0]) ^ 1
    values += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return Address(prefix + "1" + "".join(ALPHABET[v] for v in values))


def parse_address(text: str, prefix: str = PREFIX) -> bytes:
    """Return the address bytes (1 to 255) of a bech32 text.

    Raises InvalidAddress.
    """
    if len(text) > _LONGEST or not text.isascii() or any(not 33 <= ord(c) <= 126 for c in text):
        raise InvalidAddress("address: not printable ASCII without blanks")
    if text.lower() != text and text.upper() != text:
        raise InvalidAddress("address: upper and lower case mixed")
    text = text.lower()
    split = text.rfind("1")
    if split < 1 or len(text) - split < 7:
        raise InvalidAddress("address: no separator '1', or too short")
    if text[:split] != prefix:
        raise InvalidAddress(f"address: starts with {text[:split][:16]!r}, expected {prefix!r}")
    values = [ALPHABET.find(c) for c in text[split + 1 :]]
    if min(values) < 0:
        raise InvalidAddress("address: a character that bech32 does not use")
    if remainder(prefix, values) != 1:
        raise InvalidAddress("address: checksum wrong, a character was mistyped or lost")
    payload = bytes(_regroup(values[:-6], 5, 8, pad=False))
    if not 1 <= len(payload) <= 255:
        raise InvalidAddress("address: holds no or too many bytes")
    return payload


def is_address(text: str) -> bool:
    """Return whether `parse_address` accepts the text."""
    try:
        parse_address(text)
    except InvalidAddress:
        return False
    return True


@lru_cache(maxsize=4096)
def address_of(public_key: bytes) -> Address:
    """Address of a 33-byte compressed public key."""
    digest = hashlib.sha256(public_key).digest()
    return encode_address(ripemd160(digest))
