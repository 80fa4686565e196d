"""Load optional native libraries, if they are built, enabled and pass a self-test."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import PocketError

_LOG: FilteringBoundLogger = structlog.get_logger()
T = TypeVar("T")


def load_native(
    what: str, library: Path, make: Callable[[], T], self_test: Callable[[T], bool], environment: Mapping[str, str]
) -> T | None:
    """Load a native library and test it.

    Returns None if RELAY_ACCELERATOR disables it, or if it was not built, cannot be loaded or fails `self_test`.
    """
    if environment.get("RELAY_ACCELERATOR", "on").lower() in ("off", "0", "false") or not library.exists():
        return None
    try:
        made = make()
        if self_test(made):
            return made
        _LOG.error("native library disagrees with the Python implementation and is disabled", purpose=what)
    except (OSError, ValueError, AttributeError, PocketError) as error:
        _LOG.warning("native library cannot be loaded", purpose=what, error=error)
    return None
