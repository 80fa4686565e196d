"""A budget for the memory that the connections of one worker hold."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from pocket_relayer import relayer_metrics
from pocket_relayer.rejection import Rejected, RejectionReason

WHOLE: Final = 256 * 1024 * 1024
_ADDRESS_SHARE: Final = 0.75  # of the whole may be held by one address ...
_CONNECTION_SHARE: Final = 0.25  # ... and this by one connection
_LOW: Final = 0.875  # what is dropped makes room for more than one piece, so that the sorting pays off


def overloaded() -> Rejected:
    """The refusal of whoever finds no room; it may come again."""
    return Rejected(RejectionReason.OVERLOADED, "too much is being read and sent here, try another supplier")


class MemoryBudget:
    """Count the memory that all connections of one worker hold, in bytes.

    Where it is used up, reservations that can be dropped make room, those with the largest product of size and age
    first: an upload or a download that goes on outlives those that stand still, so nobody is locked out by whoever came
    before.
    """

    def __init__(self, clock: Callable[[], float], limit: int = WHOLE) -> None:
        self._clock = clock
        self.limit = limit
        self.address_limit = int(limit * _ADDRESS_SHARE)
        self.connection_limit = int(limit * _CONNECTION_SHARE)
        self.used = 0
        self._by_address: Counter[str] = Counter()
        self._holds: set[MemoryReservation] = set()

    def connection(self, address: str) -> "ConnectionMemoryBudget":
        """Return the part of one connection."""
        return ConnectionMemoryBudget(self, address)

    def held_by(self, address: str) -> int:
        """Return the bytes of all connections of an address."""
        return self._by_address[address]

    def add(self, hold: "MemoryReservation", size: int) -> None:
        """Count bytes of a reservation, less where `size` is negative."""
        connection = hold.connection
        if not hold.size:
            hold.began = self._clock()
            self._holds.add(hold)
        hold.size += size
        connection.used += size
        self.used += size
        self._by_address[connection.address] += size
        if not hold.size:
            self._holds.discard(hold)
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def make_room(self, hold: "MemoryReservation", size: int) -> None:
        """Drop what stands still until `size` more bytes fit; raises Rejected where they cannot."""
        connection = hold.connection
        self._drop(size, self.connection_limit, lambda: connection.used, lambda one: one.connection is connection)
        address = connection.address
        self._drop(
            size, self.address_limit, lambda: self._by_address[address], lambda one: one.connection.address == address
        )
        self._drop(size, self.limit, lambda: self.used, lambda _: True)
        if hold.dropped:
            raise overloaded()

    def _drop(
        self, size: int, limit: int, used: Callable[[], int], belongs: Callable[["MemoryReservation"], bool]
    ) -> None:
        if used() + size <= limit:
            return
        now = self._clock()
        droppable = [one for one in self._holds if one.drop is not None and belongs(one)]
        droppable.sort(key=lambda one: one.size * (now - one.began), reverse=True)
        for one in droppable:
            if used() + size <= limit * _LOW:
                return
            one.give_up()
        if used() + size > limit:
            raise overloaded()


class ConnectionMemoryBudget:
    """Count the memory that one connection holds."""

    __slots__ = ("address", "memory", "used")

    def __init__(self, memory: MemoryBudget, address: str) -> None:
        self.memory = memory
        self.address = address
        self.used = 0

    def hold(self) -> "MemoryReservation":
        """Return a reservation for a request, a message or an answer, which its user closes."""
        return MemoryReservation(self)


class MemoryReservation:
    """Count the bytes of one request, message or answer.

    `drop` ends the waiting for its sender or reader; None while nobody is waited for.
    """

    __slots__ = ("began", "connection", "drop", "dropped", "size")

    def __init__(self, connection: ConnectionMemoryBudget) -> None:
        self.connection = connection
        self.size = 0
        self.began = 0.0
        self.drop: Callable[[], None] | None = None
        self.dropped = False

    def take(self, size: int) -> None:
        """Count more bytes; raises Rejected where there is no room, or where this reservation was dropped."""
        if self.dropped:
            raise overloaded()
        connection = self.connection
        memory = connection.memory
        if (
            memory.used + size > memory.limit
            or connection.used + size > memory.connection_limit
            or memory.held_by(connection.address) + size > memory.address_limit
        ):
            memory.make_room(self, size)
        memory.add(self, size)

    def give(self, size: int) -> None:
        """Give back bytes; those of a dropped reservation are given back already."""
        if not self.dropped:
            self.connection.memory.add(self, -size)

    def give_up(self) -> None:
        """Drop the reservation: whoever waits for its sender or reader is told."""
        drop, self.drop = self.drop, None
        self.give(self.size)
        self.dropped = True
        relayer_metrics.DROPPED.inc()
        if drop is not None:
            drop()

    def close(self) -> None:
        """Give back what is left."""
        self.drop = None
        if self.size:
            self.give(self.size)
