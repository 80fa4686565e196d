"""A relay as every transport hands it on: decoded, its service and its supplier's key known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pocket.api.services import ServiceSpec, Validation
from pocket.errors import DecodingError
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.relays.envelope import HttpRequest, decode_http_request
from pocket.protocol.relays.messages import RelayRequest, SessionHeader, decode_relay_request
from pocket_relayer.backends.catalog import ServiceRegistry
from pocket_relayer.backends.service import ServiceBackends
from pocket_relayer.memory_budget import MemoryReservation
from pocket_relayer.pipeline.admission import plausible_problem
from pocket_relayer.rejection import Rejected, RejectionReason

RPC_TYPES: Final[Mapping[str, str]] = {
    "1": "grpc", "grpc": "grpc",
    "3": "jsonRpc", "json_rpc": "jsonRpc", "jsonrpc": "jsonRpc", "jsonRpc": "jsonRpc",
    "4": "rest", "rest": "rest",
    "5": "cometBft", "comet_bft": "cometBft", "cometbft": "cometBft", "cometBft": "cometBft",
}  # fmt: skip
"""Values of the Rpc-Type header for transports that are asked one thing at a time."""


class Transport(StrEnum):
    """How a relay arrived."""

    HTTP = "http"
    WEB_SOCKET = "websocket"
    GRPC = "grpc"
    GRPC_WEB = "grpc_web"


@dataclass(frozen=True, slots=True)
class TransportInfo:
    """What a transport knows of a relay besides its bytes. Header names in any case."""

    transport: Transport
    headers: Mapping[str, str]
    address: str = ""
    """Of the connection's other end; empty where it is not known."""
    hold: MemoryReservation | None = None
    """Counts what the relay's answer holds in memory."""


@dataclass(frozen=True, slots=True)
class AdmissibleRelay:
    """A relay that may be looked at further; nothing of it is proven yet."""

    request: RelayRequest
    header: SessionHeader
    envelope: HttpRequest
    rpc_type: str
    key: PrivateKey
    offer: ServiceBackends
    caller: TransportInfo
    simulated: str = ""
    """Key id of a simulated relay; empty for a real one."""

    @property
    def service(self) -> ServiceSpec:
        """The service as it is configured for this relay, though the configuration may change meanwhile."""
        return self.offer.service

    @property
    def supplier(self) -> str:
        """Operator address."""
        return self.request.supplier_operator_address

    @property
    def share(self) -> str:
        """Whose part of a backend's connections it takes: the application's.

        Where the backend is asked before the relay is proven, also the client's, since anybody can name an application.
        """
        application = self.header.application_address
        if self.service.validation is Validation.EAGER or self.caller.hold is None:
            return application
        return f"{application} {self.caller.hold.connection.address}"

    def pocket_headers(self) -> dict[str, str]:
        """What backends are told."""
        return pocket_headers(self.supplier, self.header.service_id) | {
            "Pocket-Application": self.header.application_address
        }


def pocket_headers(supplier: str, service_id: str) -> dict[str, str]:
    """What WebSocket backends are told."""
    return {"Pocket-Supplier": supplier, "Pocket-Service": service_id}


def _rpc_type(caller: TransportInfo, envelope: HttpRequest, service: ServiceSpec) -> str:
    asked = caller.headers.get("Rpc-Type", "").strip()
    if asked:
        found = RPC_TYPES.get(asked)
        if found is None:
            raise Rejected(
                RejectionReason.UNKNOWN_RPC_TYPE, f"Rpc-Type {asked[:20]!r} is not served over this transport"
            )
        return found
    framed = any(value.startswith("application/grpc") for value in envelope.headers.get("Content-Type", ()))
    if framed and caller.transport in (Transport.GRPC, Transport.GRPC_WEB):
        return "grpc"
    return service.default_backend


def decode(
    body: bytes,
    caller: TransportInfo,
    catalog: ServiceRegistry,
    keys: Mapping[str, PrivateKey],
    height: Callable[[], int],
    simulated: str = "",
) -> AdmissibleRelay:
    """The relay of a body, in the order of relay-lifecycle.md, section 3; raises Rejected."""
    try:
        request = decode_relay_request(body)
    except DecodingError as error:
        raise Rejected(RejectionReason.INVALID_REQUEST, f"invalid relay request: {error}") from error
    header = request.header
    if header is None or not header.service_id:
        raise Rejected(RejectionReason.INVALID_REQUEST, "invalid relay request: no session header with a service id")
    offer = catalog.get(header.service_id)
    if offer is None:
        name = header.service_id[:42].encode("ascii", "replace").decode()
        raise Rejected(RejectionReason.UNKNOWN_SERVICE, f"service {name} is not served here")
    try:
        return _checked(body, request, header, offer, caller, keys, height, simulated)
    except Rejected as rejected:
        rejected.service_id = offer.service.id
        raise


def _checked(
    body: bytes,
    request: RelayRequest,
    header: SessionHeader,
    offer: ServiceBackends,
    caller: TransportInfo,
    keys: Mapping[str, PrivateKey],
    height: Callable[[], int],
    simulated: str,
) -> AdmissibleRelay:
    service = offer.service
    if caller.transport is Transport.WEB_SOCKET:
        envelope, rpc_type = HttpRequest("", "", {}, request.payload), "webSocket"
    else:
        try:
            envelope = decode_http_request(request.payload)
        except DecodingError as error:
            raise Rejected(RejectionReason.INVALID_REQUEST, f"invalid relay request: {error}") from error
        rpc_type = _rpc_type(caller, envelope, service)
    if len(body) > service.max_body_bytes:
        raise Rejected(RejectionReason.BODY_TOO_LARGE, f"the request is larger than {service.max_body_bytes} bytes")
    if not request.supplier_operator_address:
        raise Rejected(RejectionReason.SUPPLIER_MISSING, "the supplier operator address is missing")
    key = keys.get(request.supplier_operator_address)
    if key is None:
        raise Rejected(RejectionReason.SUPPLIER_NOT_OURS, "the supplier is not served here")
    # The heights of a simulated relay mean nothing, and its application is pinned.
    if problem := request.problem() or (not simulated and plausible_problem(header, height())):
        raise Rejected(
            RejectionReason.IMPLAUSIBLE_HEIGHTS if "heights" in problem else RejectionReason.INVALID_REQUEST, problem
        )
    if not simulated and service.applications.rejects(header.application_address):
        raise Rejected(RejectionReason.APPLICATION_REFUSED, "relays of this application are not served here")
    return AdmissibleRelay(request, header, envelope, rpc_type, key, offer, caller, simulated)
