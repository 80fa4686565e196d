"""The reasons for which a relay is rejected, with their HTTP status.

Source: relay-lifecycle.md, section 3.
"""

import enum
import secrets


class RejectionReason(enum.Enum):
    """Closed list of reasons. The value is (metric label, HTTP status)."""

    BODY_UNREADABLE = ("body_unreadable", 400)
    BODY_TOO_LARGE = ("body_too_large", 413)
    INVALID_REQUEST = ("invalid_request", 400)
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405)
    UNKNOWN_SERVICE = ("unknown_service", 404)
    UNKNOWN_RPC_TYPE = ("unknown_rpc_type", 400)
    BACKEND_MISSING = ("backend_missing", 503)
    SUPPLIER_MISSING = ("supplier_missing", 400)
    SUPPLIER_NOT_OURS = ("supplier_not_found", 503)
    SUPPLIER_INACTIVE = ("supplier_inactive", 503)
    WRONG_SERVICE = ("wrong_service", 503)
    IMPLAUSIBLE_HEIGHTS = ("implausible_heights", 400)
    SESSION_EXPIRED = ("session_expired", 403)
    INVALID_SIGNATURE = ("invalid_signature", 403)
    SESSION_MISMATCH = ("session_mismatch", 403)
    SUPPLIER_NOT_IN_SESSION = ("supplier_not_in_session", 403)
    APPLICATION_REFUSED = ("application_refused", 403)
    REPLAYED = ("replayed", 409)
    OVER_BUDGET = ("over_budget", 429)
    RATE_LIMITED = ("rate_limited", 429)
    METER_UNAVAILABLE = ("meter_unavailable", 503)
    CHAIN_UNAVAILABLE = ("chain_unavailable", 503)
    BACKEND_UNHEALTHY = ("backend_unhealthy", 503)
    BACKEND_FAILED = ("backend_failed", 502)
    BACKEND_TIMEOUT = ("backend_timeout", 502)
    BACKEND_ERROR = ("backend_error", 502)
    SIGNER_UNAVAILABLE = ("signer_unavailable", 503)
    RESPONSE_TOO_LARGE = ("response_too_large", 502)
    SESSION_CLOSED = ("session_closed", 403)
    NOT_RECORDED = ("not_recorded", 503)
    OVERLOADED = ("overloaded", 503)
    DRAINING = ("draining", 503)
    SIMULATION_REFUSED = ("simulation_refused", 403)
    SIMULATION_REPLAYED = ("simulation_replayed", 409)
    SIMULATION_LIMITED = ("simulation_limited", 429)
    SIMULATION_UNAVAILABLE = ("simulation_unavailable", 503)
    INTERNAL = ("internal", 500)

    @property
    def label(self) -> str:
        """Return the stable code, used in error responses and as metric label."""
        return self.value[0]

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return self.value[1]


class Rejected(Exception):
    """Rejects a relay.

    The text goes to the gateway, so it names the problem and no secret.
    """

    def __init__(self, reason: RejectionReason, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.status = status or reason.status
        self.request_id = secrets.token_hex(8)
        """Identifies this rejection in the response and in the log."""
        self.service_id = ""
        """Service that rejected, empty if unknown."""

    def close_text(self, limit: int) -> str:
        """Return message, code and request id in at most `limit` bytes.

        The message is shortened.
        """
        suffix = f" ({self.reason.label} {self.request_id})"
        return self.message.encode()[: limit - len(suffix)].decode("utf-8", "ignore") + suffix


def first_rejected(failure: BaseException) -> BaseException:
    """Return the first rejection in a group of failures, or the failure itself."""
    if not isinstance(failure, BaseExceptionGroup):
        return failure
    return next(
        (rejected for part in failure.exceptions if isinstance(rejected := first_rejected(part), Rejected)), failure
    )
