"""A miner's volume: its lock, and the files below its folder (docs/fragile/volume.md)."""

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from pocket.coordination.file_lock import FileLock, LockHeld
from pocket.errors import ConfigurationError
from pocket.runtime.program import require_writable
from pocket_miner import miner_metrics
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import quarantine_corrupted
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.storage.disk_reserve import Reserve
from pocket_miner.storage.relay_store import RelayStore

_LOG = logging.getLogger("pocket_miner.storage.volume")


@dataclass(frozen=True, slots=True)
class Volume:
    """What is kept on a volume that is locked and was looked at; `member` is its name among those of other miners."""

    member: str
    mirror: RelayStore
    audit: Audit
    dead_letters: DeadLetters
    reserve: Reserve
    read_only: bool = False
    """Whether it takes no writes: what is sealed on it is claimed and proven, nothing else is done."""

    def close(self) -> None:
        """Close its files."""
        self.mirror.close()
        self.audit.close()


_BOOKS = "audit.sqlite"


@contextlib.asynccontextmanager
async def owned(folder: Path) -> AsyncIterator[None]:
    """Own a miner's folder while the context is open; raises as `lock`."""
    held = await asyncio.to_thread(lock, folder)
    try:
        yield
    finally:
        held.release()


def takes_writes(folder: Path) -> bool:
    """Return whether a folder can be written to; a full one can."""
    try:
        require_writable("miner", folder)
    except ConfigurationError:
        return False
    return True


def lock(folder: Path) -> FileLock:
    """Take a miner's folder; raises ConfigurationError where another process has it or nobody may write there.

    One that was written to and takes no writes any more can be taken: what is sealed on it has windows.
    """
    read_only = (folder / _BOOKS).is_file() and not takes_writes(folder)
    if not read_only:
        require_writable("miner", folder)
    taken = FileLock(folder / "miner.lock")
    try:
        taken.acquire(read_only=read_only)
    except FileNotFoundError as error:
        _LOG.warning("the read-only volume has no lock: %s", error)
    except LockHeld as error:
        raise ConfigurationError(f"miner: {error}") from error
    return taken


def member_name(folder: Path, make: Callable[[], str] = lambda: secrets.token_hex(8)) -> str:
    """Return the name of a locked volume, which is made at the first call and stays.

    The file names its own inode, so a copy of the volume is another one: two miners that run must not share a name.
    Where it cannot be written (a full volume) the name holds for this process only, and after a restart the miner waits
    until its own Leases have run out.
    """
    path = folder / "member.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["inode"] == path.stat().st_ino and re.fullmatch("[0-9a-f]{16}", found["name"]):
            return str(found["name"])
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
        _LOG.warning("the volume took no member name: %s. Free space on it.", error)
    return name


def _opened(folder: Path, unique: Callable[[], str]) -> Volume:
    read_only = not takes_writes(folder)
    for path in [] if read_only else quarantine_corrupted(folder):
        miner_metrics.ERRORS.labels("volume").inc()
        _LOG.error("a file was damaged and is %s now: what is needed of it is read again", path)
    reserve = Reserve(folder, full=read_only)
    if not read_only:
        reserve.hold()
    mirror = RelayStore(folder / "mirror", read_only=read_only)
    try:
        audit = Audit(folder / _BOOKS, read_only=read_only)
    except BaseException:
        mirror.close()
        raise
    member = member_name(folder, lambda: unique()[:16])
    return Volume(member, mirror, audit, DeadLetters(folder / "refused.sqlite"), reserve, read_only)


@contextlib.asynccontextmanager
async def opened(folder: Path, unique: Callable[[], str] = lambda: secrets.token_hex(16)) -> AsyncIterator[Volume]:
    """Open the files of a locked folder, in a thread: there may be gigabytes. Damaged ones are set aside first."""
    volume = await asyncio.to_thread(_opened, folder, unique)
    try:
        yield volume
    finally:
        await asyncio.to_thread(volume.close)
