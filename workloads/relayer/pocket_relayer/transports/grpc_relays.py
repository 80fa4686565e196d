"""SendRelay over gRPC and gRPC-Web through the pipeline.

Source: relay-lifecycle.md, section 11.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import DecodingError
from pocket_relayer.backends.framing import TRAILERS, Framing, frame
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.pipeline import RelayPipeline, RelayResult
from pocket_relayer.pipeline.relay import Transport
from pocket_relayer.transports.replies import IncomingRequest, OutgoingResponse

_LOG: FilteringBoundLogger = structlog.get_logger()
METHOD: Final = "/pocket.service.RelayService/SendRelay"
OK, INVALID, NOT_FOUND, DENIED, EXHAUSTED, PRECONDITION, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, EXISTS, DEADLINE = (
    0, 3, 5, 7, 8, 9, 12, 13, 14, 6, 4,
)  # fmt: skip

STATUS: Final[Mapping[RejectionReason, int]] = {
    RejectionReason.BODY_UNREADABLE: INVALID,
    RejectionReason.BODY_TOO_LARGE: EXHAUSTED,
    RejectionReason.INVALID_REQUEST: INVALID,
    RejectionReason.METHOD_NOT_ALLOWED: UNIMPLEMENTED,
    RejectionReason.UNKNOWN_SERVICE: NOT_FOUND,
    RejectionReason.UNKNOWN_RPC_TYPE: INVALID,
    RejectionReason.BACKEND_MISSING: UNAVAILABLE,
    RejectionReason.SUPPLIER_MISSING: INVALID,
    RejectionReason.SUPPLIER_NOT_OURS: PRECONDITION,
    RejectionReason.SUPPLIER_INACTIVE: PRECONDITION,
    RejectionReason.WRONG_SERVICE: PRECONDITION,
    RejectionReason.IMPLAUSIBLE_HEIGHTS: INVALID,
    RejectionReason.SESSION_EXPIRED: DENIED,
    RejectionReason.INVALID_SIGNATURE: DENIED,
    RejectionReason.SESSION_MISMATCH: DENIED,
    RejectionReason.SUPPLIER_NOT_IN_SESSION: DENIED,
    RejectionReason.APPLICATION_REFUSED: DENIED,
    RejectionReason.REPLAYED: EXISTS,
    RejectionReason.OVER_BUDGET: EXHAUSTED,
    RejectionReason.RATE_LIMITED: EXHAUSTED,
    RejectionReason.METER_UNAVAILABLE: UNAVAILABLE,
    RejectionReason.CHAIN_UNAVAILABLE: UNAVAILABLE,
    RejectionReason.BACKEND_UNHEALTHY: UNAVAILABLE,
    RejectionReason.BACKEND_FAILED: UNAVAILABLE,
    RejectionReason.BACKEND_TIMEOUT: DEADLINE,
    RejectionReason.BACKEND_ERROR: UNAVAILABLE,
    RejectionReason.SIGNER_UNAVAILABLE: UNAVAILABLE,
    RejectionReason.RESPONSE_TOO_LARGE: UNAVAILABLE,
    RejectionReason.SESSION_CLOSED: DENIED,
    RejectionReason.NOT_RECORDED: UNAVAILABLE,
    RejectionReason.OVERLOADED: UNAVAILABLE,
    RejectionReason.DRAINING: UNAVAILABLE,
    RejectionReason.SIMULATION_REFUSED: DENIED,
    RejectionReason.SIMULATION_REPLAYED: EXISTS,
    RejectionReason.SIMULATION_LIMITED: EXHAUSTED,
    RejectionReason.SIMULATION_UNAVAILABLE: UNAVAILABLE,
    RejectionReason.INTERNAL: INTERNAL,
}
"""The gRPC status of every reason to reject."""

_GRPC_WEB: Final = "application/grpc-web+proto"
_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "grpc-status,grpc-message,grpc-status-details-bin,error-code,request-id",
}
_PREFLIGHT: Final = {
    **_CORS,
    "Access-Control-Allow-Methods": "POST, OPTIONS",
    "Access-Control-Allow-Headers": "content-type,x-grpc-web,x-user-agent,grpc-timeout,rpc-type",
    "Access-Control-Max-Age": "600",
}


def _status(code: int, message: str = "") -> dict[str, str]:
    return {
        "grpc-status": str(code), **({"grpc-message": quote(message, safe=" !#$&'()*+,/:;=?@[]")} if message else {})
    }  # fmt: skip


def _refusal(rejected: Rejected) -> dict[str, str]:
    """Return the trailers of a rejection: status, message, stable code and request id."""
    status = _status(STATUS[rejected.reason], rejected.message)
    return {**status, "error-code": rejected.reason.label, "request-id": rejected.request_id}


async def _read_message(request: IncomingRequest, limit: int, *, text: bool) -> bytes:
    """Return the only message of the body.

    Raises Rejected.
    """
    body = await request.read()
    try:
        plain = base64.b64decode(body, validate=True) if text else body
        if plain[:1] == b"\x01" and request.headers.get("grpc-encoding") == "gzip":
            compressed = Framing(limit).one(b"\0" + plain[1:])
            return await request.decoder.decode(compressed, limit, request.reservation)
        return Framing(limit).one(plain)
    except (DecodingError, binascii.Error) as error:
        raise Rejected(RejectionReason.INVALID_REQUEST, f"invalid gRPC message: {error}") from error


async def _call(
    pipeline: RelayPipeline, request: IncomingRequest, transport: Transport, *, text: bool = False
) -> tuple[bytes, dict[str, str]]:
    """Return the framed response, and the status as trailers."""
    if not is_relay(request.method, request.path):
        return b"", _status(UNIMPLEMENTED, f"only {METHOD} is served")
    caller = request.transport_info(transport)
    try:
        message = await _read_message(request, pipeline.registry.max_body_bytes, text=text)
    except Rejected as rejected:
        pipeline.count_rejection(rejected, caller)
        return b"", _refusal(rejected)
    try:
        answer = await pipeline.handle(message, caller)
    except Rejected as rejected:
        return b"", _refusal(rejected)
    except Exception:  # noqa: BLE001 - the border of one call: counted, logged, the process goes on
        failed = Rejected(RejectionReason.INTERNAL, "internal error")
        pipeline.count_rejection(failed, caller)
        _LOG.exception("relay failed", request_id=failed.request_id)
        return b"", _refusal(failed)
    if not isinstance(answer, RelayResult):
        raise TypeError("a stream was not asked for")
    request.on_served()
    return frame(answer.body), _status(OK)


async def answer(pipeline: RelayPipeline, request: IncomingRequest) -> OutgoingResponse:
    """Answer a gRPC call.

    Trailers carry the status, or the headers if there is no response.
    """
    body, trailers = await _call(pipeline, request, Transport.GRPC)
    headers = {"content-type": "application/grpc"}
    if not body:
        return OutgoingResponse(200, {**headers, **trailers})
    return OutgoingResponse(200, headers, body, trailers=trailers)


def is_relay(method: str, path: str) -> bool:
    """Return True for a call of SendRelay, the only method that is served."""
    return method == "POST" and path.partition("?")[0] == METHOD


def is_preflight(request: IncomingRequest) -> bool:
    """Return True if a browser asks for permission to send gRPC-Web."""
    wanted = request.headers.get("Access-Control-Request-Headers", "").lower()
    return request.method == "OPTIONS" and ("x-grpc-web" in wanted or request.path == METHOD)


async def answer_web(pipeline: RelayPipeline, request: IncomingRequest) -> OutgoingResponse:
    """Answer a gRPC-Web call, binary or base64, from any origin.

    The last frame of the body holds the trailers.
    """
    if is_preflight(request):
        return OutgoingResponse(204, _PREFLIGHT)
    content_type = request.headers.get("Content-Type", "")
    text = content_type.startswith("application/grpc-web-text")
    body, trailers = await _call(pipeline, request, Transport.GRPC_WEB, text=text)
    lines = "".join(f"{name}: {value}\r\n" for name, value in trailers.items())
    framed = body + frame(lines.encode(), TRAILERS)
    headers = {"Content-Type": content_type if content_type.isascii() else _GRPC_WEB, **_CORS}
    return OutgoingResponse(200, headers, base64.b64encode(framed) if text else framed)
