"""A miner's volume: its lock, and the files below its folder (docs/fragile/volume.md)."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from coordination.file_lock import FileLock, OwnedElsewhere
from miner import metrics
from miner.audit import Audit
from miner.damage import set_damaged_aside
from miner.dead_letters import DeadLetters
from miner.mirror import Mirror
from shannon.errors import ConfigurationError
from shannon.program import require_writable

_LOG = logging.getLogger("miner.volume")


@dataclass(frozen=True, slots=True)
class Volume:
    """What is kept on a volume that is locked and was looked at."""

    mirror: Mirror
    audit: Audit
    dead_letters: DeadLetters


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


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Volume]:
    """Open the files of a locked folder. Damaged ones are set aside first, in a thread: there may be gigabytes."""
    for path in await asyncio.to_thread(set_damaged_aside, folder):
        metrics.ERRORS.labels("volume").inc()
        _LOG.error("a file was damaged and is %s now: what is needed of it is read again", path)
    with Mirror(folder / "mirror") as mirror:
        audit = Audit(folder / "audit.sqlite")
        try:
            yield Volume(mirror, audit, DeadLetters(folder / "refused.sqlite"))
        finally:
            audit.close()
