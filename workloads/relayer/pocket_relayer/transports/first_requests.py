"""Serve requests of connections without a served relay in turns.

Their rate is limited. Requests that are refused cost their sender nothing. Served as they arrive, those of a few
hundred connections would delay every relay. HTTP/2 limits its input as well (`FairInput`, `FrameBudget`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from pocket_relayer.limits.token_bucket import TokenBucket
from pocket_relayer.pipeline.fair_queue import MAX_WAIT_SECONDS, QUANTUM, FairQueue, busy
from pocket_relayer.transports.client_connections import Connection

_COST: Final = 2 * QUANTUM
"""Cost of a request with its response. One fits into an iteration of the event loop."""
BURST: Final = 16.0  # requests of one connection without waiting ...
PER_SECOND: Final = 4.0  # ... and later
_BYTES: Final = 128 * 1024  # of a body, for one quantum
_FRESH, _FREQUENT = "", "frequent"


class FirstRequests:
    """Turns of the requests that a connection sends before its first served relay."""

    def __init__(
        self,
        turns: FairQueue | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        burst: float = BURST,
    ) -> None:
        self.turns = turns or FairQueue(clock)
        self._clock = clock
        self._sleep = sleep
        self._burst = burst

    def take_free_turn(self, connection: Connection, size: int = 0) -> bool:
        """Count a request of `size` bytes. Returns True if it need not wait."""
        bucket = connection.first_requests
        if bucket is None:
            bucket = connection.first_requests = TokenBucket(PER_SECOND, self._burst)
        return bucket.take(1, self._clock()) and self.turns.take_free_turn(_COST + cost_of(size))

    async def turn(self, connection: Connection, size: int = 0) -> None:
        """Wait until a counted request may be served.

        Connections that exceed their rate share one flow of their address, so that they delay no other connection
        behind the same proxy. Raises Rejected if the turn would take too long.
        """
        bucket, flow = connection.first_requests, _FRESH
        missing = 0.0 if bucket is None else -bucket.available(self._clock())
        if missing > MAX_WAIT_SECONDS * PER_SECOND:
            raise busy()
        while missing > 0 and not connection.favoured:
            flow = _FREQUENT
            await self._sleep(min(1.0, missing) / PER_SECOND)
            missing -= 1.0
        await self.turns.turn(connection.memory.address, _COST + cost_of(size), flow)


def cost_of(size: int) -> float:
    """Return the cost of parsing `size` bytes, in the fair queue's unit."""
    return QUANTUM * size / _BYTES
