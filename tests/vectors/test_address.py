import hashlib

import pytest

from corpus import load, numbered, unhex
from pocket.protocol.crypto.addresses import address_of, encode_address, is_address, parse_address
from pocket.protocol.crypto.curve import N
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.rings import PLACEHOLDER_ADDRESS, PLACEHOLDER_PRIVATE_KEY, PLACEHOLDER_PUBLIC_KEY

DATA = load("address")


@pytest.mark.parametrize(("index", "case"), numbered(DATA["keys"]))
def test_keys_have_the_public_key_and_address_of_the_reference(index, case):
    key = PrivateKey.from_hex(case["private_key"])
    assert key.public_key.hex() == case["public_key"]
    assert address_of(key.public_key) == case["address"]
    assert parse_address(case["address"]).hex() == case["address_bytes"]


@pytest.mark.parametrize("case", DATA["parse"], ids=lambda case: case["description"])
def test_parsing_accepts_and_refuses_what_the_reference_does(case):
    assert is_address(case["address"]) == (case["expected"] == "accept")
    if case["expected"] == "accept":
        assert parse_address(case["address"]).hex() == case["address_bytes"]


def test_the_placeholder_member_is_derived_from_its_public_secret():
    placeholder = DATA["placeholder_ring_member"]
    secret = int.from_bytes(hashlib.sha256(placeholder["secret_text"].encode()).digest(), "big") % (N - 1) + 1
    assert secret.to_bytes(32, "big").hex() == placeholder["private_key"] == PLACEHOLDER_PRIVATE_KEY.hex()
    assert PrivateKey(PLACEHOLDER_PRIVATE_KEY).public_key == PLACEHOLDER_PUBLIC_KEY
    assert placeholder["address_hex_upper"] == PLACEHOLDER_ADDRESS
    assert encode_address(unhex(placeholder["address_hex_upper"])) == placeholder["address_bech32"]
