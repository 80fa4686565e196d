"""The checksum of addresses at admission against the protocol's decoder, and the rule's table against the code."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.api.address_checksum import checksum_rule, has_checksum, parity_rows
from pocket.api.stake import StakeSpec
from pocket.protocol.crypto.addresses import encode_address, is_address
from resources import address

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
PAYLOADS = st.binary(min_size=20, max_size=20)


@given(PAYLOADS)
def test_every_address_has_its_checksum(payload):
    assert has_checksum(encode_address(payload))


@given(PAYLOADS, st.lists(st.tuples(st.integers(5, 42), st.sampled_from(ALPHABET)), max_size=6))
def test_a_changed_address_is_accepted_only_if_the_decoder_accepts_it(payload, changes):
    text = list(encode_address(payload))
    for place, character in changes:
        text[place] = character
    decodes = is_address("".join(text))
    # The padding of 160 bits is none, so the checksum alone decides.
    assert has_checksum("".join(text)) == decodes


@given(PAYLOADS, st.integers(5, 41))
def test_two_neighbours_that_were_swapped_are_noticed(payload, place):
    text = encode_address(payload)
    swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    assert has_checksum(swapped) == (swapped == text)


@pytest.mark.parametrize("text", ["", "pokt1", "pokt1" + "b" * 38, address("alice")[:-1], address("alice") + "q"])
def test_a_text_of_another_form_has_none(text):
    assert not has_checksum(text)


def test_the_rule_of_the_api_server_has_the_same_rows_and_a_table_of_parities():
    expression = checksum_rule().expression
    assert tuple(re.findall(rf"'([{ALPHABET}]{{38}}[01])'", expression)) == parity_rows()
    (table,) = re.findall(r"'([01]{1024})'", expression)
    for left in range(32):
        for right in range(32):
            assert table[left * 32 + right] == str((left & right).bit_count() % 2)
    assert list(map(int, re.search(r"\[(0, 1, [\d, ]+)\]", expression)[1].split(", "))) == list(range(38))


def test_a_mistyped_share_is_refused_before_a_stake_is_planned():
    good, mistyped = address("alice"), address("alice")[:-1] + "q"
    spec = {"amountUpokt": 5, "revenueShares": [{"address": good, "percent": 100}]}
    assert StakeSpec.model_validate(spec).revenue_shares[0].address == good
    with pytest.raises(ValueError, match="must have the checksum"):
        StakeSpec.model_validate({**spec, "revenueShares": [{"address": mistyped, "percent": 100}]})
