"""Sign a response once, over the payload that is served.

Source: relay-lifecycle.md, section 6.
"""

import hashlib

from pocket.keys.remote_signer import RemoteKey, SignerRefused, SignerUnavailable, SigningKey
from pocket.keys.signer_protocol import DocumentType
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.relays.messages import RelayMinerError, RelayResponse, SessionHeader, encode_response
from pocket_relayer.limits.rejection import Rejected, RejectionReason


async def sign_payload(
    header: SessionHeader, payload: bytes, key: SigningKey, error: RelayMinerError | None = None
) -> RelayResponse:
    """Return the signed response of a payload.

    The payload is an encoded HTTP response, or a WebSocket frame. Raises Rejected.
    """
    if not isinstance(key, RemoteKey):
        return signed_payload(header, payload, key, error)
    payload_hash = hashlib.sha256(payload).digest()
    document = RelayResponse(header, b"", b"", payload_hash, error).signable_bytes()
    try:
        signature = await key.signer.sign(key.public_key, DocumentType.RELAY_RESPONSE, document)
    except (SignerUnavailable, SignerRefused) as failure:
        raise Rejected(RejectionReason.SIGNER_UNAVAILABLE, "the response could not be signed") from failure
    return RelayResponse(header, signature, payload, payload_hash, error)


def signed_payload(
    header: SessionHeader, payload: bytes, key: PrivateKey, error: RelayMinerError | None = None
) -> RelayResponse:
    """Return the response that a key of this process signed."""
    payload_hash = hashlib.sha256(payload).digest()
    signed = hashlib.sha256(encode_response(header, b"", b"", payload_hash, error)).digest()
    return RelayResponse(header, key.sign(signed), payload, payload_hash, error)
