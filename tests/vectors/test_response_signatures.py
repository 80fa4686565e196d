import pytest

from corpus import load, numbered, unhex
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey, verify_signature
from pocket.protocol.relays.messages import decode_relay_response

CASES = load("response_signatures")["responses"]


@pytest.mark.parametrize(("index", "case"), numbered(CASES))
def test_a_response_is_accepted_exactly_when_the_reference_accepts_it(index, case):
    response = decode_relay_response(unhex(case["response_bytes"]))
    assert response.signable_bytes().hex() == case["signable_bytes"]
    assert response.signable_hash().hex() == case["signable_hash"]
    held = verify_signature(unhex(case["public_key"]), response.signable_hash(), response.supplier_operator_signature)
    assert held == (case["expected"] == "accept")


@pytest.mark.parametrize(
    ("index", "case"), [c for c in numbered(CASES) if c[1]["private_key"] and c[1]["expected"] == "accept"]
)
def test_signing_reproduces_the_signature_byte_for_byte(index, case):
    key = PrivateKey.from_hex(case["private_key"])
    assert key.sign(unhex(case["signable_hash"])).hex() == case["signature"]
    assert address_of(key.public_key) == case["operator_address"]
