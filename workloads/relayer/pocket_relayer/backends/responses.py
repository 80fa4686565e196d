"""What a backend answers with."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from pocket.protocol.relays.envelope import Headers, HttpResponse
from pocket_relayer.rejection import Rejected


class RetryableBackendError(Exception):
    """A hard failure of one endpoint: another one may be asked."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(rejected.message)
        self.rejected = rejected


@dataclass(frozen=True, slots=True)
class BackendResponse:
    """A whole answer with the number of extra attempts."""

    response: HttpResponse
    retries: int = 0

    @property
    def status(self) -> int:
        """The backend's."""
        return self.response.status


@dataclass(frozen=True, slots=True)
class BackendStream:
    """An answer that goes on: its bytes as they come. `close` must be called."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]
    deadline: float
    """Time of the event loop's clock at which it is cut."""
    retries: int = 0
