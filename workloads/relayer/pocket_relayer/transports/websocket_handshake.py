"""Read a WebSocket handshake.

It names a service and may have a signed request.
"""

import base64
import binascii

from aiohttp import web

from pocket.protocol.relays.messages import RelayRequest, SessionHeader
from pocket_relayer.limits.rejection import Rejected, RejectionReason


def service_of(request: web.BaseRequest) -> str:
    """Return the service id of a handshake, or an empty text if it names none."""
    for name in ("Target-Service-Id", "Pocket-Service-Id", "X-Forwarded-Host"):
        if value := request.headers.get(name, "").strip():
            return value.partition(".")[0] if name == "X-Forwarded-Host" else value
    return request.path.strip("/").partition("/")[0]


def handshake_request(request: web.BaseRequest, service_id: str) -> RelayRequest | None:
    """Return the signed handshake as a relay request without payload.

    Returns None if it is not signed. Raises Rejected if it is invalid.
    """
    headers = request.headers
    signature = headers.get("Pocket-Signature")
    if not signature:
        return None
    try:
        header = SessionHeader(
            headers.get("App-Address", ""), service_id, headers.get("Pocket-Session-Id", ""),
            int(headers.get("Pocket-Session-Start-Height", "")), int(headers.get("Pocket-Session-End-Height", "")),
        )  # fmt: skip
        raw = base64.b64decode(signature, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Rejected(RejectionReason.INVALID_REQUEST, "the signed handshake cannot be read") from error
    return RelayRequest(header, raw, headers.get("Pocket-Supplier-Address", ""), b"")
