"""A miner's volume: its lock, and the files below its folder (docs/fragile/volume.md)."""

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coordination.file_lock import FileLock, OwnedElsewhere
from miner import metrics
from miner.audit import Audit
from miner.damage import set_damaged_aside
from miner.dead_letters import DeadLetters
from miner.mirror import Mirror
from miner.reserve import Reserve
from shannon.errors import ConfigurationError
from shannon.program import require_writable

_LOG = logging.getLogger("miner.volume")


@dataclass(frozen=True, slots=True)
class Volume:
    """What is kept on a volume that is locked and was looked at; `member` is its name among those of other miners."""

    member: str
    mirror: Mirror
    audit: Audit
    dead_letters: DeadLetters
    reserve: Reserve


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own a miner's folder; raises ConfigurationError where another process has it or nobody may write there."""
    require_writable("miner", folder)
    lock = FileLock(folder / "miner.lock")
    try:
        lock.acquire()
    except OwnedElsewhere as error:
        raise ConfigurationError(f"miner: {error}") from error
    try:
        yield
    finally:
        lock.release()


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


@contextlib.asynccontextmanager
async def opened(folder: Path, unique: Callable[[], str] = lambda: secrets.token_hex(16)) -> AsyncIterator[Volume]:
    """Open the files of a locked folder. Damaged ones are set aside first, in a thread: there may be gigabytes."""
    for path in await asyncio.to_thread(set_damaged_aside, folder):
        metrics.ERRORS.labels("volume").inc()
        _LOG.error("a file was damaged and is %s now: what is needed of it is read again", path)
    with Mirror(folder / "mirror") as mirror:
        audit = Audit(folder / "audit.sqlite")
        try:
            reserve = Reserve(folder)
            await asyncio.to_thread(reserve.hold)
            member = member_name(folder, lambda: unique()[:16])
            yield Volume(member, mirror, audit, DeadLetters(folder / "refused.sqlite"), reserve)
        finally:
            audit.close()
