"""Count the generations of a pool's connections.

Those of an earlier one are opened again when they are used next.
"""

import time
from collections.abc import Callable
from typing import Final

_RENEWAL_SECONDS: Final = 1.0


class Generation:
    """The generation of a pool's connections.

    It advances when they lead to a demoted instance. A Service that follows a fail-over routes new connections to the
    new primary, while open connections stay with the former one. That one answers reads, perhaps outdated ones for
    ever, and rejects writes. So one rejected write condemns all connections of the pool, at most once a second: where
    the address itself is a replica's, new connections do not help.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.number = 0
        self.losses = 0
        """How often an open connection was found closed or led to a demoted instance.

        It is all that shows a restart or a fail-over of a Redis that refuses INFO.
        """
        self._known_losses = 0
        self._clock = clock
        self._raised_at = float("-inf")

    def condemn(self, number: int) -> bool:
        """Condemn the connections of a generation.

        Returns True if the next connection belongs to a newer generation.
        """
        if number < self.number:
            return True
        now = self._clock()
        if now - self._raised_at < _RENEWAL_SECONDS:
            return False
        self.number, self._raised_at = self.number + 1, now
        self.losses += 1
        return True

    def renew(self) -> None:
        """Have every connection opened again, with the present login."""
        self.number += 1

    def lost(self, number: int) -> None:
        """Note that an open connection of a generation was found closed.

        Only one of the present generation counts.
        """
        self.losses += number == self.number

    def renew_after_losses(self) -> None:
        """Have every connection opened again if one was lost.

        A restart closes them all, and counts once.
        """
        if self.losses != self._known_losses:
            self._known_losses = self.losses
            self.renew()
