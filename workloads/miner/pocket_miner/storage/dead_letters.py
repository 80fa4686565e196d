"""Ledger entries that the index gate refused, kept on the volume for whoever wants to know what they were."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
    """One refused entry; `size` is its length in bytes, `content` what is kept of it."""

    supplier: str
    session_id: str
    entry: str
    reason: str
    size: int
    content: bytes


class DeadLetters:
    """The newest `kept` entries, of each the first `CONTENT_BYTES`: 16 MB. The file is made for the first one."""

    def __init__(self, path: Path, kept: int = KEPT) -> None:
        self._path = path
        self._kept = kept

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=10)
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript(_SCHEMA)
        return database

    def add(self, supplier: str, session_id: str, refused: Sequence[tuple[str, str, bytes]]) -> None:
        """Keeps (entry id, reason, relay bytes); an entry read again is kept once. Never raises."""
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
            # They are counted and logged; keeping them is worth no trouble to anybody.
            miner_metrics.ERRORS.labels("dead_letters").inc()

    def read(self) -> list[DeadLetter]:
        """From the oldest; raises what SQLite raises."""
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
