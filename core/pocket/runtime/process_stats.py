"""How a process is: memory, tasks, and how late its event loop is."""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VERSION: Final = "0.1.0"
_STATM: Final = Path("/proc/self/statm")
_TICK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """At one moment; `loop_lag_seconds` is the worst delay of a timer since the last look."""

    loop_lag_seconds: float
    resident_bytes: int
    tasks: int
    threads: int


class LoopLagMonitor:
    """Feels the event loop's; whoever takes the figures begins a new period."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._worst = 0.0

    async def run(self) -> None:
        """For ever: a timer that comes late says that something kept the loop busy."""
        while True:
            due = self._clock() + _TICK_SECONDS
            await self._sleep(_TICK_SECONDS)
            self._worst = max(self._worst, self._clock() - due)

    def take(self) -> ProcessStats:
        """The figures since the last call."""
        worst, self._worst = self._worst, 0.0
        return ProcessStats(worst, resident_bytes(), len(asyncio.all_tasks()), threading.active_count())


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
