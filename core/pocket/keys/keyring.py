"""The supplier keys of a process, reloaded while it runs."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import ConfigurationError
from pocket.keys.key_folder import KeyFolder
from pocket.keys.loading import KeySet
from pocket.protocol.crypto.ecdsa import PrivateKey

_LOG: FilteringBoundLogger = structlog.get_logger()


class Keyring:
    """The keys of a folder and of variables, by operator address. A failed reload keeps the last good set."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], wall_nanoseconds: Callable[[], int] = time.time_ns
    ) -> None:
        self._folder = KeyFolder(folder, environment, wall_nanoseconds)
        self._loaded = KeySet({})
        self._keys: Mapping[str, PrivateKey] = {}
        self._failure = ""

    def reload(self) -> bool:
        """Reload the keys and return True if the set of keys changed.

        Problems are logged once, without key material. It reads files, so it belongs in a thread.
        """
        try:
            loaded = self._folder.load()
        except ConfigurationError as error:
            if str(error) != self._failure:
                _LOG.warning("key reload failed, keeping the previous keys", error=error)
            self._failure = str(error)
            return False
        self._failure = ""
        if loaded is self._loaded:
            return False
        changed = loaded.digest != self._loaded.digest
        if changed or loaded.problems != self._loaded.problems:
            for problem in loaded.problems:
                _LOG.warning("supplier key ignored", problem=problem)
        self._loaded = loaded
        if changed:
            self._keys = {str(address): key for address, key in loaded.keys.items()}
            _LOG.info("supplier keys loaded", keys=len(self._keys), digest=loaded.digest[:16])
        return changed

    def by_address(self) -> Mapping[str, PrivateKey]:
        """Return the keys by operator address. It is called at every relay."""
        return self._keys

    @property
    def addresses(self) -> list[str]:
        """Return the operator addresses, sorted."""
        return sorted(self._keys)

    @property
    def digest(self) -> str:
        """Return the digest of the public keys, or an empty text without any."""
        return self._loaded.digest if self._keys else ""
