"""Signing answers: once, over the payload that is served (relay-lifecycle.md, section 6)."""

import hashlib
from dataclasses import replace

from shannon.crypto.ecdsa import PrivateKey
from shannon.relays.envelope import HttpResponse
from shannon.relays.messages import RelayResponse, SessionHeader


def signed_response(header: SessionHeader, answer: HttpResponse, key: PrivateKey) -> RelayResponse:
    """The response a gateway gets; its copy without payload is what is mined."""
    payload = answer.encode()
    unsigned = RelayResponse(header, b"", payload, hashlib.sha256(payload).digest())
    return replace(unsigned, supplier_operator_signature=key.sign(unsigned.signable_hash()))
