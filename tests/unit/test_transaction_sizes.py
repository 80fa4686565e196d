"""What goes on chain fits into what its nodes take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.smst import digest as d
from pocket.protocol.smst.bulk import LeafContent, LeafSet
from pocket.protocol.transactions.batches import MAX_TRANSACTION_BYTES, batch_by_size, largest_leaf
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure, classify
from pocket.protocol.transactions.build import (
    Message,
    Timestamp,
    TransactionPlan,
    sign_transaction,
    submit_proof_message,
)
from world import address, key

URL = "/pocket.proof.MsgSubmitProof"
HEADER = SessionHeader(address("app"), "s" * 42, "f" * 64, 2**62, 2**62 + 9)


def signed(messages):
    plan = TransactionPlan(tuple(messages), "c" * 50, 2**63, 2**63, 2**62, Timestamp(2**40, 999_999_999))
    return sign_transaction(plan, key("alice")).raw


@given(st.lists(st.integers(0, 9000), max_size=40), st.integers(4096, 20_000))
def test_packs_hold_everything_in_order_and_each_fits_or_is_one_message(sizes, most):
    messages = [Message(URL, bytes(size)) for size in sizes]
    made = batch_by_size(messages, lambda message: message, most)
    assert [message for pack in made for message in pack] == messages
    for pack in made:
        assert pack
        assert len(pack) == 1 or len(signed(pack)) <= most


@pytest.mark.parametrize("number", [2, 3, 5])
@pytest.mark.parametrize("unused", range(0, 4096, 128))
def test_messages_that_just_fit_together_leave_room_for_the_signature(number, unused):
    most = 16_384
    sizes = [2000] * (number - 1)
    sizes.append(most - unused - sum(sizes) - 128 * number)
    messages = [Message(URL, bytes(size)) for size in sizes]
    made = batch_by_size(messages, lambda message: message, most)
    assert all(len(pack) == 1 or len(signed(pack)) <= most for pack in made)


def test_what_fits_together_goes_together():
    messages = [Message(URL, bytes(1000))] * 100
    assert [len(pack) for pack in batch_by_size(messages, lambda message: message, MAX_TRANSACTION_BYTES)] == [100]
    assert batch_by_size([], lambda message: message, MAX_TRANSACTION_BYTES) == []


@pytest.mark.parametrize("most", [65_536, MAX_TRANSACTION_BYTES])
@pytest.mark.parametrize("wanted", [0, 128, 255])
def test_a_largest_leaf_is_proven_in_one_transaction_however_deep_it_is_and_whatever_its_sibling(most, wanted):
    # Beside the leaf on each level of the trie is another one, as large: no trie can have a longer proof.
    base = int.from_bytes(b"\xa5" * 32, "big")
    paths = sorted(number.to_bytes(32, "big") for number in [base, *(base ^ 1 << bit for bit in range(256))])
    value = bytes(largest_leaf(most))
    leaves = LeafSet([(path, d.leaf_digest(path, value, 1)) for path in paths])
    path = (base ^ 1 << wanted).to_bytes(32, "big")
    proof = leaves.closest_proof(path, lambda leaf: LeafContent(value, 1)).compact().marshal()
    raw = signed([submit_proof_message(address("alice"), HEADER, proof)])
    assert len(raw) <= most
    if wanted == 0:
        assert len(raw) > most - 20_000, "no more room is left unused than needed"


def test_a_node_that_takes_no_such_transaction_is_understood():
    assert classify(21, "sdk", "") is BroadcastFailure.TOO_LARGE


def test_more_gas_than_a_block_takes_is_too_large():
    log = "tx gas limit 90000000 exceeds block max gas 40000000: invalid gas limit"
    assert classify(41, "sdk", log) is BroadcastFailure.TOO_LARGE
