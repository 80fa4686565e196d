"""Close codes of WebSocket relays, and why a connection ends."""

from typing import Final

import aiohttp
from aiohttp import WSMsgType

from pocket_relayer.limits.rejection import RejectionReason

SESSION_EXPIRED, VALIDATION_FAILED, LIMIT_REACHED, BACKEND_FAILED = 4000, 4001, 4002, 4003
BACKEND_CODES: Final = {SESSION_EXPIRED: 1001, VALIDATION_FAILED: 1008, LIMIT_REACHED: 1013, BACKEND_FAILED: 1011}
_NEVER_SENT: Final = {1004: 1001, 1005: 1000, 1006: 1001, 1015: 1001}
_CODES: Final = {
    RejectionReason.OVER_BUDGET: LIMIT_REACHED,
    RejectionReason.RATE_LIMITED: LIMIT_REACHED,
    RejectionReason.SESSION_EXPIRED: SESSION_EXPIRED,
    RejectionReason.SESSION_CLOSED: SESSION_EXPIRED,
    RejectionReason.BACKEND_FAILED: BACKEND_FAILED,
    RejectionReason.BACKEND_MISSING: BACKEND_FAILED,
    RejectionReason.BACKEND_UNHEALTHY: BACKEND_FAILED,
    RejectionReason.BACKEND_ERROR: BACKEND_FAILED,
    RejectionReason.BACKEND_TIMEOUT: BACKEND_FAILED,
    RejectionReason.DRAINING: 1001,
    RejectionReason.OVERLOADED: 1013,
    RejectionReason.CHAIN_UNAVAILABLE: 1013,
    RejectionReason.METER_UNAVAILABLE: 1013,
    RejectionReason.SIGNER_UNAVAILABLE: 1013,
    RejectionReason.NOT_RECORDED: 1013,
    RejectionReason.BODY_TOO_LARGE: 1009,
    RejectionReason.INTERNAL: 1011,
}


def close_code(reason: RejectionReason) -> int:
    """Return the close code for a reason. Any fault of the relay itself is 4001."""
    return _CODES.get(reason, VALIDATION_FAILED)


class BridgeClosed(Exception):
    """Ends the bridge with a code for the gateway.

    `by_client` is True if the client caused it.
    """

    def __init__(self, code: int, text: str, *, by_client: bool = False) -> None:
        super().__init__(text)
        self.by_client = by_client
        self.code = _NEVER_SENT.get(code, code)
        self.text = text.encode()[:120].decode("utf-8", "ignore")


def closed_like(message: aiohttp.WSMessage, code: int | None, without: int, *, by_client: bool = False) -> BridgeClosed:
    """Return how the other side is closed: with the same code and text.

    `without` is the code for a peer that vanished without a close frame.
    """
    if message.type is WSMsgType.CLOSE:
        return BridgeClosed(message.data or 1000, message.extra or "", by_client=by_client)
    if message.type is WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
        return BridgeClosed(int(message.data.code), str(message.data), by_client=by_client)
    return BridgeClosed(code or without, "", by_client=by_client)
