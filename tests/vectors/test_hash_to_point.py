import pytest

from corpus import load, numbered, unhex
from pocket.protocol.crypto.hashing import hash_to_point, hash_to_scalar


@pytest.mark.parametrize(("index", "case"), numbered(load("hash_to_point")["hash_to_point"]))
def test_hash_to_point_equals_the_reference(index, case):
    assert hash_to_point(unhex(case["pubkey"])).encoded.hex() == case["point"]


@pytest.mark.parametrize(("index", "case"), numbered(load("hash_to_point")["hash_to_scalar"]))
def test_hash_to_scalar_aligns_short_values_to_the_left(index, case):
    assert f"{hash_to_scalar(unhex(case['input'])):064x}" == case["scalar"]
