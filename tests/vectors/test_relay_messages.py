import hashlib

import pytest

from corpus import header, load, numbered, unhex
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.relays.difficulty import is_applicable
from pocket.protocol.relays.messages import Relay, RelayMinerError, RelayRequest, RelayResponse, relay_hash


@pytest.mark.parametrize(("index", "case"), numbered(load("relay_messages")["relays"]))
def test_request_response_and_mined_relay_equal_the_reference(index, case):
    session = header(case["session_header"])
    request = RelayRequest(
        session,
        unhex(case["request_signature"]),
        case["supplier_operator_address"],
        unhex(case["request_payload"]),
    )
    assert request.encode().hex() == case["request_encoded"]
    assert request.signable_hash().hex() == case["request_signable_hash"]
    payload = unhex(case["response_payload"])
    error = case.get("relay_miner_error")
    unsigned = RelayResponse(
        session, b"", payload, hashlib.sha256(payload).digest(), RelayMinerError(**error) if error else None
    )
    assert unsigned.payload_hash.hex() == case["payload_hash"]
    assert unsigned.signable_hash().hex() == case["response_signable_hash"]
    signature = PrivateKey.from_hex(case["supplier_private_key"]).sign(unsigned.signable_hash())
    assert signature.hex() == case["supplier_signature"]
    response = RelayResponse(session, signature, payload, unsigned.payload_hash, unsigned.relay_miner_error)
    assert response.encode().hex() == case["response_encoded"]
    mined = Relay(request, response.without_payload()).encode()
    assert mined.hex() == case["mined_relay_encoded"]
    assert relay_hash(mined).hex() == case["relay_hash"]
    assert is_applicable(relay_hash(mined), unhex(case["target_hash"])) == case["applicable"]
