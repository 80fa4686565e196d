"""Remember the first root that was signed for each session.

They are in a file that outlives the process.
"""

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from pocket.errors import ConfigurationError
from pocket.runtime.sqlite_opening import closed_on_error
from pocket_signer.signable import ClaimedRoot

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS roots (public_key BLOB NOT NULL, session_id TEXT NOT NULL, root BLOB NOT NULL,"
    " signed_at INTEGER NOT NULL, PRIMARY KEY (public_key, session_id)) WITHOUT ROWID"
)


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    with closed_on_error(database):
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(_SCHEMA)
    return database


class SignedRoots:
    """Remembers roots before they are signed.

    Calls wait for the disk, so they belong in a thread.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises ConfigurationError."""
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            self._database = _opened(path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"{path}: cannot be used for signed roots: {error}") from error

    def remember(self, public_key: bytes, roots: Iterable[ClaimedRoot], unix_seconds: int) -> ClaimedRoot | None:
        """Store roots durably, all or none.

        Returns the first one whose session has another root. Raises sqlite3.Error. A root that is stored already is no
        conflict.
        """
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                for claimed in roots:
                    self._database.execute(
                        "INSERT OR IGNORE INTO roots VALUES (?, ?, ?, ?)",
                        (public_key, claimed.session_id, claimed.root, unix_seconds),
                    )
                    if self._root(public_key, claimed.session_id) != claimed.root:
                        self._database.execute("ROLLBACK")
                        return claimed
                self._database.execute("COMMIT")
            except sqlite3.Error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        return None

    def _root(self, public_key: bytes, session_id: str) -> bytes | None:
        row = self._database.execute(
            "SELECT root FROM roots WHERE public_key = ? AND session_id = ?", (public_key, session_id)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def forget(self, public_key: bytes, session_id: str) -> bytes | None:
        """Delete the root of a session and return it, None if there was none.

        Raises sqlite3.Error.
        """
        with self._lock:
            root = self._root(public_key, session_id)
            self._database.execute(
                "DELETE FROM roots WHERE public_key = ? AND session_id = ?", (public_key, session_id)
            )
        return root

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
