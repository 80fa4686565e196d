"""Track the bytes of unfinished WebSocket messages.

aiohttp's reader does not report them.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.limits.token_bucket import TokenBucket

_CONTROL: Final = 0x08
_LONGEST_HEAD: Final = 14
_TINY: Final = 128  # bytes of a fragment below which it counts as a cheap frame
_CHEAP_PER_SECOND: Final = 200.0
_CHEAP_AT_ONCE: Final = 1000.0


class FrameFollower:
    """Tracks frames (RFC 6455, section 5.2) in any pieces of the stream."""

    __slots__ = ("_data", "_head", "_last", "_left", "cheap", "unfinished")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._last = self._data = False
        self.unfinished = 0
        """Bytes of the message that has not ended."""
        self.cheap = 0
        """Control frames and tiny fragments since this was set to 0."""

    def feed(self, data: bytes) -> list[int]:
        """Parse the next bytes and return the sizes of the messages that ended in them."""
        ended: list[int] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                took = min(self._left, end - at)
                at += took
                self._left -= took
                if self._data:
                    self.unfinished += took
            else:
                kept = len(self._head)
                head = self._head + data[at : at + _LONGEST_HEAD - kept]
                length = _head_length(head)
                if length is None or len(head) < length:
                    self._head = head
                    return ended
                self._head = b""
                at += length - kept
                self._begin(head)
            if not self._left and self._last:
                ended.append(self.unfinished)
                self.unfinished = 0
                self._last = False
        return ended

    def _begin(self, head: bytes) -> None:
        extra = _extra(head)
        self._left = int.from_bytes(head[2 : 2 + extra], "big") if extra else head[1] & 0x7F
        self._data = not head[0] & _CONTROL
        self._last = self._data and bool(head[0] & 0x80)
        if not self._last and (not self._data or self._left < _TINY):
            self.cheap += 1


def _extra(head: bytes) -> int:
    """Return the bytes of a length beyond the first."""
    return {126: 2, 127: 8}.get(head[1] & 0x7F, 0)


def _head_length(head: bytes) -> int | None:
    """Return the length of a frame's head, or None while it is unknown."""
    if len(head) < 2:
        return None
    return 2 + 4 * (head[1] >> 7) + _extra(head)


class IncomingMessages:
    """Counts the bytes of a WebSocket's messages until they are served."""

    def __init__(self, reservation: MemoryReservation, clock: Callable[[], float]) -> None:
        self.reservation = reservation
        self._clock = clock
        self._frames = FrameFollower()
        self._waiting: deque[int] = deque()
        self._cheap = TokenBucket(_CHEAP_PER_SECOND, _CHEAP_AT_ONCE)
        self._began: float | None = None

    def feed(self, data: bytes) -> None:
        """Count the next bytes.

        Raises Rejected.
        """
        frames, before = self._frames, self._frames.unfinished
        ended = frames.feed(data)
        if ended or not frames.unfinished:
            self._began = None
        if frames.unfinished and self._began is None:
            self._began = self._clock()
        self._waiting.extend(ended)
        if frames.cheap:
            cheap, frames.cheap = frames.cheap, 0
            if not self._cheap.take(cheap, self._clock()):
                raise Rejected(RejectionReason.OVERLOADED, "too many control frames or tiny fragments")
        if more := sum(ended) + frames.unfinished - before:
            self.reservation.acquire(more)

    def served(self) -> None:
        """Release the oldest message."""
        if self._waiting:
            self.reservation.release(self._waiting.popleft())

    @property
    def unfinished(self) -> tuple[int, float] | None:
        """Return size and age in seconds of an unfinished message, or None."""
        return None if self._began is None else (self._frames.unfinished, self._clock() - self._began)

    def close(self) -> None:
        """Release everything."""
        self._waiting.clear()
        self.reservation.close()
