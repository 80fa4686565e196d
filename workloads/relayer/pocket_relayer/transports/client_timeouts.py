"""Timeouts for clients."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Hold the timeouts of clients in seconds; those of bodies and answers grow with their bytes (a minimum rate)."""

    idle_seconds: float = 120.0
    """A connection without request, with half of a head, or a WebSocket without a proven relay, is closed then."""
    read_seconds: float = 15.0
    """For the first bytes of a body or message ..."""
    write_seconds: float = 30.0
    """For an answer's first bytes; a client that takes nothing for so long is dropped ..."""
    bytes_per_second: float = 64 * 1024.0
    """... and for each so many bytes there is one more second."""

    def to_read(self, size: int) -> float:
        """Return the seconds within which a body or message of `size` bytes so far must go on or end."""
        return self.read_seconds + size / self.bytes_per_second

    def to_write(self, size: int) -> float:
        """Return the seconds within which `size` bytes must be taken."""
        return self.write_seconds + size / self.bytes_per_second
