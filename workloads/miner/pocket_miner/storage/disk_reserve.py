"""Reserve space on the volume for the seals and outcomes of open sessions.

A full volume must not cost a claim. The reserve is a file of zeros that is deleted when the volume is full. The freed
space takes seals, signed transactions and outcomes. The reserve is created again when there is space.
"""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import PocketError

_LOG: FilteringBoundLogger = structlog.get_logger()
_BYTES: Final = 64 * 1024 * 1024
_NEARLY_FULL: Final = 8 * 1024 * 1024
_CREATE_FACTOR: Final = 2  # times its size that must be free before the reserve is created
LOW_SHARE: Final = 0.1
"""Share of free space below which the volume is filling up."""


@dataclass(frozen=True, slots=True)
class Space:
    """The space of a volume in bytes."""

    total: int
    free: int
    reserved: int

    @property
    def low(self) -> bool:
        """Return True if the volume is filling up or its reserve is in use."""
        return self.free < LOW_SHARE * self.total or not self.reserved

    @property
    def problem(self) -> str:
        """Return the problem and its remedy, empty without a problem."""
        if not self.low:
            return ""
        used = "" if self.reserved else ", the reserve for seals is in use"
        return f"the volume has {self.free >> 20} of {self.total >> 20} MiB free{used}: enlarge it (spec.miner.storage)"


class VolumeFull(PocketError):
    """The volume has no space for relays: the rest is reserved for seals and outcomes."""


@dataclass(slots=True)
class Reserve:
    """The reserve of one volume.

    While it is in use, `full` is set and no relays are stored.
    """

    folder: Path
    size: int = _BYTES
    full: bool = False

    @property
    def path(self) -> Path:
        """Return the path of the reserve."""
        return self.folder / "reserve"

    def space(self) -> Space:
        """Measure the volume.

        Raises OSError.
        """
        usage = shutil.disk_usage(self.folder)
        reserved = self.path.stat().st_size if self.path.exists() else 0
        return Space(usage.total, usage.free, reserved)

    def hold(self) -> bool:
        """Create the reserve if there is space for it.

        Returns True if it exists. Never raises.
        """
        try:
            space = self.space()
            if not space.reserved and space.free < _CREATE_FACTOR * self.size:
                return False
            if not space.reserved:
                with self.path.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, self.size)
        except OSError as error:
            _LOG.warning("cannot reserve space for seals", error=error)
            with contextlib.suppress(OSError):
                self.path.unlink()
            return False
        self.full = False
        return True

    def maintain(self) -> Space | None:
        """Release the reserve if the volume is full, create it again if it is not.

        Returns the space of the volume, None if it cannot be measured.
        """
        try:
            space = self.space()
            if space.reserved and space.free < _NEARLY_FULL:
                self.release()
            elif not space.reserved:
                self.hold()
            return self.space()
        except OSError as error:
            _LOG.warning("cannot measure the volume", error=error)
            return None

    def release(self) -> bool:
        """Delete the reserve.

        Returns True if there was one. Never raises.
        """
        self.full = True
        try:
            self.path.unlink()
        except OSError:
            return False
        _LOG.error("volume full, using the space reserved for seals: free up or enlarge the volume")
        return True
