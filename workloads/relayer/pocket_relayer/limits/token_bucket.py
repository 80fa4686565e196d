"""Rate limits with a burst."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenBucket:
    """Token bucket, full at first, that grows by `rate` a second up to `burst`."""

    rate: float
    burst: float
    _left: float = field(init=False)
    _at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._left = self.burst

    def available(self, now: float) -> float:
        """Return the tokens at `now` (seconds of one clock), negative after an overdraft."""
        self._left = min(self.burst, self._left + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        return self._left

    def try_take(self, number: float, now: float) -> bool:
        """Take tokens if there are enough, and return True if there were."""
        if self.available(now) < number:
            return False
        self._left -= number
        return True

    def take(self, number: float, now: float) -> bool:
        """Take tokens even if there are not enough, and return True if there were.

        The overdraft keeps a flood limited for as long as it lasts.
        """
        self._left = self.available(now) - number
        return self._left >= 0

    def add(self, number: float) -> None:
        """Add tokens at once. Those beyond the burst are lost when tokens are taken next."""
        self._left += number
