"""Space on the volume that is kept for when it is full: for the seals and the books of the sessions that are open.

A full volume must not cost a claim. The reserve is a file of zeros, which is removed when a write finds no space; what
it frees takes seals, signed transactions and outcomes. It is made again when there is space.
"""

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pocket.errors import PocketError

_LOG = logging.getLogger("pocket_miner.storage.disk_reserve")
_BYTES: Final = 64 * 1024 * 1024
_NEARLY_FULL: Final = 8 * 1024 * 1024
_ROOM: Final = 2  # times its size that must be free before the reserve is made
LOW_SHARE: Final = 0.1
"""Of the volume: below that much free space it is filling up."""


@dataclass(frozen=True, slots=True)
class Space:
    """What a volume has, bytes."""

    total: int
    free: int
    reserved: int

    @property
    def low(self) -> bool:
        """Whether it is filling up, or its reserve is used."""
        return self.free < LOW_SHARE * self.total or not self.reserved

    @property
    def problem(self) -> str:
        """Return what to do about it; empty where nothing is wrong."""
        if not self.low:
            return ""
        used = "" if self.reserved else ", the reserve for seals is in use"
        return f"the volume has {self.free >> 20} of {self.total >> 20} MiB free{used}: enlarge it (spec.miner.storage)"


class VolumeFull(PocketError):
    """The volume has no space for relays: what is left of it is for seals and books."""


@dataclass(slots=True)
class Reserve:
    """The reserve of one volume. While it is in use, `full` is set and no relays are stored."""

    folder: Path
    size: int = _BYTES
    full: bool = False

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "reserve"

    def space(self) -> Space:
        """Measure the volume; raises OSError."""
        usage = shutil.disk_usage(self.folder)
        held = self.path.stat().st_size if self.path.exists() else 0
        return Space(usage.total, usage.free, held)

    def hold(self) -> bool:
        """Make the reserve where there is space for it; return whether it is there. Never raises."""
        try:
            space = self.space()
            if not space.reserved and space.free < _ROOM * self.size:
                return False
            if not space.reserved:
                with self.path.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, self.size)
        except OSError as error:
            _LOG.warning("cannot reserve space for seals: %s", error)
            self.path.unlink(missing_ok=True)
            return False
        self.full = False
        return True

    def maintain(self) -> Space | None:
        """Free the reserve where the volume is full, make it again where it is not.

        Returns None where the volume cannot be measured.
        """
        try:
            space = self.space()
            if space.reserved and space.free < _NEARLY_FULL:
                self.release()
            elif not space.reserved:
                self.hold()
            return self.space()
        except OSError as error:
            _LOG.warning("cannot measure the volume: %s", error)
            return None

    def release(self) -> bool:
        """Free the reserved space; return whether there was any. Never raises."""
        self.full = True
        try:
            self.path.unlink()
        except OSError:
            return False
        _LOG.error("the volume is full: the space reserved for seals is in use now. Free up or enlarge the volume.")
        return True
