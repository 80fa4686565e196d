"""Reload supplier keys and configuration while relays are served."""

from collections.abc import Mapping
from pathlib import Path

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.base import ManifestError
from pocket.api.workload import parse_reloadable_config
from pocket.errors import ConfigurationError
from pocket.keys.key_folder import KeyFolder
from pocket.keys.loading import KeySet
from pocket.platform import Platform
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket_relayer import relayer_metrics

_LOG: FilteringBoundLogger = structlog.get_logger()


class SupplierKeys:
    """All supplier keys of a folder. A failed reload keeps the last good set."""

    def __init__(self, folder: Path, platform: Platform) -> None:
        self._folder = KeyFolder(folder, platform.environment, platform.wall_nanoseconds)
        self.current: KeySet = KeySet({})
        self._by_address: Mapping[str, PrivateKey] = {}

    def reload(self) -> bool:
        """Reload the keys and return True if the set changed.

        Problems are logged without key material.
        """
        try:
            loaded = self._folder.load()
        except ConfigurationError as error:
            _LOG.warning("key reload failed, keeping the previous keys", error=error)
            return False
        if loaded is self.current:
            return False
        changed = loaded.digest != self.current.digest
        if changed or not self.current.keys:
            for problem in loaded.problems:
                _LOG.warning("supplier key ignored", problem=problem)
        self.current = loaded
        if changed:
            self._by_address = {str(address): key for address, key in loaded.keys.items()}
            _LOG.info("supplier keys loaded", keys=len(loaded.keys), digest=loaded.digest[:16])
        relayer_metrics.KEYS_LOADED.set(len(self.current.keys))
        return changed

    def by_address(self) -> Mapping[str, PrivateKey]:
        """Return the keys by operator address. It is called at every relay."""
        return self._by_address


class ReloadedConfig:
    """The part of the configuration that changes while relays are served.

    An invalid file changes nothing.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last_error = ""
        try:
            self._content = file.read_bytes()
            self.current = parse_reloadable_config(self._content, file)
        except OSError as error:
            raise ConfigurationError(f"relayer: {file}: {error.strerror}") from error
        except ManifestError as error:
            raise ConfigurationError(f"relayer: {error}") from error

    def reload(self) -> bool:
        """Reload the file and return True if something changed. Each error is logged once."""
        try:
            content = self._file.read_bytes()
            if content == self._content:
                return False
            self._content = content
            loaded = parse_reloadable_config(content, self._file)
        except (ManifestError, OSError) as error:
            if str(error) != self._last_error:
                _LOG.warning("config reload failed, keeping the previous configuration", error=error)
            self._last_error = str(error)
            return False
        self._last_error = ""
        changed, self.current = loaded != self.current, loaded
        return changed
