"""One node's response to a gRPC query."""

from dataclasses import dataclass
from typing import Any, Final

from pocket.errors import ChainError

HEIGHT_HEADER: Final = "x-cosmos-block-height"
_DIGITS: Final = 20  # more than any height has


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """One node's response as of its own height, 0 if unknown."""

    raw: bytes = b""
    height: int = 0
    error: ChainError | None = None

    @classmethod
    def of(cls, row: tuple[bytes, int] | ChainError) -> "NodeAnswer":
        """Return the response for an answer with its height, or for an error."""
        return cls(error=row, height=row.height) if isinstance(row, ChainError) else cls(*row)


def height_of(metadata: Any) -> int:
    """Return the height of the state that answered, from a call's metadata.

    Returns 0 if it is missing or not a number.
    """
    value = next((value for key, value in metadata or () if key.lower() == HEIGHT_HEADER), "")
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < _DIGITS else 0
