"""Copy a miner's volume while the miner runs.

The copy suffices to claim and prove all open sessions.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pocket.errors import PocketError
from pocket_miner.console.progress import Advance, silent


class BackupError(PocketError):
    """The copy failed and was removed."""


def _databases(data: Path) -> Iterator[Path]:
    """Yield the databases, the audit file with the seals first.

    Relays are never added to a sealed session, so the copy has every relay of each seal in it.
    """
    yield Path("audit.sqlite")
    for path in sorted((data / "mirror").glob("end-*.sqlite")):
        yield path.relative_to(data)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True, timeout=30)) as reading,
        contextlib.closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)
        if writing.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            raise BackupError(f"{source} is damaged: its copy fails SQLite's integrity check")


def size_of(data: Path) -> int:
    """Return the bytes that a copy reads."""
    total = 0
    for name in _databases(data):
        with contextlib.suppress(OSError):
            total += (data / name).stat().st_size
    return total


def back_up(data: Path, to: Path, advance: Advance = silent) -> list[Path]:
    """Copy seals, outcomes and open sessions into the new folder `to`.

    `advance` gets the bytes of each copied file.

    Returns the copied files, relative to it. A session that ends meanwhile is left out, as on the volume itself. Raises
    BackupError.
    """
    if to.exists():
        raise BackupError(f"{to} already exists: name a new folder")
    partial = to.with_name(f"{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    copied = []
    try:
        for name in _databases(data):
            try:
                _copy(data / name, partial / name)
            except sqlite3.OperationalError:
                if name.parent == Path("mirror") and not (data / name).exists():
                    (partial / name).unlink(missing_ok=True)
                    continue
                raise
            copied.append(name)
            advance((partial / name).stat().st_size)
        partial.rename(to)
    except (sqlite3.Error, OSError) as error:
        raise BackupError(f"the volume was not copied: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copied
