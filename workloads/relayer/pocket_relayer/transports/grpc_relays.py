"""SendRelay over gRPC and gRPC-Web (relay-lifecycle.md, section 11), through the pipeline of all transports."""

import base64
import binascii
import logging
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from pocket.errors import DecodingError
from pocket_relayer.framing import TRAILERS, Framing, frame
from pocket_relayer.pipeline.pipeline import Answer, RelayPipeline
from pocket_relayer.pipeline.relay import Caller, Transport
from pocket_relayer.rejection import Reason, Rejected
from pocket_relayer.transports.replies import Asked, Reply

_LOG = logging.getLogger("relayer.grpc")
METHOD: Final = "/pocket.service.RelayService/SendRelay"
OK, INVALID, NOT_FOUND, DENIED, EXHAUSTED, PRECONDITION, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, EXISTS, DEADLINE = (
    0, 3, 5, 7, 8, 9, 12, 13, 14, 6, 4,
)  # fmt: skip

STATUS: Final[Mapping[Reason, int]] = {
    Reason.BODY_UNREADABLE: INVALID,
    Reason.BODY_TOO_LARGE: EXHAUSTED,
    Reason.INVALID_REQUEST: INVALID,
    Reason.METHOD_NOT_ALLOWED: UNIMPLEMENTED,
    Reason.UNKNOWN_SERVICE: NOT_FOUND,
    Reason.UNKNOWN_RPC_TYPE: INVALID,
    Reason.BACKEND_MISSING: UNAVAILABLE,
    Reason.SUPPLIER_MISSING: INVALID,
    Reason.SUPPLIER_NOT_OURS: PRECONDITION,
    Reason.SUPPLIER_INACTIVE: PRECONDITION,
    Reason.WRONG_SERVICE: PRECONDITION,
    Reason.IMPLAUSIBLE_HEIGHTS: INVALID,
    Reason.SESSION_EXPIRED: DENIED,
    Reason.INVALID_SIGNATURE: DENIED,
    Reason.SESSION_MISMATCH: DENIED,
    Reason.SUPPLIER_NOT_IN_SESSION: DENIED,
    Reason.APPLICATION_REFUSED: DENIED,
    Reason.REPLAYED: EXISTS,
    Reason.OVER_BUDGET: EXHAUSTED,
    Reason.RATE_LIMITED: EXHAUSTED,
    Reason.METER_UNAVAILABLE: UNAVAILABLE,
    Reason.CHAIN_UNAVAILABLE: UNAVAILABLE,
    Reason.BACKEND_UNHEALTHY: UNAVAILABLE,
    Reason.BACKEND_FAILED: UNAVAILABLE,
    Reason.BACKEND_TIMEOUT: DEADLINE,
    Reason.BACKEND_ERROR: UNAVAILABLE,
    Reason.RESPONSE_TOO_LARGE: UNAVAILABLE,
    Reason.SESSION_CLOSED: DENIED,
    Reason.NOT_RECORDED: UNAVAILABLE,
    Reason.OVERLOADED: UNAVAILABLE,
    Reason.DRAINING: UNAVAILABLE,
    Reason.SIMULATION_REFUSED: DENIED,
    Reason.SIMULATION_REPLAYED: EXISTS,
    Reason.SIMULATION_LIMITED: EXHAUSTED,
    Reason.SIMULATION_UNAVAILABLE: UNAVAILABLE,
    Reason.INTERNAL: INTERNAL,
}
"""The gRPC status of every reason to refuse."""

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
    """Trailers of a refusal: status and message, the stable code and the request id."""
    status = _status(STATUS[rejected.reason], rejected.message)
    return {**status, "error-code": rejected.reason.label, "request-id": rejected.request_id}


async def _message(asked: Asked, limit: int, *, text: bool) -> bytes:
    """The only message of the body; raises Rejected."""
    body = await asked.read()
    try:
        plain = base64.b64decode(body, validate=True) if text else body
        if plain[:1] == b"\x01" and asked.headers.get("grpc-encoding") == "gzip":
            packed = Framing(limit).one(b"\0" + plain[1:])
            return await asked.decoder.decode(packed, limit, asked.hold)
        return Framing(limit).one(plain)
    except (DecodingError, binascii.Error) as error:
        raise Rejected(Reason.INVALID_REQUEST, f"invalid gRPC message: {error}") from error


async def _call(
    pipeline: RelayPipeline, asked: Asked, transport: Transport, *, text: bool = False
) -> tuple[bytes, dict[str, str]]:
    """The framed answer, and the status as trailers."""
    if asked.method != "POST" or asked.path.partition("?")[0] != METHOD:
        return b"", _status(UNIMPLEMENTED, f"only {METHOD} is served")
    caller = Caller(transport, asked.headers, asked.address, asked.hold)
    try:
        message = await _message(asked, pipeline.catalog.max_body_bytes, text=text)
    except Rejected as rejected:
        pipeline.refused(rejected, caller)
        return b"", _refusal(rejected)
    try:
        answer = await pipeline.handle(message, caller)
    except Rejected as rejected:
        return b"", _refusal(rejected)
    except Exception:  # noqa: BLE001 - the border of one call: counted, logged, the process goes on
        failed = Rejected(Reason.INTERNAL, "internal error")
        pipeline.refused(failed, caller)
        _LOG.exception("relay failed", extra={"fields": {"request_id": failed.request_id}})
        return b"", _refusal(failed)
    if not isinstance(answer, Answer):
        raise TypeError("a stream was not asked for")
    asked.proved()
    return frame(answer.body), _status(OK)


async def answer(pipeline: RelayPipeline, asked: Asked) -> Reply:
    """A gRPC call: trailers carry the status; without an answer they are the headers."""
    body, trailers = await _call(pipeline, asked, Transport.GRPC)
    headers = {"content-type": "application/grpc"}
    if not body:
        return Reply(200, {**headers, **trailers})
    return Reply(200, headers, body, trailers=trailers)


def is_preflight(asked: Asked) -> bool:
    """Whether a browser asks for permission to send gRPC-Web."""
    wanted = asked.headers.get("Access-Control-Request-Headers", "").lower()
    return asked.method == "OPTIONS" and ("x-grpc-web" in wanted or asked.path == METHOD)


async def answer_web(pipeline: RelayPipeline, asked: Asked) -> Reply:
    """A gRPC-Web call, binary or base64, from any origin: the trailers are the last frame of the body."""
    if is_preflight(asked):
        return Reply(204, _PREFLIGHT)
    content_type = asked.headers.get("Content-Type", "")
    text = content_type.startswith("application/grpc-web-text")
    body, trailers = await _call(pipeline, asked, Transport.GRPC_WEB, text=text)
    lines = "".join(f"{name}: {value}\r\n" for name, value in trailers.items())
    whole = body + frame(lines.encode(), TRAILERS)
    headers = {"Content-Type": content_type, **_CORS}
    return Reply(200, headers, base64.b64encode(whole) if text else whole)
