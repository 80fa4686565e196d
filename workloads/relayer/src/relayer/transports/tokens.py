"""A rate with a burst."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Tokens:
    """Grows by `rate` a second up to `burst`."""

    rate: float
    burst: float
    left: float = field(init=False)
    _at: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.burst

    def take(self, number: float, now: float) -> bool:
        """Whether there were so many; what was not there is taken, too, so that a flood stays one."""
        if now > self._at:
            self.left = min(self.burst, self.left + (now - self._at) * self.rate)
            self._at = now
        self.left -= number
        return self.left >= 0

    def add(self, number: float) -> None:
        """Allow more at once, up to the burst."""
        self.left = min(self.burst, self.left + number)
