"""The session header of a simulated relay: no chain stands behind it (relay-lifecycle.md, section 12)."""

from typing import Final

from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.relays.messages import SessionHeader

SESSION_ID: Final = r"simv1:([0-9]{1,12}):([0-9a-f]{8,64})"
"""Unix seconds and a nonce: what keeps a captured probe from being of use later."""


def simulated_header(application_public_key: bytes, service_id: str, unix_seconds: int, nonce: bytes) -> SessionHeader:
    """A header for one simulated relay; the heights only have to be in order."""
    return SessionHeader(address_of(application_public_key), service_id, f"simv1:{unix_seconds}:{nonce.hex()}", 1, 2)
