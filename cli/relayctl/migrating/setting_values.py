"""Read the values of a configuration that a person wrote.

Errors name the setting whose value has another shape.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from pocket.api.base import ManifestError

_DURATION: Final = re.compile(r"(?:[0-9.]+(?:ms|s|m|h))+")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def mapping(value: Any, path: str) -> Mapping[str, Any]:
    """Return a mapping, empty for null. Raises ManifestError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ManifestError(f"{path}: expected settings with names")
    return value


def sequence(value: Any, path: str = "") -> list[Any]:
    """Return a list, empty for null, with one entry for a single text.

    Raises ManifestError.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise ManifestError(f"{path}: expected a list" if path else "expected a list")
    return value


def as_text(value: Any, _path: str) -> str:
    """Return a value as text."""
    return str(value)


def whole(value: Any, path: str) -> int:
    """Return a whole number. Raises ManifestError."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ManifestError(f"{path}: expected a whole number") from None


def decimal(value: Any, path: str) -> float:
    """Return a number. Raises ManifestError."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ManifestError(f"{path}: expected a number") from None


def seconds(value: Any, path: str) -> float:
    """Return the seconds of a number, or of a Go duration such as 1m30s.

    Raises ManifestError.
    """
    if isinstance(value, int | float):
        return decimal(value, path)
    if not isinstance(value, str) or _DURATION.fullmatch(value.strip()) is None:
        raise ManifestError(f"{path}: not a duration: write seconds, or for example 30s")
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", value)
    return sum(decimal(number, path) * _UNITS[unit] for number, unit in parts)
