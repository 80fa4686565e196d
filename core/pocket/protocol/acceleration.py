"""Load optional native libraries, if they are built, enabled and pass a self-test."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import PocketError

_LOG: FilteringBoundLogger = structlog.get_logger()
T = TypeVar("T")


def native_library(name: str) -> Path | None:
    """Return a library of the optional package `pocket_accelerator`, or None.

    It may not be installed, or not built.
    """
    package = importlib.util.find_spec("pocket_accelerator")
    for folder in package.submodule_search_locations or () if package is not None else ():
        if (library := Path(folder, f"{name}.so")).exists():
            return library
    return None


def load_native(
    purpose: str,
    library: Path | None,
    make: Callable[[Path], T],
    self_test: Callable[[T], bool],
    environment: Mapping[str, str],
) -> T | None:
    """Load a native library and test it.

    Returns None if RELAY_ACCELERATOR disables it, or if there is none, cannot be loaded or fails `self_test`.
    """
    if environment.get("RELAY_ACCELERATOR", "on").lower() in ("off", "0", "false") or library is None:
        return None
    try:
        made = make(library)
        if self_test(made):
            return made
        _LOG.error("native library disagrees with the Python implementation and is disabled", purpose=purpose)
    except (OSError, ValueError, AttributeError, PocketError) as error:
        _LOG.warning("native library cannot be loaded", purpose=purpose, error=error)
    return None
