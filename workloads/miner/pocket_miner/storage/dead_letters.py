"""Store rejected stream entries on the volume, for diagnosis."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pocket.runtime.sqlite_opening import closed_on_error
from pocket_miner import miner_metrics

_SCHEMA = """
CREATE TABLE IF NOT EXISTS letter (
  number INTEGER PRIMARY KEY AUTOINCREMENT, supplier TEXT NOT NULL, session_id TEXT NOT NULL, entry TEXT NOT NULL,
  reason TEXT NOT NULL, size INTEGER NOT NULL, content BLOB NOT NULL, UNIQUE (supplier, session_id, entry));
"""
KEPT: Final = 1000
CONTENT_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One rejected entry.

    `size` is its full length in bytes, `content` the stored beginning.
    """

    supplier: str
    session_id: str
    entry: str
    reason: str
    size: int
    content: bytes


class DeadLetters:
    """The newest `kept` entries, with their first `CONTENT_BYTES`.

    They have at most 16 MB in total. The file is created with the first entry.
    """

    def __init__(self, path: Path, kept: int = KEPT) -> None:
        self._path = path
        self._kept = kept

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=10)
        with closed_on_error(database):
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(_SCHEMA)
        return database

    def add(self, supplier: str, session_id: str, refused: Sequence[tuple[str, str, bytes]]) -> None:
        """Add rejected entries (entry id, reason, relay bytes), each once.

        Never raises.
        """
        if not refused:
            return
        rows = [
            (supplier, session_id, entry, reason, len(relay), relay[:CONTENT_BYTES])
            for entry, reason, relay in refused[-self._kept :]
        ]
        try:
            database = self._open()
            try:
                with database:
                    database.executemany(
                        "INSERT OR IGNORE INTO letter (supplier, session_id, entry, reason, size, content) "
                        "VALUES (?,?,?,?,?,?)",
                        rows,
                    )
                    database.execute(
                        "DELETE FROM letter WHERE number <= (SELECT max(number) FROM letter) - ?", (self._kept,)
                    )
            finally:
                database.close()
        except sqlite3.Error:
            # They are counted and logged already, so failing to store them is harmless.
            miner_metrics.ERRORS.labels("dead_letters").inc()

    def read(self) -> list[DeadLetter]:
        """Return the stored entries, oldest first.

        Raises sqlite3.Error.
        """
        if not self._path.exists():
            return []
        database = self._open()
        try:
            rows = database.execute(
                "SELECT supplier, session_id, entry, reason, size, content FROM letter ORDER BY number"
            )
            return [DeadLetter(*row) for row in rows]
        finally:
            database.close()
