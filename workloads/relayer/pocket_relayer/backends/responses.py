"""Responses of a backend."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from pocket.fast_init import fast_init
from pocket.protocol.relays.envelope import Headers, HttpResponse
from pocket_relayer.limits.rejection import Rejected


class RetryableBackendError(Exception):
    """A hard failure of one endpoint, after which another one may be called.

    `reached` is True if the endpoint got the request, which may then be the cause of the failure.
    """

    def __init__(self, rejected: Rejected, *, reached: bool) -> None:
        super().__init__(rejected.message)
        self.rejected = rejected
        self.reached = reached


@fast_init
@dataclass(frozen=True, slots=True)
class BackendResponse:
    """A complete response with the number of additional attempts."""

    response: HttpResponse
    retries: int = 0

    @property
    def status(self) -> int:
        """Return the backend's status."""
        return self.response.status


@dataclass(frozen=True, slots=True)
class BackendStream:
    """A response whose bytes are forwarded as they arrive.

    Its user must call `close`.
    """

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]
    deadline: float
    """Time on the event loop's clock at which it is cut."""
    retries: int = 0
