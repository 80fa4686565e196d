"""Check the checksum of an address at admission, without code or bit operations.

Neither is available in a rule of a definition. The checksum of bech32 is linear: each of its 30 bits is the parity of
some bits of the address. A row below names these bits for all 38 characters after `pokt1`, in bech32's own alphabet,
and then the parity that they must have.
"""

from functools import cache
from typing import Final

from pydantic import AfterValidator

from pocket.api.schema import Cel, shown_value
from pocket.bech32_checksum import ALPHABET, remainder

_PREFIX: Final = "pokt"
_LENGTH: Final = 38
_CHECKED_BITS: Final = 30
_MESSAGE: Final = "must have the checksum of its other characters: one was mistyped or lost"


@cache
def parity_rows() -> tuple[str, ...]:
    """Return, for each bit of the checksum, 38 characters and the parity 0 or 1."""
    zero = [0] * _LENGTH
    constant = remainder(_PREFIX, zero)
    columns = [
        [remainder(_PREFIX, [*zero[:index], 1 << bit, *zero[index + 1 :]]) ^ constant for bit in range(5)]
        for index in range(_LENGTH)
    ]
    return tuple(
        "".join(ALPHABET[sum((c >> row & 1) << bit for bit, c in enumerate(column))] for column in columns)
        + str((constant ^ 1) >> row & 1)
        for row in range(_CHECKED_BITS)
    )


def _parity(left: str, right: str) -> int:
    """Return the parity of the bits that two characters have in common."""
    return (ALPHABET.index(left) & ALPHABET.index(right)).bit_count() % 2


def has_checksum(text: str) -> bool:
    """Return True if an address has the right checksum.

    The address is its 38 characters after `pokt1`.
    """
    data = text.removeprefix(f"{_PREFIX}1")
    if len(data) != _LENGTH or not set(data) <= set(ALPHABET):
        return False
    return remainder(_PREFIX, map(ALPHABET.index, data)) == 1


def _checked(value: str) -> str:
    if not has_checksum(value):
        raise ValueError(f'"{value}" {_MESSAGE}')
    return value


CHECKSUM: Final = AfterValidator(_checked)
"""Checks an address in files and in what the operator reads. Its form is checked before."""


def checksum_rule() -> Cel:
    """Return the same check for the API server.

    It is too expensive for addresses inside of lists.
    """
    indices = ", ".join(map(str, range(_LENGTH)))
    rows = ", ".join(f"'{row}'" for row in parity_rows())
    table = "".join(str(_parity(left, right)) for left in ALPHABET for right in ALPHABET)
    bit = f"'{table}'.charAt('{ALPHABET}'.indexOf(self.charAt(i + 5)) * 32 + '{ALPHABET}'.indexOf(row.charAt(i)))"
    return Cel(
        f"!self.matches('^{_PREFIX}1[{ALPHABET}]{{{_LENGTH}}}$') || [{rows}].all(row, "
        f"[{indices}].filter(i, {bit} == '1').size() % 2 == int(row.charAt({_LENGTH})))",
        _MESSAGE,
        shown_value(_MESSAGE),
    )
