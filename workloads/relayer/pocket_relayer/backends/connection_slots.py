"""Connections to one backend endpoint, shared fairly between applications."""

import asyncio
from collections import OrderedDict, deque
from typing import Final

from pocket_relayer.limits.rejection import Rejected, RejectionReason

_SHARE: Final = 3  # an application may hold this many times the free connections
_QUEUE: Final = 2  # times the connections: limit of waiting relays of one application ...
_ALL_QUEUES: Final = 8  # ... and of all applications
WAIT_SECONDS: Final = 2.0


def busy() -> Rejected:
    """Return the rejection of a relay that would wait too long for a connection."""
    return Rejected(RejectionReason.OVERLOADED, "too many relays wait for the backend, try another supplier")


class ConnectionSlots:
    """Limit the connections of one endpoint that are used at once.

    An application with few relays gets a connection at once, because applications with many relays leave a quarter of
    what they could have. A free connection goes to the next application in turn, not to the next relay. A relay that
    waits longer than `wait_seconds` is rejected as overloaded. `limits` are the numbers of waiting relays of one
    application and of all.
    """

    def __init__(self, size: int, wait_seconds: float = WAIT_SECONDS, limits: tuple[int, int] | None = None) -> None:
        self._size = size
        self._wait_seconds = wait_seconds
        self._most_of_one, self._most = limits or (_QUEUE * size, _ALL_QUEUES * size)
        self._used = 0
        self._used_by: dict[str, int] = {}
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._waiting = 0

    @property
    def used(self) -> int:
        """The connections that relays use."""
        return self._used

    @property
    def awaited(self) -> int:
        """The relays that wait for a connection."""
        return self._waiting

    def _may_acquire(self, key: str) -> bool:
        free = self._size - self._used
        mine = self._used_by.get(key, 0)
        return free > 0 and (not mine or mine < _SHARE * free)

    def _take(self, key: str) -> None:
        self._used += 1
        self._used_by[key] = self._used_by.get(key, 0) + 1

    async def acquire(self, key: str) -> None:
        """Wait for a connection for an application.

        Raises Rejected, at once if too many relays wait already.
        """
        queue = self._queues.get(key)
        if queue is None and self._may_acquire(key):
            self._take(key)
            return
        full = queue is not None and len(queue) >= self._most_of_one
        if full or self._waiting >= self._most:
            raise busy()
        await self._wait(key)

    async def _wait(self, key: str) -> None:
        queue = self._queues.setdefault(key, deque())
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release(key)  # it was assigned in the meantime
            else:
                self._forget(key, turn)
            if isinstance(error, TimeoutError):
                raise busy() from None
            raise

    def _forget(self, key: str, turn: "asyncio.Future[None]") -> None:
        queue = self._queues.get(key)
        if queue is not None and turn in queue:
            queue.remove(turn)
            self._waiting -= 1
            if not queue:
                del self._queues[key]

    def release(self, key: str) -> None:
        """Return a connection, which goes to the next waiting application."""
        self._used -= 1
        self._used_by[key] -= 1
        if not self._used_by[key]:
            del self._used_by[key]
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        while self._used < self._size:
            key = next((name for name in self._queues if self._may_acquire(name)), None)
            if key is None:
                return
            queue = self._queues.pop(key)
            turn = queue.popleft()
            self._waiting -= 1
            if queue:
                self._queues[key] = queue  # behind the other applications
            if not turn.done():
                self._take(key)
                turn.set_result(None)
