"""The load of a process."""

from collections.abc import Callable
from typing import Final

_PERIOD_SECONDS: Final = 0.1


class CpuUtilization:
    """The process's share of one CPU over the last tenth of a second."""

    def __init__(self, cpu: Callable[[], float]) -> None:
        self._cpu = cpu
        self._since = 0.0
        self._used = 0.0
        self._last = 0.0

    def read(self, now: float) -> float:
        """Return the share as of `now`, seconds of a monotonic clock."""
        elapsed = now - self._since
        if elapsed >= _PERIOD_SECONDS:
            used = self._cpu()
            self._last, self._used, self._since = (used - self._used) / elapsed, used, now
        return self._last
