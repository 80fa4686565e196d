"""Decide whether a worker that says nothing is slow or hangs: pure, but for the clock that is passed in."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

REPORT_SECONDS: Final = 1.0
"""Workers report this often, from their event loop: one that is blocked or stopped reports nothing."""
LOOK_SECONDS: Final = 0.5
_LONGEST_LOOK_SECONDS: Final = 2 * LOOK_SECONDS


class WorkerState(StrEnum):
    """What is known of a worker."""

    STARTING = "starting"
    RESPONDING = "responding"
    SILENT = "silent"
    """For longer than a busy event loop explains: shown, and left alone."""
    HUNG = "hung"
    """For so long that it is killed."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds without a report: until it is shown, and until the worker is killed; `start` until the first one."""

    silent: float
    hung: float
    start: float = 120.0

    @classmethod
    def of(cls, hung_seconds: float) -> "Patience":
        """Return the deadlines that go with a configured one."""
        return cls(silent=max(2.5 * REPORT_SECONDS, 0.3 * hung_seconds), hung=hung_seconds)


class Silence:
    """How long a worker has said nothing, in seconds during which somebody listened.

    Time in which the listener itself did not run (a machine that was suspended, a pod that was frozen) says nothing
    about the worker: of each gap between two looks at most a second counts.
    """

    def __init__(self, now: float) -> None:
        self.reported = False
        self._looked_at = now
        self._seconds = 0.0

    def heard(self) -> None:
        """Note a report."""
        self.reported = True
        self._seconds = 0.0

    def look(self, now: float) -> float:
        """Return the seconds of silence; called every LOOK_SECONDS."""
        self._seconds += min(max(0.0, now - self._looked_at), _LONGEST_LOOK_SECONDS)
        self._looked_at = now
        return self._seconds


def judge(silent_seconds: float, patience: Patience, *, reported: bool) -> WorkerState:
    """Return the state of a worker; one that has not reported yet imports and waits for the processor first."""
    if not reported:
        return WorkerState.HUNG if silent_seconds >= patience.start else WorkerState.STARTING
    if silent_seconds >= patience.hung:
        return WorkerState.HUNG
    return WorkerState.SILENT if silent_seconds >= patience.silent else WorkerState.RESPONDING
