"""Keep a second copy of every relay until a miner replicated it.

This is the worker's write-ahead log. A record survives SIGKILL of the worker (the kernel has it after `write`), not the
loss of the machine. Segments are released when miners report their content replicated. A worker that starts recovers
the logs of dead workers.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.redis_store.log_records import WalRecord, decode_records, encode_record
from pocket.redis_store.store_errors import LogUnavailable

_LOG: FilteringBoundLogger = structlog.get_logger()
_SUFFIX = ".log"
_DAMAGED = ".damaged"
_PROBE_BYTES = 4096
_PIECE = 256 * 1024
_SESSIONS_PER_BEAT = 32


@dataclass(slots=True)
class Segment:
    """One file of the log, with the state of its relays by (supplier, session).

    `appended` holds the newest stream id. `rejected` are sessions that Redis rejected as past the cut-off.
    `unacknowledged` are sessions with relays that Redis did not acknowledge: they are appended again once Redis is
    available, as `replaying` meanwhile. `histories` holds for each supplier the history of Redis to which all its other
    relays were appended, empty if that is unknown. The file of a damaged segment cannot be read.
    """

    path: Path
    size: int = 0
    pending: int = 0  # flushes that wrote here and whose appends are not decided yet
    appended: dict[tuple[str, str], str] = field(default_factory=dict)
    sessions: set[tuple[str, str]] = field(default_factory=set)
    rejected: set[tuple[str, str]] = field(default_factory=set)
    unacknowledged: set[tuple[str, str]] = field(default_factory=set)
    replaying: set[tuple[str, str]] = field(default_factory=set)
    histories: dict[str, str] = field(default_factory=dict)
    damaged: bool = False
    gaps: int = 0  # places with damaged records, as read last

    @property
    def suppliers(self) -> set[str]:
        """Return the suppliers with relays here."""
        return {supplier for supplier, _ in self.sessions}

    def is_rejected(self, pair: tuple[str, str]) -> bool:
        """Return True if none of a (supplier, session)'s relays here was acknowledged."""
        return pair in self.rejected and pair not in self.appended

    def read(self) -> Iterator[WalRecord]:
        """Yield the records of the file.

        Raises OSError after those that come before an unreadable part.
        """
        loaded = self.load()
        yield from loaded.records
        if loaded.failure is not None:
            raise loaded.failure

    def load(self) -> "Loaded":
        """Return the records before the first part that cannot be read."""
        data, failure = bytearray(), None
        try:
            with self.path.open("rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    data += piece
        except OSError as error:
            failure = error
        rows = list(decode_records(bytes(data)))
        records = [row for row in rows if row is not None]
        return Loaded(records, len(rows) - len(records), failure)


class Loaded(NamedTuple):
    """What was read of a segment.

    `gaps` is the number of places where one or more records are damaged. `failure` is the error that ended the reading.
    """

    records: list[WalRecord]
    gaps: int
    failure: OSError | None


def _sessions_in(records: Iterable[WalRecord]) -> set[tuple[str, str]]:
    return {(record.supplier, record.session_id) for record in records}


def _number_of(path: Path) -> int:
    """Return the number of a segment's file."""
    return int(path.stem.rpartition("-")[2])


class WriteAheadLog:
    """The log of one worker, in a folder below `root`.

    The folder is locked while the worker lives.
    """

    def __init__(self, root: Path, name: str, segment_bytes: int = 16 * 1024 * 1024) -> None:
        self._root = root
        self._folder = root / name
        self._segment_bytes = segment_bytes
        self._number = 0
        self._damaged: list[Segment] = []
        self.damaged_records = 0
        """Places with damaged records that were found since the start."""
        self._file: BinaryIO | None = None
        self.segments: list[Segment] = []
        self._locks = contextlib.ExitStack()
        self._open = False
        try:
            self._open_folder()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _LOG.warning(
                "the volume of the write-ahead log is full, relays are rejected until space is freed", error=error
            )
        own = sorted(self._folder.glob(f"*{_SUFFIX}"))
        self._number = max((_number_of(path) for path in own), default=0)
        for path in own:
            self._recover(path)
        self._recover_orphans()

    def _open_folder(self) -> None:
        """Make and lock the own folder, if that has not succeeded yet. Raises OSError."""
        if not self._open:
            self._root.mkdir(parents=True, exist_ok=True)
            with self._folders_locked(), contextlib.ExitStack() as stack:
                self._folder.mkdir(exist_ok=True)
                lock = stack.enter_context((self._folder / "lock").open("ab"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._locks.enter_context(stack.pop_all())
            self._open = True

    @contextlib.contextmanager
    def _folders_locked(self) -> Iterator[None]:
        """Wait until no other worker makes or deletes a folder.

        A lock on a deleted file would protect nothing.
        """
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(root, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(root, fcntl.LOCK_UN)
            os.close(root)

    def _recover_orphans(self) -> None:
        """Recover the segments of workers that are gone."""
        if not self._root.exists():
            return
        for folder in sorted(p for p in self._root.iterdir() if p.is_dir() and p != self._folder):
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                with self._folders_locked():
                    lock = stack.enter_context((folder / "lock").open("ab"))
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for path in sorted(folder.glob(f"*{_SUFFIX}")):
                    self._recover(path)
                if not self._open:
                    self._locks.enter_context(stack.pop_all())
                    continue
                with self._folders_locked():
                    (folder / "lock").unlink()
                    folder.rmdir()

    def _recover(self, path: Path) -> None:
        """Take over a segment that an earlier worker wrote.

        One that cannot be read is set aside, and the records before the damage are written again. Without an own folder
        a segment stays where it is, in a folder that is locked until this log is closed.
        """
        segment = Segment(path)
        records, failure = self.load(segment)
        if failure is not None:
            self._salvage(records)
            self.report_damage(Segment(self._set_aside(path)), failure)
            return
        segment.size = path.stat().st_size
        segment.sessions = _sessions_in(records)
        try:
            if self._open and path.parent != self._folder:
                segment.path = self._next_path()
                path.rename(segment.path)
        except OSError as error:
            _LOG.error("segment of the write-ahead log cannot be taken over", file=str(path), error=error)
            return
        self.segments.append(segment)

    def load(self, segment: Segment) -> tuple[list[WalRecord], OSError | None]:
        """Return a segment's records, and the error that ended the reading.

        It may run in a thread. Damaged records are counted and logged, once for each place.
        """
        loaded = segment.load()
        if loaded.gaps > segment.gaps:
            self.damaged_records += loaded.gaps - segment.gaps
            segment.gaps = loaded.gaps
            _LOG.error(
                "records of the write-ahead log are damaged, they are lost if Redis has lost them: check the disk",
                file=str(segment.path),
                places=loaded.gaps,
                records_read=len(loaded.records),
            )
        return loaded.records, loaded.failure

    def _salvage(self, records: list[WalRecord]) -> None:
        try:
            if records and self._open:
                self.append(records)
                self.rotate()
        except OSError as error:
            _LOG.error(
                "records of a damaged segment cannot be copied to a new one: check the disk",
                records=len(records),
                error=error,
            )

    def readable_again(self) -> list[Segment]:
        """Return the damaged segments, of any worker, that can be read now.

        It may run in a thread.
        """
        paths = [Segment(path) for path in sorted(self._root.glob(f"*{_DAMAGED}"))]
        segments = []
        for segment in [*(s for s in self.segments if s.damaged), *paths]:
            loaded = segment.load()
            if loaded.failure is None:
                segment.sessions = _sessions_in(loaded.records)
                segments.append(segment)
        return segments

    def take_back(self, segments: list[Segment]) -> None:
        """Append these damaged segments again, which can be read now."""
        for segment in segments:
            if segment not in self.segments:
                try:
                    self._open_folder()
                    with self._folders_locked():  # another worker may take it back
                        size, path = segment.path.stat().st_size, self._next_path()
                        segment.path.rename(path)
                except OSError:
                    continue
                segment.path, segment.size = path, size
                self.segments.insert(0, segment)
            segment.damaged, segment.histories = False, {}
            _LOG.warning("segment of the write-ahead log can be read again", file=str(segment.path))

    def _set_aside(self, path: Path) -> Path:
        """Rename a segment that cannot be read, so that no worker reads it.

        Returns its path.
        """
        aside = self._root / f"{path.parent.name}-{path.stem}{_DAMAGED}"
        try:
            path.rename(aside)
        except OSError:
            return path
        return aside

    def _next_path(self) -> Path:
        self._number += 1
        return self._folder / f"segment-{self._number:08d}{_SUFFIX}"

    def append(self, records: list[WalRecord]) -> Segment:
        """Write the records with one system call.

        The kernel holds them when this returns. A partial write is truncated: reading ends at a torn record and would
        miss every later one. Raises LogUnavailable if nothing was written, and OSError where a part may be read.
        """
        try:
            if self._file is None or self.segments[-1].size >= self._segment_bytes:
                self._open_segment()
        except OSError as error:
            raise LogUnavailable(f"{self._folder} takes no writes: {error.strerror}") from error
        file, segment = self._file, self.segments[-1]
        if file is None:
            raise ValueError("the log is closed")
        data = b"".join(encode_record(record) for record in records)
        try:
            if os.write(file.fileno(), data) != len(data):
                raise OSError(f"short write to {segment.path.name}: free up space on the local log's volume")
        except OSError as error:
            try:
                os.ftruncate(file.fileno(), segment.size)
            except OSError:
                self.rotate()
                raise error from None
            raise LogUnavailable(f"{segment.path.name}: {error}") from error
        segment.size += len(data)
        segment.sessions.update((record.supplier, record.session_id) for record in records)
        return segment

    def open_problem(self) -> str:
        """Return why the folder cannot be opened, '' if it is open."""
        try:
            self._open_folder()
        except OSError as error:
            return f"{self._folder} takes no writes: {error.strerror}"
        return ""

    def problem(self, reserve_bytes: int) -> str:
        """Return why no relay should be accepted for this open log, '' if it takes writes.

        Writes a probe.

        `reserve_bytes` must be free for relays that are being served. It may run in a thread.
        """
        try:
            probe = self._folder / "probe"
            try:
                probe.write_bytes(bytes(_PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            return f"{self._folder} takes no writes: {error.strerror}"
        if free < reserve_bytes:
            return f"{free} bytes are free below {self._root}, of {reserve_bytes} that relays in progress may need"
        return ""

    def _open_segment(self) -> None:
        self._open_folder()
        self.rotate()
        segment = Segment(self._next_path())
        self._file = segment.path.open("ab", buffering=0)
        self.segments.append(segment)

    @property
    def active(self) -> Segment | None:
        """Return the segment that is written to, or None."""
        return self.segments[-1] if self._file is not None and self.segments else None

    def rotate(self) -> None:
        """End the active segment, so that it can be released once its content is safe."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def size(self) -> int:
        """Return the bytes held by all segments."""
        return sum(segment.size for segment in self.segments)

    def beats_between_looks(self, limit: int) -> int:
        """Return the heartbeats between two queries for lost sessions, at most `limit`.

        Few sessions are asked for often, so that what is lost is appended before a session is sealed.
        """
        return min(limit, 2 + sum(len(segment.sessions) for segment in self.segments) // _SESSIONS_PER_BEAT)

    def release(self, segment: Segment) -> None:
        """Delete a segment whose relays are safe elsewhere."""
        if segment is self.active:
            raise ValueError("the active segment is not released")
        self.segments.remove(segment)
        segment.path.unlink(missing_ok=True)

    @property
    def damaged(self) -> int:
        """Return the number of segments that were found unreadable and still are."""
        kept = (s for s in self._damaged if s.damaged and (s in self.segments or os.path.lexists(s.path)))
        return sum(1 for _ in kept)

    def report_damage(self, segment: Segment, error: OSError) -> None:
        """Mark a segment whose file cannot be read. The file is kept."""
        segment.damaged = True
        self._damaged.append(segment)
        _LOG.error(
            "segment of the write-ahead log cannot be read, its relays are lost if Redis loses them: check the volume",
            file=str(segment.path),
            error=error,
        )

    def close(self) -> None:
        """Close the files and unlock the folder.

        Unreleased segments stay for the next worker.
        """
        self.rotate()
        self._locks.close()
