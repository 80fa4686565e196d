"""Credentials for backends from mounted Secrets, read again when they change."""

import base64
from collections.abc import Mapping
from pathlib import Path

from pocket.api.services import Auth, BackendBase
from pocket.errors import ConfigurationError


class Credentials:
    """Values of Secrets in files `<secrets>/<name>/<entry>`.

    They are never logged.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[float, str]] = {}

    def _entry(self, auth: Auth, name: str) -> str:
        if self._folder is None:
            raise ConfigurationError(f"the backend's Secret {auth.secret_ref.name} is not mounted here")
        path = self._folder / auth.secret_ref.name / name
        try:
            changed = path.stat().st_mtime
            known = self._known.get(path)
            if known is None or known[0] != changed:
                known = self._known[path] = (changed, path.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"Secret {auth.secret_ref.name} has no usable entry {name}") from error
        if any(character in known[1] for character in "\r\n\0"):
            raise ConfigurationError(f"Secret {auth.secret_ref.name}: entry {name} must be a single line")
        return known[1]

    def headers(self, backend: BackendBase) -> dict[str, str]:
        """Return the configured headers and the one that authenticates.

        Raises ConfigurationError if a Secret is missing or unusable.
        """
        headers, auth = dict(backend.headers), backend.auth
        if auth is None:
            return headers
        if auth.type == "basic":
            pair = f"{self._entry(auth, 'username')}:{self._entry(auth, 'password')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif auth.type == "bearer":
            headers["Authorization"] = "Bearer " + self._entry(auth, "token")
        else:
            headers[auth.header] = self._entry(auth, "value")
        return headers


def token_of(backend: BackendBase, headers: Mapping[str, str]) -> str:
    """Return the token of a request with these headers, without its scheme.

    The result is empty without one.
    """
    auth = backend.auth
    if auth is None:
        return ""
    return headers.get(auth.header if auth.type == "header" else "Authorization", "").rpartition(" ")[2]
