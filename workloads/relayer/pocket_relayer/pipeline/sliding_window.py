"""What became of the relays of the last five minutes: by this a canary is compared with the other relayers."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from pocket_relayer.rejection import Rejected, RejectionReason

_BUCKETS: Final = 30
_BUCKET_SECONDS: Final = 10.0


@dataclass(slots=True)
class WindowTotals:
    """Counts; `seconds` is the sum over the `timed` of the served."""

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
    """Whether a refusal is the relayer's or its backend's fault; who drains refuses on purpose."""
    return rejected.reason.status >= 500 and rejected.reason is not RejectionReason.DRAINING


class SlidingWindowStats:
    """A ring of ten-second buckets; a relay costs one look at the clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[int, WindowTotals] = {}

    def _bucket(self) -> WindowTotals:
        number = int(self._clock() / _BUCKET_SECONDS)
        found = self._buckets.get(number)
        if found is None:
            found = self._buckets[number] = WindowTotals()
            for old in [n for n in self._buckets if n <= number - _BUCKETS]:
                del self._buckets[old]
        return found

    def served(self, seconds: float | None) -> None:
        """A relay, or an answer over a WebSocket (without a time of its own)."""
        bucket = self._bucket()
        bucket.served += 1
        if seconds is not None:
            bucket.timed += 1
            bucket.seconds += seconds

    def failed(self) -> None:
        """A refusal that is our own fault."""
        self._bucket().failed += 1

    def figures(self) -> dict[str, float]:
        """The sum of the last five minutes."""
        oldest = int(self._clock() / _BUCKET_SECONDS) - _BUCKETS
        whole = sum((f for n, f in self._buckets.items() if n > oldest), WindowTotals())
        return asdict(whole) | {"seconds": round(whole.seconds, 3)}
