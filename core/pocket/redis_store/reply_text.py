"""Read texts from replies of Redis."""

from typing import Any


def text_of(value: Any) -> str:
    """Return a reply as text.

    Bytes that are not UTF-8 become surrogates, so that a damaged value raises nothing.
    """
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
