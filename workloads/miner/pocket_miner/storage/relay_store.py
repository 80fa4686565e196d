"""Store recorded relays on the miner's volume in one SQLite file per session end.

A file also indexes its sessions: paths are unique per session, so a relay that is read twice is one leaf. A file is
deleted when all its sessions have ended. Commits are durable (WAL, synchronous=FULL).
"""

import contextlib
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Self

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.protocol.smst.bulk import LeafContent
from pocket_miner import miner_metrics
from pocket_miner.relay_rows import Leaf, LeafBatch, StoredSession
from pocket_miner.storage import relay_schema as sql
from pocket_miner.storage.corruption import corruption_in, files_of, quarantine
from pocket_miner.storage.database import open_to_read, open_to_write

_LOG: FilteringBoundLogger = structlog.get_logger()
_NAME: Final = re.compile(r"end-([0-9]{1,18})\.sqlite")


class SessionEndFile:
    """The file of all sessions that end at one height."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._database = open_to_read(path) if read_only else open_to_write(path, sql.SCHEMA)
        # Consumer threads and the event loop share one connection: transactions must not be interleaved.
        self._lock = threading.RLock()
        self._counts: dict[int, int] = {}
        """Leaves by session number, as far as counted. The lock of the volume makes this the only writer."""

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _number(self, supplier: str, session_id: str) -> int | None:
        row = self._database.execute(
            "SELECT id FROM session WHERE supplier=? AND session_id=?", (supplier, session_id)
        ).fetchone()
        return None if row is None else int(row[0])

    def add_session(self, supplier: str, session_id: str, header: bytes) -> None:
        """Register a session. A known one is not changed."""
        self.add_sessions(supplier, [(session_id, header)])

    def add_sessions(self, supplier: str, rows: Iterable[tuple[str, bytes]]) -> None:
        """Register sessions (id, header) in one durable step.

        Known ones are not changed.
        """
        with self._lock:
            database = self._database
            database.execute("BEGIN IMMEDIATE")
            try:
                for session_id, header in rows:
                    # A number that was used before may still have the leaves of an ended session.
                    database.execute(
                        "INSERT OR IGNORE INTO session (id, supplier, session_id, header) SELECT 1 + max("
                        "coalesce((SELECT max(id) FROM session), 0), coalesce((SELECT max(session) FROM leaf), 0)), "
                        "?, ?, ?",
                        (supplier, session_id, header),
                    )
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise

    def has(self, supplier: str, session_id: str) -> bool:
        """Return True if a session is registered."""
        with self._lock:
            return self._number(supplier, session_id) is not None

    def sessions(self) -> list[StoredSession]:
        """Return all sessions in the file."""
        with self._lock:
            query = sql.SESSIONS if self._has("name='params'") else sql.SESSIONS_ALONE
            return [StoredSession(*row) for row in self._database.execute(query)]

    def store(
        self, supplier: str, session_id: str, leaves: Sequence[Leaf], refused: int, position: str, origin: str
    ) -> int:
        """Store leaves and the new position in one durable step.

        Returns the number of new leaves.
        """
        return self.store_all([LeafBatch(supplier, session_id, leaves, refused, position, origin)])[0] or 0

    def store_all(self, batches: Sequence[LeafBatch]) -> list[int | None]:
        """Store the leaves and the new positions of several sessions in one durable step.

        Returns the number of new leaves of each, None for a session that the file does not have.
        """
        with self._lock:
            database = self._database
            database.execute("BEGIN IMMEDIATE")
            try:
                added = [self._store(batch) for batch in batches]
                database.execute("COMMIT")
            except BaseException:
                self._counts.clear()
                if database.in_transaction:  # SQLite ends it itself where the volume is full
                    database.execute("ROLLBACK")
                raise
            return added

    def _store(self, batch: LeafBatch) -> int | None:
        number = self._number(batch.supplier, batch.session_id)
        if number is None:
            return None
        database = self._database
        before = database.total_changes
        database.executemany(
            "INSERT OR IGNORE INTO leaf (session, path, digest, weight, value) VALUES (?,?,?,?,?)",
            [(number, *leaf) for leaf in batch.leaves],
        )
        added = database.total_changes - before
        database.execute(
            "UPDATE session SET position=?, incarnation=?, refused=refused+? WHERE id=?",
            (batch.position, batch.origin, batch.refused, number),
        )
        if batch.terms:
            database.execute(sql.VALIDATED, (number, batch.terms))
        if batch.params:
            database.execute(sql.PARAMS, (number, batch.params))
        if number in self._counts:
            self._counts[number] += added
        return added

    def terms_of(self, supplier: str, session_id: str) -> str | None:
        """Return the terms by which all leaves of a session are valid.

        They are empty if unknown, None if nothing was stored.
        """
        with self._lock:
            row = self._database.execute(
                "SELECT s.position, v.terms, EXISTS (SELECT 1 FROM leaf WHERE session=s.id) FROM session s "
                "LEFT JOIN validation v ON v.session=s.id WHERE s.supplier=? AND s.session_id=?",
                (supplier, session_id),
            ).fetchone()
        return None if row is None or (row[0] == "0-0" and not row[2]) else str(row[1] or "")

    def check_again(
        self, supplier: str, session_id: str, check: Callable[[bytes], Leaf | None], terms: str = ""
    ) -> int:
        """Rebuild every leaf of a session from its relay with `check`.

        It applies `terms`. A leaf for which `check` returns None is deleted. Returns the number of deleted leaves.
        """
        deleted = 0
        with self._lock:
            number = self._number(supplier, session_id)
            self._counts.clear()
            database = self._database
            paths = [row[0] for row in database.execute("SELECT path FROM leaf WHERE session=?", (number,))]
            database.execute("BEGIN IMMEDIATE")
            try:
                for path in paths:
                    key = (number, path)
                    row = database.execute("SELECT value FROM leaf WHERE session=? AND path=?", key).fetchone()
                    leaf = check(bytes(row[0]))
                    if leaf is None:
                        database.execute("DELETE FROM leaf WHERE session=? AND path=?", key)
                        deleted += 1
                    else:
                        values = (leaf.digest, leaf.weight, *key)
                        database.execute("UPDATE leaf SET digest=?, weight=? WHERE session=? AND path=?", values)
                database.execute("UPDATE session SET position='0-0' WHERE id=?", (number,))
                database.execute("INSERT OR REPLACE INTO validation VALUES (?, ?)", (number, terms))
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
        return deleted

    def leaves(self, supplier: str, session_id: str) -> list[tuple[bytes, bytes]]:
        """Return the (path, digest) of all leaves of a session, sorted by path."""
        with self._lock:
            number = self._number(supplier, session_id)
            database = self._database
            # In the order of the file, so that each of its pages is read once.
            query = sql.LEAVES_BY_PATH if self._is_ordered_by_path() else sql.LEAVES
            return sorted(database.execute(query, (number,)))

    def arrivals(self, supplier: str, session_id: str) -> list[bytes]:
        """Return the paths of a session's leaves in the order of their storing.

        Files of earlier versions do not have that order, and the paths are in their own.
        """
        with self._lock:
            number = self._number(supplier, session_id)
            query = sql.PATHS if self._is_ordered_by_path() else sql.ARRIVALS
            return [bytes(row[0]) for row in self._database.execute(query, (number,))]

    def _is_ordered_by_path(self) -> bool:
        """Return True for a file of an earlier version."""
        return self._has("name='leaf' AND sql LIKE '%WITHOUT ROWID%'")

    def _has(self, table: str) -> bool:
        rows = self._database.execute(f"SELECT 1 FROM sqlite_master WHERE {table}")  # noqa: S608 - constants
        return rows.fetchone() is not None

    def count(self, supplier: str, session_id: str) -> int:
        """Return the number of leaves of a session."""
        with self._lock:
            number = self._number(supplier, session_id)
            if number is None:
                return 0
            if number not in self._counts:
                row = self._database.execute("SELECT count(*) FROM leaf WHERE session=?", (number,)).fetchone()
                self._counts[number] = int(row[0])
            return self._counts[number]

    def largest(self, supplier: str, session_id: str) -> int:
        """Return the size of a session's largest relay in bytes, 0 without any."""
        with self._lock:
            query = sql.LARGEST_BY_PATH if self._is_ordered_by_path() else sql.LARGEST
            row = self._database.execute(query, (self._number(supplier, session_id),)).fetchone()
            return int(row[0] or 0)

    def unknown(self, supplier: str, session_id: str, paths: Iterable[bytes]) -> set[bytes]:
        """Return those of the paths that have no leaf in a session."""
        query = "SELECT 1 FROM leaf WHERE session=? AND path=?"
        with self._lock:
            number = self._number(supplier, session_id)
            return {path for path in set(paths) if self._database.execute(query, (number, path)).fetchone() is None}

    def exceeds(self, supplier: str, session_id: str, leaves: int) -> bool:
        """Return True if a session has more leaves than `leaves`.

        Reads no more of them than needed.
        """
        with self._lock:
            number = self._number(supplier, session_id)
            beyond = self._database.execute("SELECT 1 FROM leaf WHERE session=? LIMIT 1 OFFSET ?", (number, leaves))
            return beyond.fetchone() is not None

    def content(self, supplier: str, session_id: str, path: bytes) -> LeafContent:
        """Return value and weight of one leaf. Raises KeyError if there is none."""
        with self._lock:
            number = self._number(supplier, session_id)
            row = self._database.execute(
                "SELECT value, weight FROM leaf WHERE session=? AND path=?", (number, path)
            ).fetchone()
            if row is None:
                raise KeyError(path.hex())
            return LeafContent(bytes(row[0]), int(row[1]))

    def page(self, supplier: str, session_id: str, after: bytes, max_bytes: int) -> tuple[list[bytes], bytes]:
        """Return the relays after the mark `after`, and the next mark.

        They are in the order in which they were stored. The first mark is empty. Returns at least one relay if there is
        one, and about `max_bytes` in total. Files of earlier versions return their relays by path.
        """
        values: list[bytes] = []
        last, size = after, 0
        with self._lock:
            number = self._number(supplier, session_id)
            by_path = self._is_ordered_by_path()
            start: bytes | int = after if by_path else int.from_bytes(after, "big")
            for key, value in self._database.execute(sql.PAGE_BY_PATH if by_path else sql.PAGE, (number, start)):
                values.append(bytes(value))
                last, size = bytes(key) if by_path else int(key).to_bytes(8, "big"), size + len(value)
                if size >= max_bytes:
                    break
        return values, last

    def add(
        self, supplier: str, session_id: str, leaves: Sequence[Leaf], terms: str = "", params: str = ""
    ) -> int:  # fmt: skip
        """Store leaves that did not come from the stream, without a new position.

        Returns the number of new leaves.
        """
        with self._lock:
            number = self._number(supplier, session_id)
            if number is None:
                return 0
            row = self._database.execute("SELECT position, incarnation FROM session WHERE id=?", (number,)).fetchone()
            batch = LeafBatch(supplier, session_id, leaves, 0, str(row[0]), str(row[1]), terms, params)
            return self.store_all([batch])[0] or 0

    def remove(self, supplier: str, session_id: str) -> bool:
        """Delete a session.

        Returns True if the file has no other. Its leaves stay until the file is deleted with its last session, because
        deleting hundreds of thousands of rows takes seconds.
        """
        with self._lock:
            self._counts.clear()
            for table in ("validation", "params"):
                query = f"DELETE FROM {table} WHERE session=?"  # noqa: S608 - constants
                self._database.execute(query, (self._number(supplier, session_id),))
            self._database.execute("DELETE FROM session WHERE supplier=? AND session_id=?", (supplier, session_id))
            row = self._database.execute("SELECT count(*) FROM session").fetchone()
            return int(row[0]) == 0


