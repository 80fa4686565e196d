"""Statistics of the process: memory, tasks and event-loop lag."""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pocket.runtime.ticks import next_tick, sleep_near_tick

_STATM: Final = "/proc/self/statm"
_TICK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """Statistics at one moment.

    `loop_lag_seconds` is the longest timer delay since the last call.
    """

    loop_lag_seconds: float
    resident_bytes: int
    tasks: int
    threads: int


class LoopLagMonitor:
    """Measures the lag of the event loop."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = sleep_near_tick,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._worst = 0.0

    async def run(self) -> None:
        """Measure for ever: a timer that fires late was delayed by a busy loop."""
        while True:
            now = self._clock()
            due = next_tick(now, _TICK_SECONDS)
            await self._sleep(due - now)
            self._worst = max(self._worst, self._clock() - due)

    def reset(self) -> ProcessStats:
        """Return the statistics since the last call and start a new period."""
        worst, self._worst = self._worst, 0.0
        return ProcessStats(worst, resident_bytes(), len(asyncio.all_tasks()), threading.active_count())


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes, 0 if unknown."""
    try:
        with open(_STATM, "rb", buffering=0) as file:  # noqa: PTH123 - a third of the time of Path.read_text
            return int(file.read(200).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
