"""The worker's append-only local log: the second copy of every recorded relay until a miner mirrored it.

A record survives SIGKILL of the worker (the kernel has it after `write`), not the loss of the machine.
Segments are released when miners report their content mirrored; a worker that starts adopts the logs of
dead ones. Format of a record: length (4), CRC-32 (4), supplier length (1), supplier, header length (2),
header, relay bytes.
"""

import contextlib
import fcntl
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_HEAD = 8
_SUFFIX = ".log"


@dataclass(frozen=True, slots=True)
class WalRecord:
    """A mined relay with what finds its stream; `header` is the canonical session header.

    session_end: height; 0 where a log was read, whose relays are taken however late they come.
    """

    supplier: str
    session_id: str
    header: bytes
    relay: bytes
    session_end: int = 0


def encode_record(record: WalRecord) -> bytes:
    """Bytes of a record."""
    supplier = record.supplier.encode()
    session = record.session_id.encode("utf-8", "surrogateescape")
    body = b"".join(
        (bytes((len(supplier),)), supplier, len(session).to_bytes(2, "big"), session,
         len(record.header).to_bytes(2, "big"), record.header, record.relay)
    )  # fmt: skip
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def decode_records(data: bytes) -> Iterator[WalRecord]:
    """Records up to the first torn or damaged one: a crash can cut the last write, or leave zeros in its place."""
    at = 0
    while at + _HEAD <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + _HEAD : at + _HEAD + length]
        if not body or len(body) < length or zlib.crc32(body) != int.from_bytes(data[at + 4 : at + 8], "big"):
            return
        at += _HEAD + length
        one = 1 + body[0]
        two = one + 2 + int.from_bytes(body[one : one + 2], "big")
        three = two + 2 + int.from_bytes(body[two : two + 2], "big")
        yield WalRecord(
            body[1:one].decode(), body[one + 2 : two].decode("utf-8", "surrogateescape"), body[two + 2 : three],
            body[three:],
        )  # fmt: skip


@dataclass(slots=True)
class Segment:
    """One file; by (supplier, session) `appended` holds the newest stream id, `late` is what came past the horizon.

    `owed` is what Redis did not take although it was written here: it is appended once Redis takes it, as `replaying`
    meanwhile.
    """

    path: Path
    size: int = 0
    pending: int = 0  # flushes that wrote here and whose appends are not decided yet
    appended: dict[tuple[str, str], str] = field(default_factory=dict)
    sessions: set[tuple[str, str]] = field(default_factory=set)
    late: set[tuple[str, str]] = field(default_factory=set)
    owed: set[tuple[str, str]] = field(default_factory=set)
    replaying: set[tuple[str, str]] = field(default_factory=set)

    def refused(self, pair: tuple[str, str]) -> bool:
        """Whether none of a (supplier, session)'s relays here was acknowledged: they came too late."""
        return pair in self.late and pair not in self.appended

    def read(self) -> Iterator[WalRecord]:
        """Its records."""
        yield from decode_records(self.path.read_bytes())


class WriteAheadLog:
    """The log of one worker below `root`, in a folder that is locked while the worker lives."""

    def __init__(self, root: Path, name: str, segment_bytes: int = 16 * 1024 * 1024) -> None:
        self._folder = root / name
        self._segment_bytes = segment_bytes
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self._folder / "lock").open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._number = 0
        self._file: BinaryIO | None = None
        self.segments: list[Segment] = [Segment(p, p.stat().st_size) for p in sorted(self._folder.glob(f"*{_SUFFIX}"))]
        for segment in self.segments:
            segment.sessions = {(r.supplier, r.session_id) for r in segment.read()}
            self._number = max(self._number, int(segment.path.stem.split("-")[-1]))
        self._adopt(root)

    def _adopt(self, root: Path) -> None:
        """Takes over the segments of workers that are gone."""
        for folder in sorted(p for p in root.iterdir() if p.is_dir() and p != self._folder):
            lock_path = folder / "lock"
            with contextlib.suppress(OSError), lock_path.open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for orphan in sorted(folder.glob(f"*{_SUFFIX}")):
                    segment = Segment(self._next_path(), orphan.stat().st_size)
                    orphan.rename(segment.path)
                    segment.sessions = {(r.supplier, r.session_id) for r in segment.read()}
                    self.segments.append(segment)
                lock_path.unlink()
                folder.rmdir()

    def _next_path(self) -> Path:
        self._number += 1
        return self._folder / f"segment-{self._number:08d}{_SUFFIX}"

    def append(self, records: list[WalRecord]) -> Segment:
        """Writes the records with one system call; they are with the kernel when this returns. Raises OSError.

        What was written in part goes again: reading ends at a torn record, and would miss whatever came after it.
        """
        if self._file is None or self.segments[-1].size >= self._segment_bytes:
            self._rotate()
        file, segment = self._file, self.segments[-1]
        if file is None:
            raise ValueError("the log is closed")
        data = b"".join(encode_record(record) for record in records)
        written = os.write(file.fileno(), data)
        if written != len(data):
            try:
                os.ftruncate(file.fileno(), segment.size)
            except OSError:
                self.roll()
            raise OSError("the local log is full: free space on its volume")
        segment.size += len(data)
        segment.sessions.update((record.supplier, record.session_id) for record in records)
        return segment

    def _rotate(self) -> None:
        self.roll()
        segment = Segment(self._next_path())
        self._file = segment.path.open("ab", buffering=0)
        self.segments.append(segment)

    @property
    def active(self) -> Segment | None:
        """The segment that is written to."""
        return self.segments[-1] if self._file is not None and self.segments else None

    def roll(self) -> None:
        """Ends the active segment, so that it can be released once its content is safe."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(segment.size for segment in self.segments)

    def release(self, segment: Segment) -> None:
        """Deletes a segment whose relays are safe elsewhere."""
        if segment is self.active:
            raise ValueError("the active segment is not released")
        self.segments.remove(segment)
        segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the files and unlocks the folder; what is not released stays for the next worker."""
        self.roll()
        self._lock.close()
