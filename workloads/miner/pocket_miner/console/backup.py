"""A copy of a miner's volume while the miner runs: enough to claim and prove everything that is open."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pocket.errors import PocketError


class BackupError(PocketError):
    """The copy was not made; nothing of it is left."""


def _databases(data: Path) -> Iterator[Path]:
    """Seals first: a copy that knows a seal then also has every relay of it, since nothing is added afterwards."""
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


def back_up(data: Path, to: Path) -> list[Path]:
    """Copies what a miner needs to go on into the new folder `to`; the files copied, relative to it.

    Raises BackupError. A session that ends meanwhile is left out, as on the volume itself.
    """
    if to.exists():
        raise BackupError(f"{to} exists: name a new folder")
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
        partial.rename(to)
    except (sqlite3.Error, OSError) as error:
        raise BackupError(f"the volume was not copied: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copied
