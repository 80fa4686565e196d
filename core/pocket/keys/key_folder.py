"""A folder of keys that is polled and read only when it changed."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pocket.keys.loading import KeySet, load_supplier_keys

Fingerprint = tuple[tuple[str, int, int, int, int], ...]
_SETTLED_NANOSECONDS = 2_000_000_000
"""A file may change twice within its clock's resolution, so a younger file is read again."""


class KeyFolder:
    """Caches the keys of a folder.

    Reading a thousand takes 0.1 s, in which nothing is served.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], wall_nanoseconds: Callable[[], int] = time.time_ns
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._wall_clock = wall_nanoseconds
        self._seen: Fingerprint | None = None
        self._loaded = KeySet({})

    def load(self) -> KeySet:
        """Return all keys, the same set as before while nothing changed.

        Raises ConfigurationError.
        """
        fingerprint, now = self._fingerprint(), self._wall_clock()
        if fingerprint is None or fingerprint != self._seen:
            self._seen = None
            self._loaded = load_supplier_keys(self._folder, self._environment)
            if (
                fingerprint is not None
                and now - max((row[3] for row in fingerprint), default=0) >= _SETTLED_NANOSECONDS
            ):
                self._seen = fingerprint
        return self._loaded

    def _fingerprint(self) -> Fingerprint | None:
        """Return name, inode, size, time and mode of every file.

        Returns None if the folder is unreadable.
        """
        rows = []
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        status = entry.stat()
                        rows.append((entry.name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode))
        except OSError:
            return None
        return tuple(sorted(rows))
