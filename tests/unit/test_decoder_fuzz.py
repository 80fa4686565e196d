"""Every decoder of bytes or text from outside: typed errors only."""

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from answers import end_events
from example_counts import examples
from pocket.chain import comet, convert
from pocket.chain_cache.shared_heights import decode_block
from pocket.errors import ChainQueryRejected, DecodingError, InvalidProof
from pocket.protocol.claims.go_rand import varint_seed
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.smst.verify import unmarshal
from pocket.protocol.transactions.broadcast_errors import classify, failed_message_index
from pocket.protocol.transactions.build import Timestamp, TransactionPlan, create_claim_message, sign_transaction
from pocket.redis_store.seals import SessionSeal, SignedGroup
from pocket_localnet import ante
from pocket_localnet.tx_rejected import TxRejected
from pocket_miner.sessions.leaf_validation import InvalidEntry as GateRefused
from pocket_miner.sessions.leaf_validation import LeafTerms, build_leaf
from pocket_miner.sessions.tracked_session import header_of
from world import World, address, key

BYTES = st.binary(max_size=200)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HEADER = SessionHeader(address("app eth"), "eth", "ab" * 32, 1, 10)
TERMS = LeafTerms(address("alice"), HEADER, BASE_TARGET, 100)
RELAY = World().relay(HEADER, "alice", 1)
PLAN = TransactionPlan(
    (create_claim_message(address("alice"), HEADER, bytes(31) + b"\x01" + bytes(7) + b"\x01" + bytes(7) + b"\x01"),),
    "pocket", 1, 200_000, 1, Timestamp(1000),
)  # fmt: skip
TRANSACTION = sign_transaction(PLAN, key("alice")).raw


@given(BYTES)
@settings(max_examples=examples(150))
def test_arbitrary_bytes(data):
    with contextlib.suppress(TxRejected):
        ante.decode(data)
    with contextlib.suppress(GateRefused):
        build_leaf(data, TERMS)
    with contextlib.suppress(DecodingError):
        header_of(data)
    with contextlib.suppress(InvalidProof):
        unmarshal(data)
    with contextlib.suppress(DecodingError):
        convert.account("/x", data)
    with contextlib.suppress(DecodingError):
        SessionSeal.decode(data)
    with contextlib.suppress(DecodingError):
        SignedGroup.decode(data)
    assert decode_block(data) is None
    assert -(2**63) <= varint_seed(data) < 2**63


def damaged(original):
    return st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)).map(
        lambda change: original[: change[0]] + bytes([change[1]]) + original[change[0] + 1 :]
    )


@given(damaged(RELAY))
@settings(max_examples=examples(150))
def test_a_damaged_relay_is_refused_or_has_another_leaf(data):
    with contextlib.suppress(GateRefused):
        leaf = build_leaf(data, TERMS)
        assert (leaf.value == RELAY) == (data == RELAY)


@given(damaged(TRANSACTION))
@settings(max_examples=examples(150))
def test_a_damaged_transaction_is_decoded_or_refused_with_a_code(data):
    with contextlib.suppress(TxRejected):
        assert ante.decode(data).messages


@given(JSON)
def test_arbitrary_json(value):
    text = json.dumps(value)
    for read in (
        lambda: comet.block_of(comet.result_of(value)),
        lambda: comet.retention_of(comet.result_of(value)),
        lambda: comet.latest_block_of(comet.result_of(value)),
        lambda: end_events([text.encode()]),
        lambda: comet.announced_height(text),
    ):
        with contextlib.suppress(DecodingError, ChainQueryRejected):
            read()


@given(st.text(max_size=60), st.integers(0, 2000), st.sampled_from(["sdk", "proof", "undefined", ""]))
def test_every_refusal_text_gets_some_treatment(log, code, codespace):
    assert classify(code, codespace, log) is not None
    assert failed_message_index(log) is None or "message index" in log
