"""Lock a miner's volume and open its files (docs/fragile/volume.md)."""

import asyncio
import contextlib
import json
import os
import re
import secrets
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.coordination.file_lock import FileLock, LockHeld
from pocket.errors import ConfigurationError
from pocket.runtime.program import require_writable
from pocket_miner import miner_metrics
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import quarantine, quarantine_corrupted
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.storage.disk_reserve import Reserve
from pocket_miner.storage.relay_store import RelayStore

_LOG: FilteringBoundLogger = structlog.get_logger()
_RETRY_SECONDS: Final = 1.0
_PATIENT_ATTEMPTS: Final = 3  # to open a file whose error may pass


@dataclass(frozen=True, slots=True)
class Volume:
    """The stores of a locked and checked volume.

    `member` is its name in the group of miners.
    """

    member: str
    relay_store: RelayStore
    audit: Audit
    dead_letters: DeadLetters
    reserve: Reserve
    audit_reader: Audit
    """A second connection, so that status queries never make mining wait."""
    read_only: bool = False
    """True if it cannot be written: only sealed sessions are claimed and proven."""

    def close(self) -> None:
        """Close the files."""
        self.relay_store.close()
        self.audit_reader.close()
        self.audit.close()


_AUDIT = "audit.sqlite"


@contextlib.asynccontextmanager
async def owned(folder: Path) -> AsyncIterator[None]:
    """Hold the lock of a miner's folder while the context is open.

    Raises as `lock`.
    """
    acquired = await asyncio.to_thread(lock, folder)
    try:
        yield
    finally:
        acquired.release()


def takes_writes(folder: Path) -> bool:
    """Return True if a folder is writable, even if it is full."""
    try:
        require_writable("miner", folder)
    except ConfigurationError:
        return False
    return True


def lock(folder: Path) -> FileLock:
    """Lock a miner's folder.

    A folder that holds a miner's data can be locked even if it is read-only now, because sessions that are sealed on it
    must be claimed in time. Raises ConfigurationError if another process holds the lock or an empty folder is not
    writable.
    """
    read_only = (folder / _AUDIT).is_file() and not takes_writes(folder)
    if not read_only:
        require_writable("miner", folder)
    file_lock = FileLock(folder / "miner.lock")
    try:
        file_lock.acquire(read_only=read_only)
    except FileNotFoundError as error:
        _LOG.warning("read-only volume used without a lock file", error=error)
    except LockHeld as error:
        raise ConfigurationError(f"miner: {error}") from error
    return file_lock


def member_name(folder: Path, make: Callable[[], str] = lambda: secrets.token_hex(8)) -> str:
    """Return the permanent name of a locked volume, creating it at the first call.

    The file holds its own inode number, so that a copy of the volume gets another name: running miners must not share
    one. If the file cannot be written (a full volume), the name is valid for this process only, and after a restart the
    miner waits until its own Leases expire.
    """
    path = folder / "member.json"
    try:
        stored = json.loads(path.read_text("utf-8"))
        if stored["inode"] == path.stat().st_ino and re.fullmatch("[0-9a-f]{16}", stored["name"]):
            return str(stored["name"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    name = make()
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".member-", delete=False, encoding="utf-8") as draft:
            json.dump({"name": name, "inode": os.fstat(draft.fileno()).st_ino}, draft)
            draft.flush()
            os.fsync(draft.fileno())
        Path(draft.name).replace(path)
    except OSError as error:
        _LOG.warning("member name not saved to the volume: free up space on it", error=error)
    return name


def _quarantined(paths: Iterable[Path]) -> None:
    for path in paths:
        miner_metrics.ERRORS.labels("volume").inc()
        _LOG.error("file moved away, its contents are rebuilt from Redis and peers", moved_to=str(path))


def _audit(folder: Path, *, read_only: bool, give_up: bool) -> Audit:
    """Open the audit trail.

    If `give_up`, one that cannot be opened is quarantined, provided that the volume takes another one.
    """
    path = folder / _AUDIT
    try:
        return Audit(path, read_only=read_only)
    except (sqlite3.Error, OSError):
        if read_only or not give_up:
            raise
        with tempfile.TemporaryDirectory(dir=folder, prefix=".trial-") as trial:
            Audit(Path(trial) / _AUDIT).close()
        _quarantined([quarantine(path)])
        return Audit(path)


def _opened(folder: Path, unique: Callable[[], str], *, give_up: bool) -> Volume:
    read_only = not takes_writes(folder)
    _quarantined([] if read_only else quarantine_corrupted(folder))
    reserve = Reserve(folder, full=read_only)
    if not read_only:
        reserve.hold()
    relay_store = RelayStore(folder / "mirror", read_only=read_only)
    try:
        audit = _audit(folder, read_only=read_only, give_up=give_up)
        try:
            reader = Audit(folder / _AUDIT, read_only=True)
        except BaseException:
            audit.close()
            raise
    except BaseException:
        relay_store.close()
        raise
    member = member_name(folder, lambda: unique()[:16])
    return Volume(member, relay_store, audit, DeadLetters(folder / "refused.sqlite"), reserve, reader, read_only)


@contextlib.asynccontextmanager
async def opened(
    folder: Path,
    unique: Callable[[], str] = lambda: secrets.token_hex(16),
    on_problem: Callable[[str], None] = lambda problem: None,
    stop: asyncio.Event | None = None,
) -> AsyncIterator[Volume]:
    """Open the files of a locked folder after quarantining corrupt ones.

    It runs in a thread, because gigabytes may have to be checked. A volume that cannot be opened is tried again, and
    `on_problem` gets the reason each time, an empty text at last. Raises ConfigurationError if `stop` is set meanwhile.
    """
    attempts = 0
    while True:
        attempts += 1
        try:
            volume = await asyncio.to_thread(_opened, folder, unique, give_up=attempts > _PATIENT_ATTEMPTS)
            break
        except (sqlite3.Error, OSError) as error:
            miner_metrics.ERRORS.labels("volume").inc()
            _LOG.error("volume cannot be opened, retrying: check it and its node", folder=str(folder), error=error)
            problem = f"{folder} cannot be opened: {error}. Check the volume and its node."
            on_problem(problem)
            if stop is not None and stop.is_set():
                raise ConfigurationError(f"miner: {problem}") from error
        await asyncio.sleep(_RETRY_SECONDS)
    on_problem("")
    try:
        yield volume
    finally:
        await asyncio.to_thread(volume.close)
