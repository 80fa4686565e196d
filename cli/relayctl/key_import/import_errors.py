"""Define the errors of imported keys.

Also check that the optional libraries are installed.
"""

import importlib
from types import ModuleType

from pocket.errors import PocketError


class KeyImportError(PocketError):
    """A key could not be read. The message never has key material."""


def library(name: str) -> ModuleType:
    """Import an optional library.

    Raises KeyImportError with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise KeyImportError(
            f"{package} is not installed, which this kind of key needs: install relayctl with the extra `keys`"
        ) from None
