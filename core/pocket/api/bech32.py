"""Check the checksum of addresses in resources, by BIP 173."""

from collections.abc import Iterable
from typing import Final

from pydantic import AfterValidator

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_PREFIX: Final = "pokt"
_LENGTH: Final = 38
_MESSAGE: Final = "must have the checksum of its other characters: one was mistyped or lost"


def _polymod(values: Iterable[int]) -> int:
    """Return the remainder that BIP 173 calls the checksum."""
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum


def _remainder(values: list[int]) -> int:
    return _polymod([*(ord(c) >> 5 for c in _PREFIX), 0, *(ord(c) & 31 for c in _PREFIX), *values])


def has_checksum(text: str) -> bool:
    """Return True if an address of 38 characters after `pokt1` has the checksum that its other characters need."""
    data = text.removeprefix(f"{_PREFIX}1")
    if len(data) != _LENGTH or not set(data) <= set(_ALPHABET):
        return False
    return _remainder([_ALPHABET.index(character) for character in data]) == 1


def _checked(value: str) -> str:
    if not has_checksum(value):
        raise ValueError(f'"{value}" {_MESSAGE}')
    return value


CHECKSUM: Final = AfterValidator(_checked)
"""Checks an address in files and in what the operator reads. Its form is checked before."""
