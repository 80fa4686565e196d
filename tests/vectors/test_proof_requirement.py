import hashlib
import struct

import pytest

from corpus import header, load, numbered, unhex
from pocket.protocol.claims.go_rand import first_float64, varint_seed
from pocket.protocol.claims.proof_requirement import Claim, requirement_sample

DATA = load("proof_requirement")


def bits(value):
    return struct.pack(">d", value).hex()


@pytest.mark.parametrize(("index", "case"), numbered(DATA["seeded_float"]))
def test_the_seeded_float_has_the_reference_bits(index, case):
    value = first_float64(varint_seed(hashlib.sha256(unhex(case["seed"])).digest()))
    assert bits(value) == case["bits"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["claims"]))
def test_the_sample_of_a_claim_has_the_reference_bits(index, case):
    claim = Claim(case["supplier_operator_address"], header(case["session_header"]), unhex(case["root_hash"]))
    assert claim.encode().hex() == case["claim_bytes"]
    assert hashlib.sha256(claim.encode()).hexdigest() == case["claim_hash"]
    assert bits(requirement_sample(claim, unhex(case["block_hash"]))) == case["sample_bits"]
