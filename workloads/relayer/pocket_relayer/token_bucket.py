"""Rate limits with a burst."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenBucket:
    """Grow by `rate` tokens a second up to `burst`; a new bucket is full."""

    rate: float
    burst: float
    _left: float = field(init=False)
    _at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._left = self.burst

    def available(self, now: float) -> float:
        """Return the tokens at `now` (seconds of one clock); negative where more was taken than there was."""
        self._left = min(self.burst, self._left + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        return self._left

    def try_take(self, number: float, now: float) -> bool:
        """Take tokens only where there are so many; return whether there were."""
        if self.available(now) < number:
            return False
        self._left -= number
        return True

    def take(self, number: float, now: float) -> bool:
        """Take tokens also where there are not so many, so that a flood stays one; return whether there were."""
        self._left = self.available(now) - number
        return self._left >= 0

    def add(self, number: float) -> None:
        """Add tokens at once; those beyond the burst are lost when tokens are taken next."""
        self._left += number
