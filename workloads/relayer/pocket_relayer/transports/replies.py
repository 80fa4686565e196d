"""A request and its response as all HTTP versions see them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from pocket.fast_init import fast_init
from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.relay import Transport, TransportInfo
from pocket_relayer.transports.request_bodies import GzipRequestDecoder


def too_large(limit: int) -> Rejected:
    """Return the rejection of a body beyond the limit."""
    return Rejected(RejectionReason.BODY_TOO_LARGE, f"the request is larger than {limit} bytes")


def too_late() -> Rejected:
    """Return the rejection of a body that did not arrive in time."""
    return Rejected(RejectionReason.BODY_UNREADABLE, "the body did not come in time", 408)


@fast_init
@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """A request whose body is still to be read. `read` raises Rejected.

    `reservation` counts its memory until its response is sent. `on_served` notes that its relay was served, and
    `on_charged` that it will be, whether its client waits or not.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    read: Callable[[], Awaitable[bytes]]
    reservation: MemoryReservation
    on_served: Callable[[], None]
    decoder: GzipRequestDecoder
    on_charged: Callable[[], None] | None = None

    @property
    def address(self) -> str:
        """Return the client's address, of IPv6 its network."""
        return self.reservation.connection.address

    def transport_info(self, transport: Transport) -> TransportInfo:
        """Return the description of its transport for the pipeline."""
        return TransportInfo(transport, self.headers, self.address, self.reservation, self.on_charged)


@fast_init
@dataclass(frozen=True, slots=True)
class OutgoingResponse:
    """A response.

    `pieces` follow the body as they come. A failing one must cut the connection or stream.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    pieces: AsyncGenerator[bytes, None] | None = None
    trailers: Mapping[str, str] = field(default_factory=dict)
