"""Do seldom what need not be done often while a worker serves nothing."""

from typing import Final

RESTING: Final = 5
"""Calls with the same state of which one is due."""


class RestingPace:
    """Decides which of periodic calls are due.

    Those are the ones after a change, and every fifth one without.
    """

    def __init__(self) -> None:
        self._state: object = self
        self._rested = 0

    def is_due(self, state: object) -> bool:
        """Return True if the state changed, or after four calls without that.

        The four calls are those since the last one that was due.
        """
        self._rested = (self._rested + 1) % RESTING if state == self._state else 0
        self._state = state
        return self._rested == 0
