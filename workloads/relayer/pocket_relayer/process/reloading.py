"""What a worker reads again while it serves: supplier keys, and the part of the configuration that may change."""

import logging
from collections.abc import Mapping
from pathlib import Path

from pocket.api.base import ManifestError
from pocket.api.workload import parse_reloadable_config
from pocket.errors import ConfigurationError
from pocket.keys.key_folder import KeyFolder
from pocket.keys.loading import KeySet
from pocket.platform import Platform
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket_relayer import relayer_metrics

_LOG = logging.getLogger(__name__)


class SupplierKeys:
    """All keys of the folder: whoever fills it decides who is served. A broken reload keeps the last good set."""

    def __init__(self, folder: Path, platform: Platform) -> None:
        self._folder = KeyFolder(folder, platform.environment, platform.wall_nanoseconds)
        self.current: KeySet = KeySet({})
        self._by_address: Mapping[str, PrivateKey] = {}

    def reload(self) -> bool:
        """Whether the set changed; problems are logged without key material."""
        try:
            loaded = self._folder.load()
        except ConfigurationError as error:
            _LOG.warning("keys: %s", error)
            return False
        if loaded is self.current:
            return False
        changed = loaded.digest != self.current.digest
        if changed or not self.current.keys:
            for problem in loaded.problems:
                _LOG.warning("keys: %s", problem)
        self.current = loaded
        if changed:
            self._by_address = {str(address): key for address, key in loaded.keys.items()}
            _LOG.info("keys: %d loaded, digest %s", len(loaded.keys), loaded.digest[:16])
        relayer_metrics.KEYS_LOADED.set(len(self.current.keys))
        return changed

    def by_address(self) -> Mapping[str, PrivateKey]:
        """Keys by operator address; asked for at every relay."""
        return self._by_address


class ReloadedConfig:
    """The part of the configuration that changes while relays are served; a broken file changes nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._complained = ""
        try:
            self._content = file.read_bytes()
            self.current = parse_reloadable_config(self._content, file)
        except OSError as error:
            raise ConfigurationError(f"relayer: {file}: {error.strerror}") from error
        except ManifestError as error:
            raise ConfigurationError(f"relayer: {error}") from error

    def reload(self) -> bool:
        """Whether something changed; what is wrong is told once."""
        try:
            content = self._file.read_bytes()
            if content == self._content:
                return False
            self._content = content
            loaded = parse_reloadable_config(content, self._file)
        except (ManifestError, OSError) as error:
            if str(error) != self._complained:
                _LOG.warning("configuration: %s; the last good one stays", error)
            self._complained = str(error)
            return False
        self._complained = ""
        changed, self.current = loaded != self.current, loaded
        return changed
