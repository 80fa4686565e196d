"""Sign a response once, over the payload that is served.

Source: relay-lifecycle.md, section 6.
"""

import hashlib

from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.relays.envelope import HttpResponse
from pocket.protocol.relays.messages import RelayMinerError, RelayResponse, SessionHeader, encode_response


def signed_response(header: SessionHeader, answer: HttpResponse, key: PrivateKey) -> RelayResponse:
    """Return the signed response. Its copy without payload is what is mined."""
    return signed_payload(header, answer.encode(), key)


def signed_payload(
    header: SessionHeader, payload: bytes, key: PrivateKey, error: RelayMinerError | None = None
) -> RelayResponse:
    """Return the signed response of a payload without envelope: a WebSocket frame."""
    payload_hash = hashlib.sha256(payload).digest()
    signed = hashlib.sha256(encode_response(header, b"", b"", payload_hash, error)).digest()
    return RelayResponse(header, key.sign(signed), payload, payload_hash, error)
