"""Reload the configuration while relays are served."""

import tempfile
from pathlib import Path

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.base import ManifestError
from pocket.api.workload import ReloadableConfig, parse_reloadable_config
from pocket.errors import ConfigurationError

_LOG: FilteringBoundLogger = structlog.get_logger()


class ReloadedConfig:
    """The part of the configuration that changes while relays are served.

    An invalid file changes nothing. The last valid content is kept in `kept`, if given, for a process that starts while
    the file is invalid.
    """

    def __init__(self, file: Path, kept: Path | None = None) -> None:
        self._file = file
        self._kept = kept
        self._last_error = ""
        try:
            self._content = file.read_bytes()
            self.current = parse_reloadable_config(self._content, file)
        except (ManifestError, OSError) as error:
            self._content, self.current = self._last_valid(error)
            self._report(error)
            return
        self._keep()

    def _last_valid(self, error: ManifestError | OSError) -> tuple[bytes, ReloadableConfig]:
        """Return the kept content with its configuration.

        Raises ConfigurationError because of `error` if there is none.
        """
        try:
            if self._kept is not None:
                content = self._kept.read_bytes()
                return content, parse_reloadable_config(content, self._kept)
        except (ManifestError, OSError) as missing:
            _LOG.debug("no configuration was kept", error=missing)
        text = f"{self._file}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"relayer: {text}") from error

    def _keep(self) -> None:
        if self._kept is None:
            return
        try:
            with tempfile.NamedTemporaryFile(dir=self._kept.parent, delete=False) as draft:
                draft.write(self._content)
            Path(draft.name).replace(self._kept)
        except OSError as error:
            _LOG.warning("keeping the configuration for restarted workers failed", error=error)

    def _report(self, error: ManifestError | OSError) -> None:
        """Log each error once."""
        if str(error) != self._last_error:
            _LOG.warning("config reload failed, keeping the previous configuration", error=error)
        self._last_error = str(error)

    def reload(self) -> bool:
        """Reload the file and return True if something changed. Each error is logged once."""
        try:
            content = self._file.read_bytes()
            if content == self._content:
                return False
            self._content = content
            loaded = parse_reloadable_config(content, self._file)
        except (ManifestError, OSError) as error:
            self._report(error)
            return False
        self._last_error = ""
        self._keep()
        changed, self.current = loaded != self.current, loaded
        return changed
