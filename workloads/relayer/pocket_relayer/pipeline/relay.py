"""Decode a relay, the same for every transport."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pocket.api.services import ServiceSpec, Validation
from pocket.errors import DecodingError
from pocket.fast_init import fast_init
from pocket.keys.remote_signer import RemoteKey, SigningKey
from pocket.protocol.relays.envelope import HttpRequest, decode_http_request
from pocket.protocol.relays.messages import RelayRequest, SessionHeader, decode_relay_request
from pocket_relayer.backends.service import ServiceBackends
from pocket_relayer.backends.service_registry import ServiceRegistry
from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.authorization import plausible_problem

RPC_TYPES: Final[Mapping[str, str]] = {
    "1": "grpc", "grpc": "grpc",
    "3": "jsonRpc", "json_rpc": "jsonRpc", "jsonrpc": "jsonRpc", "jsonRpc": "jsonRpc",
    "4": "rest", "rest": "rest",
    "5": "cometBft", "comet_bft": "cometBft", "cometbft": "cometBft", "cometBft": "cometBft",
}  # fmt: skip
"""Values of the Rpc-Type header for transports with one response per request."""


class Transport(StrEnum):
    """The transport of a relay."""

    HTTP = "http"
    WEB_SOCKET = "websocket"
    GRPC = "grpc"
    GRPC_WEB = "grpc_web"


@fast_init
@dataclass(frozen=True, slots=True)
class TransportInfo:
    """The facts that a transport knows of a relay in addition to its bytes.

    Header names are in any case.
    """

    transport: Transport
    headers: Mapping[str, str]
    address: str = ""
    """Address of the client, empty if unknown."""
    reservation: MemoryReservation | None = None
    """Counts the memory that the relay's response holds."""
    on_charged: Callable[[], None] | None = None
    """Notes that the relay is charged: from now on it is served and recorded, whether its client waits or not."""


@fast_init
@dataclass(frozen=True, slots=True)
class AdmissibleRelay:
    """A decoded relay of a served service. It is not authenticated yet."""

    request: RelayRequest
    header: SessionHeader
    envelope: HttpRequest
    rpc_type: str
    key: SigningKey
    service_backends: ServiceBackends
    caller: TransportInfo
    simulated: str = ""
    """Key id of a simulated relay, empty for a real one."""

    service: ServiceSpec = field(init=False)
    """The service as configured for this relay. The configuration may change in the meantime."""
    supplier: str = field(init=False)
    """The supplier's operator address."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "service", self.service_backends.service)
        object.__setattr__(self, "supplier", self.request.supplier_operator_address)

    @property
    def fairness_key(self) -> str:
        """Return the key by which a backend's connections are shared: the application.

        If the backend is called before the relay is authenticated, the client's address is part of it, since any
        client can name any application.
        """
        application = self.header.application_address
        if self.service.validation is Validation.EAGER or self.over_grpc or self.caller.reservation is None:
            return application
        return f"{application} {self.caller.reservation.connection.address}"

    @property
    def over_grpc(self) -> bool:
        """Return True for a relay that comes or goes over gRPC.

        It is always authenticated first.
        """
        return self.rpc_type == "grpc" or self.caller.transport in (Transport.GRPC, Transport.GRPC_WEB)

    def pocket_headers(self) -> dict[str, str]:
        """Return the headers that describe the relay to a backend."""
        headers = pocket_headers(self.supplier, self.header.service_id)
        headers["Pocket-Application"] = self.header.application_address
        return headers


def pocket_headers(supplier: str, service_id: str) -> dict[str, str]:
    """Return the headers that name supplier and service to a backend."""
    return {"Pocket-Supplier": supplier, "Pocket-Service": service_id}


def _requested_rpc_type(caller: TransportInfo) -> str | None:
    """Return the RPC type of the Rpc-Type header, or None without it. Raises Rejected."""
    requested = caller.headers.get("Rpc-Type", "").strip()
    if not requested:
        return None
    rpc_type = RPC_TYPES.get(requested)
    if rpc_type is None:
        raise Rejected(
            RejectionReason.UNKNOWN_RPC_TYPE, f"Rpc-Type {requested[:20]!r} is not served over this transport"
        )
    return rpc_type


def _default_rpc_type(caller: TransportInfo, content_types: Sequence[str], service: ServiceSpec) -> str:
    framed = any(value.startswith("application/grpc") for value in content_types)
    return "grpc" if framed and caller.transport in (Transport.GRPC, Transport.GRPC_WEB) else service.default_backend


def parse_relay(
    body: bytes,
    caller: TransportInfo,
    registry: ServiceRegistry,
    keys: Mapping[str, SigningKey],
    height: Callable[[], int],
    simulated: str = "",
) -> AdmissibleRelay:
    """Parse the relay of a body, in the order of relay-lifecycle.md, section 3.

    Raises Rejected.
    """
    try:
        request = decode_relay_request(body)
    except DecodingError as error:
        raise Rejected(RejectionReason.INVALID_REQUEST, f"invalid relay request: {error}") from error
    header = request.header
    if header is None or not header.service_id:
        raise Rejected(RejectionReason.INVALID_REQUEST, "invalid relay request: no session header with a service id")
    backends = registry.get(header.service_id)
    if backends is None:
        name = header.service_id[:42].encode("ascii", "replace").decode()
        raise Rejected(RejectionReason.UNKNOWN_SERVICE, f"service {name} is not served here")
    try:
        return _check(body, request, header, backends, caller, keys, height, simulated)
    except Rejected as rejected:
        rejected.service_id = backends.service.id
        raise


def _check(
    body: bytes,
    request: RelayRequest,
    header: SessionHeader,
    backends: ServiceBackends,
    caller: TransportInfo,
    keys: Mapping[str, SigningKey],
    height: Callable[[], int],
    simulated: str,
) -> AdmissibleRelay:
    service = backends.service
    if caller.transport is Transport.WEB_SOCKET:
        envelope, rpc_type = HttpRequest("", "", {}, request.payload), "webSocket"
    else:
        try:
            envelope = decode_http_request(request.payload)
        except DecodingError as error:
            raise Rejected(RejectionReason.INVALID_REQUEST, f"invalid relay request: {error}") from error
        content_types = envelope.headers.get("Content-Type", ())
        rpc_type = _requested_rpc_type(caller) or _default_rpc_type(caller, content_types, service)
    if len(body) > service.max_body_bytes:
        raise Rejected(RejectionReason.BODY_TOO_LARGE, f"the request is larger than {service.max_body_bytes} bytes")
    if not request.supplier_operator_address:
        raise Rejected(RejectionReason.SUPPLIER_MISSING, "the supplier operator address is missing")
    key = keys.get(request.supplier_operator_address)
    if key is None:
        raise Rejected(RejectionReason.SUPPLIER_NOT_OURS, "the supplier is not served here")
    if isinstance(key, RemoteKey) and key.signer.problem:
        raise Rejected(RejectionReason.SIGNER_UNAVAILABLE, "the supplier's responses cannot be signed now")
    if problem := request.problem():
        raise Rejected(RejectionReason.INVALID_REQUEST, problem)
    # The heights of a simulated relay have no meaning, and its application is pinned.
    if not simulated and (problem := plausible_problem(header, height())):
        raise Rejected(RejectionReason.IMPLAUSIBLE_HEIGHTS, problem)
    if not simulated and service.applications.rejects(header.application_address):
        raise Rejected(RejectionReason.APPLICATION_REFUSED, "relays of this application are not served here")
    return AdmissibleRelay(request, header, envelope, rpc_type, key, backends, caller, simulated)
