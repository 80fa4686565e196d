"""Decide if a relay may be served, from the chain's data on its session. Pure.

Source: relay-lifecycle.md, section 5.
"""

from dataclasses import dataclass, fields
from typing import Final

from pocket.chain.model import Session, StakedSupplier
from pocket.errors import DecodingError, InvalidSignature
from pocket.fast_init import fast_init
from pocket.protocol.crypto.ring import ExpectedRing, verify_request_signature
from pocket.protocol.relays.messages import RelayRequest, SessionHeader
from pocket.protocol.sessions.windows import Windows
from pocket_relayer.limits.rejection import Rejected, RejectionReason

_HEADER_FIELDS: Final = tuple(field.name for field in fields(SessionHeader) if field.compare)
_FARTHEST: Final = 10_000  # blocks between a plausible session and the chain's height


@fast_init
@dataclass(frozen=True, slots=True)
class SessionContext:
    """The chain's data on a relay's session at a height."""

    session: Session
    target_hash: bytes
    windows: Windows
    ring: ExpectedRing
    height: int


@fast_init
@dataclass(frozen=True, slots=True)
class Admitted:
    """The facts of an admitted relay."""

    header: SessionHeader
    target_hash: bytes
    windows: Windows | None
    """None for a simulated relay, which belongs to no session."""
    identity: bytes
    """Identifies the signed request in any encoding, so that replays are recognised."""

    def is_over(self, height: int) -> bool:
        """Return True if the session and its grace period are over."""
        return self.windows is not None and self.windows.grace_elapsed(height)


def plausible_problem(header: SessionHeader, height: int) -> str | None:
    """Return why the heights cannot be right, or None.

    It needs no chain query. Height 0 means that no block is known yet.
    """
    start, end = header.session_start_block_height, header.session_end_block_height
    if start < 1 or end <= start or end - start > _FARTHEST:
        return "the session heights are impossible"
    if height and (start > height + _FARTHEST or end < height - _FARTHEST):
        return "the session heights are far from the chain's height"
    return None


def header_mismatch(header: SessionHeader, onchain: SessionHeader) -> str | None:
    """Return the first field that differs from the chain's session, or None."""
    if header == onchain:
        return None
    for name in _HEADER_FIELDS:
        if getattr(header, name) != getattr(onchain, name):
            return name
    return None


def supplier_rejection(supplier: StakedSupplier, header: SessionHeader, height: int) -> Rejected | None:
    """Return why a staked supplier may not serve a session, or None if it may."""
    unknown = not supplier.service_ids and not supplier.history
    if unknown or supplier.serves(header.service_id, height, header.session_end_block_height):
        return None
    if supplier.unstake_session_end_height:
        return Rejected(
            RejectionReason.SUPPLIER_INACTIVE,
            f"the supplier unstaked: it serves sessions up to height {supplier.unstake_session_end_height}",
        )
    return Rejected(RejectionReason.WRONG_SERVICE, f"the supplier is not staked for service {header.service_id}")


def check_session(header: SessionHeader, session: Session, windows: Windows, height: int) -> None:
    """Raise Rejected for a header that is not the chain's or is over.

    Its session and grace period may be over.
    """
    if field := header_mismatch(header, session.header):
        raise Rejected(RejectionReason.SESSION_MISMATCH, f"the session header's {field} differs from the chain's")
    if windows.grace_elapsed(height):
        raise Rejected(RejectionReason.SESSION_EXPIRED, "the session and its grace period are over")


def authorize(request: RelayRequest, header: SessionHeader, message_hash: bytes, context: SessionContext) -> Admitted:
    """Check session, ring signature and membership, in this order.

    `message_hash` is the request's signable hash. Raises Rejected.
    """
    check_session(header, context.session, context.windows, context.height)
    try:
        identity = verify_request_signature(message_hash, request.signature, context.ring)
    except (InvalidSignature, DecodingError) as error:
        raise Rejected(RejectionReason.INVALID_SIGNATURE, str(error)) from error
    if request.supplier_operator_address not in context.session.supplier_addresses:
        raise Rejected(RejectionReason.SUPPLIER_NOT_IN_SESSION, "the supplier does not belong to the session")
    return Admitted(header, context.target_hash, context.windows, identity)
