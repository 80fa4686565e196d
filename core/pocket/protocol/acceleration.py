"""Taking up an optional compiled library: only where it is there, wanted, and agrees with the plain way."""

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
    """None where RELAY_ACCELERATOR switches it off, it was not built, cannot be loaded or computes something else."""
    if environment.get("RELAY_ACCELERATOR", "on").lower() in ("off", "0", "false") or not library.exists():
        return None
    try:
        made = make()
        if self_test(made):
            return made
        _LOG.error("the accelerator of %s computes something else than the plain way: it is not used", what)
    except (OSError, ValueError, AttributeError, PocketError) as error:
        _LOG.warning("the accelerator of %s cannot be used: %s", what, error)
    return None
