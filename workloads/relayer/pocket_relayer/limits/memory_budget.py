"""Budget for the memory that the connections of one worker hold."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from pocket_relayer.limits.rejection import Rejected, RejectionReason

DEFAULT_LIMIT_BYTES: Final = 256 * 1024 * 1024
_ADDRESS_SHARE: Final = 0.75  # share of the limit that one address may hold ...
_CONNECTION_SHARE: Final = 0.25  # ... and one connection
_LOW_WATERMARK: Final = 0.875  # eviction continues to this share of the limit, so that it is rare


def overloaded() -> Rejected:
    """Return the rejection of a request for which no memory is left."""
    return Rejected(RejectionReason.OVERLOADED, "too much is being read and sent here, try another supplier")


class MemoryBudget:
    """Counts the memory that all connections of one worker hold, in bytes.

    When it is used up, evictable reservations make room, those with the largest product of size and age first. A
    transfer that proceeds outlives those that stand still, so earlier clients cannot lock out later ones.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        limit: int = DEFAULT_LIMIT_BYTES,
        on_evicted: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a budget of `limit` bytes.

        `on_evicted` is called for each evicted reservation.
        """
        self._clock = clock
        self.on_evicted = on_evicted
        self.limit = limit
        self.address_limit = int(limit * _ADDRESS_SHARE)
        self.connection_limit = int(limit * _CONNECTION_SHARE)
        self.used = 0
        self._by_address: Counter[str] = Counter()
        self._reservations: set[MemoryReservation] = set()

    def connection(self, address: str) -> "ConnectionMemoryBudget":
        """Return the share of one connection."""
        return ConnectionMemoryBudget(self, address)

    def now(self) -> float:
        """Return the time in seconds."""
        return self._clock()

    def used_by(self, address: str) -> int:
        """Return the bytes of all connections of an address."""
        return self._by_address[address]

    def add(self, reservation: "MemoryReservation", size: int) -> None:
        """Add bytes to a reservation, or remove them if `size` is negative."""
        connection = reservation.connection
        if not reservation.size:
            reservation.began = self._clock()
            self._reservations.add(reservation)
        reservation.size += size
        connection.used += size
        self.used += size
        self._by_address[connection.address] += size
        if not reservation.size:
            self._reservations.discard(reservation)
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def make_room(self, reservation: "MemoryReservation", size: int) -> None:
        """Evict stalled reservations until `size` more bytes fit.

        Raises Rejected if they do not fit.
        """
        connection = reservation.connection
        self._evict_until_below(
            size, self.connection_limit, lambda: connection.used, lambda one: one.connection is connection
        )
        address = connection.address
        self._evict_until_below(
            size, self.address_limit, lambda: self._by_address[address], lambda one: one.connection.address == address
        )
        self._evict_until_below(size, self.limit, lambda: self.used, lambda _: True)
        if reservation.evicted:
            raise overloaded()

    def _evict_until_below(
        self, size: int, limit: int, used: Callable[[], int], belongs: Callable[["MemoryReservation"], bool]
    ) -> None:
        if used() + size <= limit:
            return
        now = self._clock()
        evictable = [one for one in self._reservations if one.on_evict is not None and belongs(one)]
        evictable.sort(key=lambda one: one.size * (now - one.began), reverse=True)
        for one in evictable:
            if used() + size <= limit * _LOW_WATERMARK:
                return
            one.evict()
        if used() + size > limit:
            raise overloaded()


class ConnectionMemoryBudget:
    """Counts the memory that one connection holds."""

    __slots__ = ("address", "memory", "used")

    def __init__(self, memory: MemoryBudget, address: str) -> None:
        self.memory = memory
        self.address = address
        self.used = 0

    def reserve(self) -> "MemoryReservation":
        """Return a reservation for a request, message or response, which its user closes."""
        return MemoryReservation(self)


class MemoryReservation:
    """Counts the bytes of one request, message or response.

    `on_evict` ends the wait for its sender or reader. It is None while there is no such wait.
    """

    __slots__ = ("began", "connection", "evicted", "on_evict", "size")

    def __init__(self, connection: ConnectionMemoryBudget) -> None:
        self.connection = connection
        self.size = 0
        self.began = 0.0
        self.on_evict: Callable[[], None] | None = None
        self.evicted = False

    def acquire(self, size: int) -> None:
        """Count more bytes.

        Raises Rejected if there is no room, or if this reservation was evicted.
        """
        if self.evicted:
            raise overloaded()
        connection = self.connection
        memory = connection.memory
        if (
            memory.used + size > memory.limit
            or connection.used + size > memory.connection_limit
            or memory.used_by(connection.address) + size > memory.address_limit
        ):
            memory.make_room(self, size)
        memory.add(self, size)

    def renew(self) -> None:
        """Begin its age again, by which it is evicted."""
        self.began = self.connection.memory.now()

    def release(self, size: int) -> None:
        """Release bytes. An evicted reservation has released its bytes already."""
        if not self.evicted:
            self.connection.memory.add(self, -size)

    def evict(self) -> None:
        """Evict the reservation and notify its user."""
        on_evict, self.on_evict = self.on_evict, None
        self.release(self.size)
        self.evicted = True
        self.connection.memory.on_evicted()
        if on_evict is not None:
            on_evict()

    def close(self) -> None:
        """Release the remaining bytes."""
        self.on_evict = None
        if self.size:
            self.release(self.size)
