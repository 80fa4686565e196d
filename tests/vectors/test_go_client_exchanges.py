"""Exchanges of the chain's own client with a relayer: what it signed, and responses that it verified and accepted."""

import pytest

from corpus import load, numbered, unhex
from pocket.protocol.crypto.ecdsa import PrivateKey, verify_signature
from pocket.protocol.crypto.ring import verify_ring_signature
from pocket.protocol.relays.envelope import decode_http_request
from pocket.protocol.relays.messages import decode_relay_request, decode_relay_response
from pocket_relayer.pipeline.signing import signed_payload

RECORDED = load("go_client_exchanges")
EXCHANGES = numbered(RECORDED["exchanges"])


def request_of(exchange):
    """Return the body of the recorded request, which the client sent in chunks."""
    head, _, rest = unhex(exchange["request"]).partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    body = b""
    while rest != b"0\r\n\r\n":
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize(("index", "exchange"), EXCHANGES)
def test_the_request_is_canonical_and_signed_by_the_ring(index, exchange):
    body = request_of(exchange)
    request = decode_relay_request(body)
    assert request.encode() == body
    members = frozenset(map(unhex, RECORDED["ring_public_keys"]))
    verify_ring_signature(request.signable_hash(), request.signature, members)
    assert decode_http_request(request.payload).method == "POST"


@pytest.mark.parametrize(("index", "exchange"), EXCHANGES)
def test_the_response_that_the_client_accepted_is_signed_again_byte_for_byte(index, exchange):
    head, _, body = unhex(exchange["response"]).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    key = PrivateKey.from_hex(RECORDED["supplier_private_key"])
    response = decode_relay_response(body)
    assert response.header == decode_relay_request(request_of(exchange)).header
    assert verify_signature(key.public_key, response.signable_hash(), response.supplier_operator_signature)
    assert signed_payload(response.header, response.payload, key).encode() == body
