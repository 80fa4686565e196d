"""Cut rows into pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")
PAGE_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows of one page. Pages count from 1."""

    rows: tuple[T, ...]
    total: int
    page: int
    pages: int


def page_of(rows: Sequence[T], wanted: int, size: int = PAGE_ROWS) -> Page[T]:
    """Return the wanted page, or the nearest one that exists."""
    pages = max(1, -(-len(rows) // size))
    page = min(max(1, wanted), pages)
    return Page(tuple(rows[(page - 1) * size : page * size]), len(rows), page, pages)
