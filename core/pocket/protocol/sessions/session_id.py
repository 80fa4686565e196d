"""Compute session ids and select a session's suppliers.

Source: docs/protocol/sessions.md, sections 3 and 4.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


def session_id_preimage(block_hash: bytes, service_id: str, application_address: str, session_start: int) -> bytes:
    """Return the bytes whose hash is the session id.

    `block_hash` is the raw hash of the session's first block.
    """
    hash_bytes = block_hash if session_start > 0 else b""
    tail = (session_start & (1 << 64) - 1).to_bytes(8, "little")
    return b".".join((hash_bytes, service_id.encode(), application_address.encode(), tail))


def session_id(preimage: bytes) -> str:
    """64 lower-case hex digits."""
    return hashlib.sha3_256(preimage).hexdigest()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A supplier configured for the service. Candidates come in store order."""

    operator_address: str
    activation_height: int


def supplier_weight(preimage: bytes, operator_address: str) -> int:
    """Sort key of a candidate: a signed 64-bit number."""
    digest = hashlib.sha3_256(preimage + b"." + operator_address.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def select_suppliers(preimage: bytes, candidates: Sequence[Candidate], limit: int) -> list[str]:
    """Return the operator addresses in the session.

    All in store order if fewer than `places`, else the first by weight.
    """
    addresses = [candidate.operator_address for candidate in candidates]
    if len(addresses) < limit:
        return addresses
    return sorted(addresses, key=lambda address: (supplier_weight(preimage, address), address.encode()))[:limit]


def config_active(activation_height: int, deactivation_height: int, height: int) -> bool:
    """Return whether a service configuration is active at a chain height.

    A deactivation height of 0 means that it has no end.
    """
    return activation_height <= height and (deactivation_height == 0 or deactivation_height > height)


def application_active(session_end: int, unstake_session_end: int, transfer_session_end: int) -> bool:
    """Return True if an application takes part in the session that ends then.

    Source: docs/protocol/sessions.md, section 6.
    """
    if unstake_session_end:
        return session_end <= unstake_session_end
    if transfer_session_end:
        return session_end <= transfer_session_end
    return True
