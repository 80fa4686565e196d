"""Detect and quarantine corrupt SQLite files of the volume.

Source: docs/fragile/volume.md. A corrupt file is quarantined and the miner restarts: the relays and seals that it needs
come back from Redis and from peers. Continuing with a partly readable file would seal fewer relays than were served. A
directory in the place of a file, or a file that this user must not open, is quarantined as well, but not one with an
I/O error, which may pass.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import PocketError

_LOG: FilteringBoundLogger = structlog.get_logger()
_CHECKED_BYTES = 256 * 1024 * 1024  # checking larger files would delay the start by seconds
_MAX_QUARANTINED = 5
_CODES = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class VolumeCorrupted(PocketError):
    """The file at `path` is corrupt.

    An empty path means that the file is unknown.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path or 'a file of the volume'} is corrupt: it is quarantined and the miner must restart"


def corruption_in(error: BaseException) -> VolumeCorrupted | None:
    """Return the corruption that an error, or one in a group, shows.

    Returns None without any. A full, locked or read-only volume is not corrupt.
    """
    if isinstance(error, BaseExceptionGroup):
        return next((corruption for part in error.exceptions if (corruption := corruption_in(part)) is not None), None)
    if isinstance(error, VolumeCorrupted):
        return error
    if isinstance(error, sqlite3.DatabaseError) and str(getattr(error, "sqlite_errorname", "")).startswith(_CODES):
        return VolumeCorrupted("")
    return None


@contextlib.contextmanager
def attach_path(path: Path | str) -> Iterator[None]:
    """Add the file's path to a corruption error raised in the body."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if corruption_in(error) is not None:
            raise VolumeCorrupted(str(path)) from error
        raise


def is_intact(path: Path) -> bool:
    """Return True if SQLite can read the file, or the beginning of a very large one."""
    try:
        database = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=10)
        try:
            if path.stat().st_size > _CHECKED_BYTES:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return True
            return bool(database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        finally:
            database.close()
    except sqlite3.DatabaseError as error:
        return corruption_in(error) is None


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """Return the files of a database: its log, the log's index and, last, itself."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"), path


def quarantine(path: Path) -> Path:
    """Rename a corrupt file with its log and return its new path.

    The newest five are kept.
    """
    before = _quarantined(path)
    target = path.with_name(f"{path.name}.damaged-{max(before, default=0) + 1}")
    for old, new in zip(files_of(path), files_of(target), strict=True):
        with contextlib.suppress(FileNotFoundError):
            old.rename(new)
    for number in sorted(before)[: 1 - _MAX_QUARANTINED]:
        for old in files_of(path.with_name(f"{path.name}.damaged-{number}")):
            old.unlink(missing_ok=True)
    return target


def _quarantined(path: Path) -> list[int]:
    """Return the numbers of the quarantined copies of a file."""
    endings = (old.name.rpartition("-")[2] for old in path.parent.glob(f"{path.name}.damaged-*"))
    return [int(ending) for ending in endings if ending.isdecimal()]


def _is_openable(path: Path) -> bool:
    """Return True if this user may read and write a file.

    It is a regular file, or a folder of them.
    """
    if path.is_dir():
        return path.suffix == "" and os.access(path, os.R_OK | os.W_OK | os.X_OK)
    return path.suffix != "" and path.is_file() and os.access(path, os.R_OK | os.W_OK)


def quarantine_corrupted(folder: Path) -> list[Path]:
    """Check every file of a miner's volume.

    Returns the new paths of those that are corrupt or cannot be opened by this user. One that cannot be renamed stays.
    """
    moved = []
    for path in _files_in(folder):
        if os.path.lexists(path) and not (_is_openable(path) and (path.suffix == "" or is_intact(path))):
            try:
                moved.append(quarantine(path))
            except OSError as error:
                _LOG.error("corrupt file cannot be moved away", file=str(path), error=error)
    return moved


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield the paths of a volume's files.

    The folder of relays comes before the files in it.
    """
    relays = folder / "mirror"
    yield from (folder / "audit.sqlite", folder / "refused.sqlite", relays)
    with contextlib.suppress(OSError):
        yield from sorted(relays.glob("end-*.sqlite"))
