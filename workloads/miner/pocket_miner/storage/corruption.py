"""Files of the volume that SQLite cannot read any more (docs/fragile/volume.md).

A damaged file is set aside, and the miner starts again: what it needs of relays and seals comes back from Redis and
from peers. Going on with a file that is only partly readable would seal fewer relays than were served.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from pocket.errors import PocketError

_CHECKED_BYTES = 256 * 1024 * 1024  # larger files would hold up the start for seconds
_KEPT = 5
_CODES = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class VolumeCorrupted(PocketError):
    """What is at `path` cannot be trusted; empty: it is not known which file it is."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path or 'a file of the volume'} is damaged: it is set aside, and the miner has to start again"


def corruption_in(error: BaseException) -> VolumeCorrupted | None:
    """The damage that an error, or one in a group, tells of. A full, locked or read-only volume is none."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for part in error.exceptions if (found := corruption_in(part)) is not None), None)
    if isinstance(error, VolumeCorrupted):
        return error
    if isinstance(error, sqlite3.DatabaseError) and str(getattr(error, "sqlite_errorname", "")).startswith(_CODES):
        return VolumeCorrupted("")
    return None


@contextlib.contextmanager
def attach_path(path: Path | str) -> Iterator[None]:
    """Damage met inside is told with the file's name."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if corruption_in(error) is not None:
            raise VolumeCorrupted(str(path)) from error
        raise


def is_intact(path: Path) -> bool:
    """Whether SQLite can read the file: all of it, or how it begins where it is very large."""
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
    """A database's log, the log's index, and the database itself, which goes last."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"), path


def quarantine(path: Path) -> Path:
    """Renames a file, with its log, for whoever wants to look at it; the newest five stay."""
    before = _aside(path)
    target = path.with_name(f"{path.name}.damaged-{max(before, default=0) + 1}")
    for old, new in zip(files_of(path), files_of(target), strict=True):
        with contextlib.suppress(FileNotFoundError):
            old.rename(new)
    for number in sorted(before)[: 1 - _KEPT]:
        for old in files_of(path.with_name(f"{path.name}.damaged-{number}")):
            old.unlink(missing_ok=True)
    return target


def _aside(path: Path) -> list[int]:
    """Numbers of the files that were set aside."""
    endings = (old.name.rpartition("-")[2] for old in path.parent.glob(f"{path.name}.damaged-*"))
    return [int(ending) for ending in endings if ending.isdecimal()]


def quarantine_corrupted(folder: Path) -> list[Path]:
    """Looks at every file of a miner's volume before any is used; where the damaged ones are now."""
    files = [folder / "audit.sqlite", folder / "refused.sqlite", *sorted((folder / "mirror").glob("end-*.sqlite"))]
    return [quarantine(path) for path in files if path.exists() and not is_intact(path)]
