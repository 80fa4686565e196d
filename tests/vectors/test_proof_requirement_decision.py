import hashlib
import struct

import pytest

from corpus import header, load, numbered, unhex
from pocket.protocol.claims.amounts import Price, claimed_upokt
from pocket.protocol.claims.go_rand import first_float64, first_int63, varint_seed
from pocket.protocol.claims.proof_requirement import (
    Claim,
    ProofParams,
    proof_path,
    proof_requirement,
    requirement_sample,
)
from pocket.protocol.smst.digest import Root

DATA = load("proof_requirement_decision")


@pytest.mark.parametrize(("index", "case"), numbered(DATA["claims"]))
def test_the_decision_and_all_its_steps_equal_the_reference(index, case):
    fields = case["claim"]
    claim = Claim(fields["supplier_operator_address"], header(fields["session_header"]), unhex(fields["root_hash"]))
    seed = unhex(case["seed_block_hash"])
    assert claim.encode().hex() == case["claim_encoded"]
    claim_hash = hashlib.sha256(claim.encode()).digest()
    assert claim_hash.hex() == case["claim_hash"]
    assert str(varint_seed(hashlib.sha256(claim_hash + seed).digest())) == str(case["varint_seed"])
    assert struct.pack(">d", requirement_sample(claim, seed)).hex() == case["sample"]["bits"]
    price = Price(int(case["compute_units_to_tokens_multiplier"]), int(case["compute_unit_cost_granularity"]))
    amount = claimed_upokt(Root(claim.root_hash), unhex(case["target_hash"]), price)
    assert amount == int(case["claimed_upokt"])
    params = ProofParams(
        proof_request_probability=float(case["proof_request_probability"]),
        proof_requirement_threshold_upokt=int(case["proof_requirement_threshold"]),
    )
    assert proof_requirement(claim, amount, seed, params).name == case["requirement"]
    assert proof_path(seed, claim.header.session_id).hex() == case["proof_path"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["go_rand_seeds"]))
def test_the_generator_gives_the_reference_first_outputs(index, case):
    assert str(first_int63(int(case["seed"]))) == str(case["first_int63"])
    assert struct.pack(">d", first_float64(int(case["seed"]))).hex() == case["first_float64"]["bits"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["varint"]))
def test_the_seed_is_a_zigzag_varint(index, case):
    assert str(varint_seed(unhex(case["bytes"]))) == str(case["seed"])
