from fractions import Fraction

import pytest

from corpus import header, load, numbered, unhex
from pocket.errors import DecodingError
from pocket.protocol.claims.proof_requirement import proof_path
from pocket.protocol.relays.difficulty import is_applicable, multiplier
from pocket.protocol.relays.messages import (
    RelayRequest,
    decode_relay,
    decode_relay_request,
    decode_relay_response,
    relay_hash,
)
from pocket.protocol.smst.digest import path_of

DATA = load("relay_hashes")


@pytest.mark.parametrize(("index", "case"), numbered(DATA["requests"]))
def test_a_request_has_the_canonical_bytes_and_signable_hash_of_the_reference(index, case):
    fields = case["request"]
    request = RelayRequest(
        header(fields["session_header"]),
        unhex(fields["signature"]),
        fields["supplier_operator_address"],
        unhex(fields["payload"]),
    )
    assert request.encode().hex() == case["request_bytes"]
    assert request.signable_bytes().hex() == case["signable_bytes"]
    assert request.signable_hash().hex() == case["signable_hash"]
    assert (request.problem() is None) == (case["validate_basic"] == "ok")
    assert decode_relay_request(unhex(case["request_bytes"])) == request


@pytest.mark.parametrize("case", DATA["wire_normalisation"], ids=lambda case: case["description"])
def test_odd_encodings_are_normalised_or_refused_as_the_reference_does(case):
    if case["decode"] == "error":
        with pytest.raises(DecodingError):
            decode_relay_request(unhex(case["input"]))
        return
    request = decode_relay_request(unhex(case["input"]))
    assert request.encode().hex() == case["canonical"]
    assert request.signable_hash().hex() == case["signable_hash"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["relays"]))
def test_a_relay_has_the_hash_and_path_of_the_reference(index, case):
    relay = decode_relay(unhex(case["relay_bytes"]))
    assert relay.encode().hex() == case["relay_bytes"]
    assert relay_hash(relay.encode()).hex() == case["relay_hash"]
    assert path_of(unhex(case["relay_hash"])).hex() == case["trie_path"]
    if case["served_response_bytes"]:
        served = decode_relay_response(unhex(case["served_response_bytes"]))
        assert served.without_payload() == relay.response


@pytest.mark.parametrize(("index", "case"), numbered(DATA["difficulty"]))
def test_difficulty_is_a_strict_comparison_of_byte_strings(index, case):
    assert is_applicable(unhex(case["relay_hash"]), unhex(case["target_hash"])) == case["applicable"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["difficulty_multiplier"]))
def test_the_difficulty_multiplier_is_exact(index, case):
    exact = Fraction(int(case["multiplier_numerator"]), int(case["multiplier_denominator"]))
    assert multiplier(unhex(case["target_hash"])) == exact


@pytest.mark.parametrize(("index", "case"), numbered(DATA["proof_paths"]))
def test_the_proof_path_hashes_the_session_id_as_text(index, case):
    assert proof_path(unhex(case["block_hash"]), case["session_id"]).hex() == case["path"]
