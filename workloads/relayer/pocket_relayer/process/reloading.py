"""Reload the configuration while relays are served."""

from pathlib import Path

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.base import ManifestError
from pocket.api.workload import parse_reloadable_config
from pocket.errors import ConfigurationError

_LOG: FilteringBoundLogger = structlog.get_logger()


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
