"""Build the session header of a simulated relay.

It belongs to no chain session. Source: docs/protocol/relay-lifecycle.md, section 12.
"""

from typing import Final

from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.relays.messages import SessionHeader

SESSION_ID: Final = r"simv1:([0-9]{1,12}):([0-9a-f]{8,64})"
"""Unix seconds and a nonce, which make a captured probe useless later."""


def simulated_header(application_public_key: bytes, service_id: str, unix_seconds: int, nonce: bytes) -> SessionHeader:
    """Return a header for one simulated relay.

    The heights are arbitrary as long as they are in order.
    """
    return SessionHeader(address_of(application_public_key), service_id, f"simv1:{unix_seconds}:{nonce.hex()}", 1, 2)
