"""Decide if a silent worker is slow or hangs. Pure: the clock is an argument."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

REPORT_SECONDS: Final = 1.0
"""Interval of the workers' reports.

They come from the event loop, so a blocked or stopped worker reports nothing.
"""
POLL_SECONDS: Final = 1.0


class WorkerState(StrEnum):
    """State of a worker as its supervisor sees it."""

    STARTING = "starting"
    RESPONDING = "responding"
    SILENT = "silent"
    """Silent for longer than a busy event loop explains. It is shown and left alone."""
    HUNG = "hung"
    """Silent for so long that it is killed."""


@dataclass(frozen=True, slots=True)
class LivenessDeadlines:
    """Seconds without a report until a worker is shown as silent, and killed.

    `start` applies until its first report.
    """

    silent: float
    hung: float
    start: float = 120.0

    @classmethod
    def of(cls, hung_seconds: float) -> "LivenessDeadlines":
        """Return the deadlines for a configured number of seconds."""
        return cls(silent=max(2.5 * REPORT_SECONDS, 0.3 * hung_seconds), hung=hung_seconds)


class SilenceTimer:
    """Measures how long a worker has been silent while its supervisor was running.

    Time in which the supervisor itself did not run (a suspended machine, a frozen pod) proves nothing about the
    worker: at most a second of each gap between two polls counts.
    """

    def __init__(self, now: float) -> None:
        self.reported = False
        self._polled_at = now
        self._seconds = 0.0

    def reset(self) -> None:
        """Note a report."""
        self.reported = True
        self._seconds = 0.0

    def poll(self, now: float) -> float:
        """Return the seconds of silence. It is called every POLL_SECONDS."""
        self._seconds += min(max(0.0, now - self._polled_at), POLL_SECONDS)
        self._polled_at = now
        return self._seconds


def assess(silent_seconds: float, deadlines: LivenessDeadlines, *, reported: bool) -> WorkerState:
    """Return the state of a worker.

    A worker that has not reported yet imports modules and waits for the processor first.
    """
    if not reported:
        return WorkerState.HUNG if silent_seconds >= deadlines.start else WorkerState.STARTING
    if silent_seconds >= deadlines.hung:
        return WorkerState.HUNG
    return WorkerState.SILENT if silent_seconds >= deadlines.silent else WorkerState.RESPONDING
