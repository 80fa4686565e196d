"""Keep copies of audit trails outside of the volumes.

Each trail has a file that is only appended to, one entry a line. The entries have the texts and hashes of the volume,
so a copy is verified without it.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pocket.errors import PocketError
from pocket_miner.storage.audit import Audit, AuditError, AuditHead
from pocket_miner.storage.audit_schema import FIRST_LINK, link_of

_PAGE: Final = 2000
Hash = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class ArchiveError(PocketError):
    """An archive is damaged, or entries do not continue it.

    The message names the file and the entry.
    """


class TrailEntry(BaseModel):
    """An outcome as the volume has it: `body` is the exact text that the hash covers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    previous: Hash
    hash: Hash
    body: str

    @property
    def intact(self) -> bool:
        """True if the hash is that of the text and of the entry before it."""
        return link_of(self.previous, self.body) == self.hash

    def outcome(self) -> dict[str, Any]:
        """Return the outcome as `Audit.outcomes` does."""
        outcome: dict[str, Any] = json.loads(self.body)
        return outcome


class TrailPage(BaseModel):
    """Entries of one trail in order."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    trail: Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
    entries: tuple[TrailEntry, ...]
    last: int = Field(ge=0, description="Number of the newest entry of the trail.")


@dataclass(frozen=True, slots=True)
class Archived:
    """The end of an archive, and how many entries were added to it."""

    file: Path
    number: int
    added: int


def trail_page(audit: Audit, after: int) -> TrailPage:
    """Return the next entries after a number.

    Raises AuditError if the volume's trail has no identifier.
    """
    try:
        rows = [TrailEntry(number=n, body=b, previous=p, hash=h) for n, b, p, h in audit.entries(after, _PAGE)]
        return TrailPage(
            trail=str((audit.head_row or {}).get("trail", "")), entries=tuple(rows), last=audit.last_number()
        )
    except ValidationError as error:
        raise AuditError(f"the trail on the volume cannot be archived: {error.errors()[0]['msg']}") from None


def continued(entries: Iterable[TrailEntry], last: AuditHead | None, where: str) -> Iterator[TrailEntry]:
    """Yield entries that continue a chain.

    Raises ArchiveError at the first that does not. Without `last`, the first entry may be any: retention deletes the
    oldest entries of a volume.
    """
    for entry in entries:
        broken = last is not None and (entry.number <= last.number or entry.previous != last.hash)
        if broken or not entry.intact or (entry.number == 1 and entry.previous != FIRST_LINK):
            after = "" if last is None else f", or it does not follow entry {last.number}"
            raise ArchiveError(f"{where}: entry {entry.number} was altered{after}")
        last = AuditHead(entry.number, entry.hash)
        yield entry


def read_archive(file: Path) -> list[TrailEntry]:
    """Return the verified entries of an archive. Raises ArchiveError."""
    try:
        with file.open("rb") as source:
            return list(continued(_lines(source, file), None, str(file)))
    except OSError as error:
        raise ArchiveError(f"{file}: {error.strerror}") from error


def is_cut_off(file: Path) -> bool:
    """Return True if the last line of an archive is incomplete.

    `read_archive` leaves it out. Raises ArchiveError.
    """
    try:
        with file.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(max(0, size - 1))
            return size > 0 and source.read(1) != b"\n"
    except OSError as error:
        raise ArchiveError(f"{file}: {error.strerror}") from error


def _lines(source: BinaryIO, file: Path) -> Iterator[TrailEntry]:
    for number, line in enumerate(source, start=1):
        if not line.endswith(b"\n"):
            return  # an interrupted write, which the next one replaces
        try:
            yield TrailEntry.model_validate_json(line)
        except ValidationError:
            raise ArchiveError(f"{file}: line {number} is not an entry of a trail") from None


def missing_heads(entries: Iterable[TrailEntry], published: Iterable[AuditHead]) -> list[str]:
    """Return why published heads do not belong to an archive, empty if all do.

    Older ones cannot be checked.
    """
    by_number = {entry.number: entry.hash for entry in entries}
    first, last = min(by_number, default=1), max(by_number, default=0)
    problems = []
    for head in sorted(published, key=lambda head: head.number):
        if head.number > last:
            problems.append(f"outcome {head.number} was published, but the archive ends at {last}")
        elif head.number >= first and by_number.get(head.number) != head.hash:
            problems.append(f"outcome {head.number} was published with hash {head.hash}, the archive has another one")
    return problems


def append_to_archive(folder: Path, fetch: Callable[[int], TrailPage]) -> Archived:
    """Append what a trail has after the end of its file in a folder.

    `fetch` returns the next entries after a number, none at the end. Raises ArchiveError, and what `fetch` raises.
    """
    first = fetch(0)
    file = folder / f"{first.trail}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = read_archive(file) if file.exists() else []
        last = AuditHead(known[-1].number, known[-1].hash) if known else None
        added = 0
        with file.open("r+b" if file.exists() else "x+b") as out:
            out.seek(sum(len(_line(entry)) for entry in known))
            page = first if last is None else fetch(last.number)
            while page.entries:
                if page.trail != first.trail:
                    raise ArchiveError(f"{file}: the miner has another volume now: run the command again")
                for entry in continued(page.entries, last, str(file)):
                    out.write(_line(entry))
                    last, added = AuditHead(entry.number, entry.hash), added + 1
                if page.entries[-1].number >= page.last:
                    break
                page = fetch(page.entries[-1].number)
            out.truncate()
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise ArchiveError(f"{file}: {error.strerror}") from error
    return Archived(file, 0 if last is None else last.number, added)


def _line(entry: TrailEntry) -> bytes:
    return entry.model_dump_json().encode() + b"\n"
