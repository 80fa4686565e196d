"""Limits of what a life may take."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from simulated.loop import PROCESS, Stuck

_MOST_CPU_SECONDS = 30.0  # ten times what a life takes


@contextlib.contextmanager
def limited(wrong: Callable[[str], None]) -> Iterator[None]:
    """Interrupt a process that blocks its event loop for too long, and record it."""

    def late(_: int, frame: FrameType | None) -> None:
        where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "?"
        wrong(f"{PROCESS.get()} holds its event loop at {where}")
        raise Stuck("the event loop was held")

    former = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, _MOST_CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)
