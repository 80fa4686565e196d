"""Gives memory back to the system after a peak: freed pieces of bodies stay in the allocator otherwise."""

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_WORTH_BYTES: Final = 32 * 1024 * 1024


_MMAP_THRESHOLD: Final = -3  # of mallopt
_LARGE_BYTES: Final = 256 * 1024


def keep_large_pieces_apart() -> None:
    """Let glibc map large pieces by themselves: they grow without copies and leave no holes when they are freed."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def system_trim() -> Callable[[], object]:
    """Return glibc's malloc_trim, or what does nothing where there is none."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None
    return lambda: trim(0)


class Trimming:
    """Trims once what is held fell by 32 MiB from its peak. Look often: a peak between two looks is not seen."""

    def __init__(self, trim: Callable[[], object]) -> None:
        self._trim = trim
        self._peak = 0

    async def look(self, held: int) -> None:
        """Take up how many bytes are held now, and trim in a thread where that is worth it."""
        self._peak = max(self._peak, held)
        if self._peak - held >= _WORTH_BYTES:
            self._peak = held
            await asyncio.to_thread(self._trim)
