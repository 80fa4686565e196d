"""Verify the signatures of relays that peers give.

The chain does so with those that are proven. The streams hold what relayers have verified. A peer may give anything,
and a single wrong leaf costs stake.
"""

from pocket.chain.client import ChainClient
from pocket.chain.ring_queries import query_ring
from pocket.errors import DecodingError, InvalidSignature
from pocket.protocol.crypto.ecdsa import verify_signature_by_address
from pocket.protocol.crypto.ring import ExpectedRing, verify_request_signature
from pocket.protocol.relays.messages import SessionHeader, decode_relay


async def ring_of(chain: ChainClient, header: SessionHeader) -> ExpectedRing:
    """Return the ring that signs the requests of a session.

    Raises ChainError while it is unknown.
    """
    return ExpectedRing.of(await query_ring(chain, header.application_address, header.session_end_block_height))


def is_signed(relay_bytes: bytes, supplier: str, ring: ExpectedRing) -> bool:
    """Return True if the ring signed a relay's request and the supplier its response."""
    try:
        relay = decode_relay(relay_bytes)
        if relay.request is None or relay.response is None:
            return False
        verify_request_signature(relay.request.signable_hash(), relay.request.signature, ring)
        response = relay.response
        signature = response.supplier_operator_signature
        return verify_signature_by_address(supplier, response.signable_hash(), signature)
    except (DecodingError, InvalidSignature):
        return False
