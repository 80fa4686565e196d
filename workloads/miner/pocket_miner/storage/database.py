"""Open the SQLite files of the volume for writing, or for reading only."""

import sqlite3
from pathlib import Path
from urllib.parse import quote

from pocket.runtime.sqlite_opening import closed_on_error

_SECONDS = 10.0  # to wait for another writer
_SETTINGS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "journal_size_limit=8388608",  # bytes to which the write-ahead log shrinks after a long read
    "cache_size=-20000",
)


def open_to_write(path: Path, schema: str) -> sqlite3.Connection:
    """Open a file, creating it if missing. Commits are durable. Raises sqlite3.Error."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_SECONDS)
    with closed_on_error(database):
        for setting in _SETTINGS:
            database.execute(f"PRAGMA {setting}")
        database.executescript(schema)
    return database


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open an existing file, even on a read-only volume.

    Raises sqlite3.Error if it is missing. In a read-only folder SQLite cannot create the index of a write-ahead log. A
    file without a log is then read as immutable, and one with a log needs the index that its writer left.
    """
    try:
        return _read_only(path, "mode=ro")
    except sqlite3.OperationalError as error:
        log = path.with_name(f"{path.name}-wal")
        unopened = str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))
        if not unopened or not path.exists() or (log.exists() and log.stat().st_size):
            raise
        return _read_only(path, "mode=ro&immutable=1")


def _read_only(path: Path, options: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path))}?{options}"
    database = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=_SECONDS)
    with closed_on_error(database):
        database.execute("SELECT 1 FROM sqlite_master").fetchone()
    return database
