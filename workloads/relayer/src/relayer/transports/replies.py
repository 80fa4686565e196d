"""A request and its reply as all HTTP versions see them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose body is still to be read; `read` raises Rejected."""

    method: str
    path: str
    headers: Mapping[str, str]
    read: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply; `pieces` follow the body as they come, and a failing one must cut the connection or stream."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    pieces: AsyncGenerator[bytes, None] | None = None
    trailers: Mapping[str, str] = field(default_factory=dict)