def largest_relay(path: Path, supplier: str, session_id: str) -> int:
    """Return the bytes of a session's largest relay. Raises sqlite3.Error.

    It does not block the file's users.
    """
    with contextlib.closing(SessionEndFile(path, read_only=True)) as file:
        return file.largest(supplier, session_id)


class RelayStore:
    """The folder of session-end files, shared by all suppliers of a miner."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._folder = folder
        self._read_only = read_only
        # Suppliers share files, and threads read and delete them.
        self._lock = threading.RLock()
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[int, SessionEndFile] = {}
        self._skipped: set[int] = set()
        """Session ends whose file could not be read at start. Their sessions are read from Redis and peers."""
        for path in folder.glob("end-*.sqlite"):
            if match := _NAME.fullmatch(path.name):
                self._open(int(match[1]), path)

    def _open(self, end: int, path: Path) -> None:
        """Open a file, or else skip it. Quarantines a corrupt one."""
        try:
            self._files[end] = SessionEndFile(path, read_only=self._read_only)
        except (sqlite3.Error, OSError) as error:
            self._skip(end, error)
            if corruption_in(error) is not None and not self._read_only:
                with contextlib.suppress(OSError):
                    quarantine(path)
                self._skipped.discard(end)

    def _skip(self, end: int, error: Exception) -> None:
        self._skipped.add(end)
        miner_metrics.ERRORS.labels("volume").inc()
        _LOG.error("relays cannot be read from the volume, skipping their file", session_end=end, error=error)

    def reopened(self) -> list[int]:
        """Return the session ends whose file was skipped at start and can be read now."""
        ends = []
        for end in sorted(self._skipped):
            try:
                self.file(end).sessions()
            except (sqlite3.Error, OSError):
                continue
            self._skipped.discard(end)
            ends.append(end)
        return ends

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    def path(self, session_end: int) -> Path:
        """Return the path of a session end's file."""
        return self._folder / f"end-{session_end}.sqlite"

    def file(self, session_end: int) -> SessionEndFile:
        """Return the file of a session end, creating it if missing."""
        with self._lock:
            if session_end not in self._files:
                self._files[session_end] = SessionEndFile(self.path(session_end), read_only=self._read_only)
            return self._files[session_end]

    def known(self, session_end: int) -> SessionEndFile | None:
        """Return the file of a session end, None without one."""
        return self._files.get(session_end)

    def terms_of(self, session_end: int, supplier: str, session_id: str) -> str | None:
        """Return what the file of a session end does, None without one."""
        file = self.known(session_end)
        return None if file is None else file.terms_of(supplier, session_id)

    def ends(self) -> Sequence[int]:
        """Return the session ends that have a file, sorted."""
        return sorted(self._files)

    def sessions(self) -> list[tuple[int, StoredSession]]:
        """Return all sessions with their session ends, the earliest end first.

        A file that cannot be read is skipped. Raises sqlite3.Error if none can be read, and for a corrupt one.
        """
        rows: list[tuple[int, StoredSession]] = []
        failed: dict[int, sqlite3.Error] = {}
        with self._lock:
            for end, file in sorted(self._files.items()):
                try:
                    rows += [(end, row) for row in file.sessions()]
                except sqlite3.Error as error:
                    if corruption_in(error) is not None:
                        raise
                    failed[end] = error
            if failed and len(failed) == len(self._files):
                raise next(iter(failed.values()))
        for end, problem in failed.items():
            self._skip(end, problem)
        return rows

    def remove(self, session_end: int, supplier: str, session_id: str) -> None:
        """Delete a session, and the file with its last session."""
        with self._lock:
            file = self._files.get(session_end)
            if file is None or not file.remove(supplier, session_id):
                return
            file.close()
            del self._files[session_end]
            for path in files_of(file.path):
                path.unlink(missing_ok=True)
