"""Return memory to the system after a peak.

The allocator keeps freed pieces of bodies otherwise.
"""

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_WORTH_BYTES: Final = 32 * 1024 * 1024


_MMAP_THRESHOLD: Final = -3  # of mallopt
_LARGE_BYTES: Final = 256 * 1024


def mmap_large_allocations() -> None:
    """Let glibc map large allocations separately.

    They grow without copies and leave no holes when they are freed.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def system_trim() -> Callable[[], object]:
    """Return glibc's malloc_trim, or a function without effect on other systems."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None
    return lambda: trim(0)


class MemoryTrimmer:
    """Trims once the used memory fell by 32 MiB from its peak.

    Observe often: a peak between two observations is not seen.
    """

    def __init__(self, trim: Callable[[], object]) -> None:
        self._trim = trim
        self._peak = 0

    async def observe(self, used: int) -> None:
        """Note the bytes in use, and trim in a thread if that is worthwhile."""
        self._peak = max(self._peak, used)
        if self._peak - used >= _WORTH_BYTES:
            self._peak = used
            await asyncio.to_thread(self._trim)
