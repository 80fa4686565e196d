"""A request and its reply as all HTTP versions see them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from relayer.rejection import Reason, Rejected

READ_SECONDS: Final = 60.0
"""A client that drips its body is cut then."""
IDLE_SECONDS: Final = 120.0
"""A connection without request, or with the head of one that does not get ready, is closed then."""
WRITE_SECONDS: Final = 30.0
"""A client that takes nothing for so long is cut."""


def too_large(limit: int) -> Rejected:
    """A body beyond the limit."""
    return Rejected(Reason.BODY_TOO_LARGE, f"the request is larger than {limit} bytes")


def too_late() -> Rejected:
    """A body that did not come in time."""
    return Rejected(Reason.BODY_UNREADABLE, f"the body did not come within {READ_SECONDS:g} s", 408)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose body is still to be read; `read` raises Rejected."""

    method: str
    path: str
    headers: Mapping[str, str]
    read: Callable[[], Awaitable[bytes]]
    address: str = ""
    """Of the connection's other end."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply; `pieces` follow the body as they come, and a failing one must cut the connection or stream."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    pieces: AsyncGenerator[bytes, None] | None = None
    trailers: Mapping[str, str] = field(default_factory=dict)


class BodyRoom:
    """Bytes of request bodies that one worker holds at once: strangers cannot fill its memory before they are known.

    Whoever asks for more is told to come again; what is held is given back when its reply is made.
    """

    def __init__(self, limit: int = 256 * 1024 * 1024) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> int:
        """Returns the size; raises Rejected."""
        if self.used + size > self._limit:
            raise Rejected(Reason.OVERLOADED, "too many request bodies are being read, try another supplier")
        self.used += size
        return size

    def give(self, size: int) -> None:
        """What was taken."""
        self.used -= size
