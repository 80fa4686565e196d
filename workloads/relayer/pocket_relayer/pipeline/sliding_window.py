"""Counts of the last five minutes, to compare a canary with other relayers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pocket_relayer.limits.rejection import Rejected, RejectionReason

_BUCKETS: Final = 30
_BUCKET_SECONDS: Final = 10.0


@dataclass(slots=True)
class WindowTotals:
    """Counts of relays.

    `seconds` is the total duration of the `timed` ones among the served.
    """

    served: int = 0
    failed: int = 0
    timed: int = 0
    seconds: float = 0.0

    def __add__(self, other: "WindowTotals") -> "WindowTotals":
        return WindowTotals(
            self.served + other.served,
            self.failed + other.failed,
            self.timed + other.timed,
            self.seconds + other.seconds,
        )


def is_our_failure(rejected: Rejected) -> bool:
    """Return True if a rejection is the fault of the relayer or its backend.

    A draining relayer rejects on purpose.
    """
    return rejected.reason.status >= 500 and rejected.reason is not RejectionReason.DRAINING


class SlidingWindowStats:
    """Ring of ten-second buckets. A relay costs one reading of the clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[int, WindowTotals] = {}

    def _bucket(self) -> WindowTotals:
        number = int(self._clock() / _BUCKET_SECONDS)
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = WindowTotals()
            for old in [n for n in self._buckets if n <= number - _BUCKETS]:
                del self._buckets[old]
        return bucket

    def served(self, seconds: float | None) -> None:
        """Count a relay, or a response over a WebSocket without a duration."""
        bucket = self._bucket()
        bucket.served += 1
        if seconds is not None:
            bucket.timed += 1
            bucket.seconds += seconds

    def failed(self) -> None:
        """Count a rejection that is our own fault."""
        self._bucket().failed += 1

    def totals(self) -> dict[str, float]:
        """Return the totals of the last five minutes."""
        oldest = int(self._clock() / _BUCKET_SECONDS) - _BUCKETS
        total = sum((f for n, f in self._buckets.items() if n > oldest), WindowTotals())
        return {
            "served": total.served, "failed": total.failed, "timed": total.timed, "seconds": round(total.seconds, 3),
        }  # fmt: skip
