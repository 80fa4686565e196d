"""Load optional native libraries, if they are built, enabled and pass a self-test."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pocket.errors import PocketError

_LOG = logging.getLogger("pocket.protocol.acceleration")
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
        _LOG.error("native %s disagrees with the Python implementation and is disabled", what)
    except (OSError, ValueError, AttributeError, PocketError) as error:
        _LOG.warning("native %s cannot be loaded: %s", what, error)
    return None
