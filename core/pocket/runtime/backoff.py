"""Pauses between the attempts of everything that is retried."""

import random
from dataclasses import dataclass

_MOST_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing pauses with jitter, in seconds.

    Callers that fail together do not retry together.
    """

    first: float = 0.2
    longest: float = 5.0

    def pause(self, failures: int, rng: random.Random) -> float:
        """Return the pause in seconds after `failures` failures in a row, at least one."""
        doubled = self.first * 2.0 ** min(max(0, failures - 1), _MOST_DOUBLINGS)
        return float(min(self.longest, doubled) * rng.uniform(0.5, 1.0))
