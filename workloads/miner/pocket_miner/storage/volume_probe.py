"""Notice a volume that hangs.

A detached disk or a network file system without its server raises no error. Then no claim or proof is made here,
although this process renews its Leases. Another miner must take the shards over.
"""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.runtime.ticks import sleep_to_tick
from pocket_miner import miner_metrics
from pocket_miner.storage.audit import Audit

_LOG: FilteringBoundLogger = structlog.get_logger()
_PAUSE_SECONDS: Final = 2.0


def probe(folder: Path, audit: Audit) -> None:
    """Write, sync and read once, as claims and proofs do. An error is an answer too."""
    with contextlib.suppress(OSError), (folder / ".probe").open("wb") as file:
        file.write(b"\0")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(sqlite3.Error, OSError):
        audit.last_number()


class VolumeProbe:
    """Probes a volume again and again, in a thread of its own: all others may hang.

    `limit_seconds` is how long a probe may last. A volume that hangs for longer than a Lease lasts is as lost as a
    process that has ended.
    """

    def __init__(
        self, folder: Path, audit: Audit, limit_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._audit = audit
        self._limit_seconds = limit_seconds
        self._clock = clock
        self._begun: float | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="volume probe")

    @property
    def hangs(self) -> bool:
        """Return True while a probe has lasted longer than the limit."""
        return self._begun is not None and self._clock() - self._begun > self._limit_seconds

    @property
    def problem(self) -> str:
        """Return the problem and its remedy, empty without a problem."""
        if not self.hangs:
            return ""
        return (
            f"{self._folder} has not answered for {self._limit_seconds:g} s: no claim or proof is sent from it, and "
            "another miner takes over if there is one. Check the volume and its node."
        )

    async def run(self) -> None:
        """Probe forever."""
        while True:
            self._begun = self._clock()
            work = asyncio.get_running_loop().run_in_executor(self._thread, probe, self._folder, self._audit)
            done, _ = await asyncio.wait([work], timeout=self._limit_seconds)
            if not done:
                miner_metrics.ERRORS.labels("volume").inc()
                miner_metrics.VOLUME_HANGS.set(1)
                _LOG.error("volume hangs, another miner may take over", folder=str(self._folder))
                await asyncio.wait([work])
                miner_metrics.VOLUME_HANGS.set(0)
                _LOG.warning("volume answers again", folder=str(self._folder))
            self._begun = None
            await work
            await sleep_to_tick(_PAUSE_SECONDS)
