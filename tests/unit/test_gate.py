from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import Relay, SessionHeader, decode_relay, relay_hash
from pocket.protocol.relays.wire import bytes_field
from pocket.protocol.smst.digest import leaf_digest, path_of
from pocket_miner.sessions.leaf_validation import InvalidEntry, LeafBuilder, LeafTerms, _check, build_leaf
from world import World, address

HEADER = SessionHeader(address("app eth"), "eth", "ab" * 32, 1, 10)
TERMS = LeafTerms(address("alice"), HEADER, BASE_TARGET, 100)
RELAY = World().relay(HEADER, "alice", 1)


def altered(**changes):
    relay = decode_relay(RELAY)
    request = replace(relay.request, **changes.get("request", {}))
    response = replace(relay.response, **changes.get("response", {}))
    return Relay(request, response).encode()


def test_a_good_relay_becomes_the_leaf_the_chain_would_check():
    leaf = build_leaf(RELAY, TERMS)
    assert leaf.path == path_of(relay_hash(RELAY))
    assert leaf.digest == leaf_digest(leaf.path, RELAY, 100)
    assert (leaf.weight, leaf.value) == (100, RELAY)


OTHER = replace(HEADER, session_start_block_height=2)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (b"", "canonical"),
        (b"\xff\xff", "not a relay"),
        (RELAY + b"\x7a\x00", "canonical"),
        (RELAY[:-1], "not a relay"),
        (altered(request={"header": OTHER}), "header"),
        (altered(response={"header": OTHER}), "header"),
        (altered(request={"header": None}), "header"),
        (altered(request={"supplier_operator_address": address("bob")}), "another supplier"),
        (altered(request={"signature": b""}), "signature"),
        (altered(response={"supplier_operator_signature": b"x"}), "signature"),
        (altered(response={"payload": b"x"}), "payload"),
    ],
)
def test_nothing_enters_the_index_unchecked(entry, reason):
    with pytest.raises(InvalidEntry, match=reason):
        build_leaf(entry, TERMS)


def test_a_payload_that_is_written_though_it_is_empty_is_not_canonical():
    relay = decode_relay(altered(request={"payload": b""}, response={"payload_hash": b""}))
    request, response = relay.request.encode(), relay.response.encode()
    assert build_leaf(bytes_field(1, request) + bytes_field(2, response), TERMS).weight == 100
    with pytest.raises(InvalidEntry, match="canonical"):
        build_leaf(bytes_field(1, request + b"\x12\x00") + bytes_field(2, response), TERMS)


def test_a_relay_at_or_above_the_target_is_refused():
    target = relay_hash(RELAY)
    with pytest.raises(InvalidEntry, match="difficulty"):
        build_leaf(RELAY, replace(TERMS, target_hash=target))
    above = (int.from_bytes(target, "big") + 1).to_bytes(32, "big")
    assert build_leaf(RELAY, replace(TERMS, target_hash=above)).weight == 100


def test_the_weight_is_the_chains_never_the_entrys():
    assert build_leaf(RELAY, replace(TERMS, compute_units_per_relay=7)).weight == 7


def varint(number, padding=0):
    """Encode a number, with as many bytes more than it needs."""
    rest, low = number >> 7, number & 0x7F
    if not rest and not padding:
        return bytes((low,))
    return bytes((low | 0x80,)) + varint(rest, padding if rest else padding - 1)


@st.composite
def encodings(draw):
    """Draw an encoding of a relay of this session that is right everywhere, or wrong in a few places."""
    seldom = st.sampled_from([False] * 15 + [True])

    def field(number, content):
        if draw(seldom):
            return draw(st.sampled_from([b"", bytes((number << 3,)) + b"\x01", varint(number << 3 | 2) + b"\x00"]))
        return varint(number << 3 | 2, draw(seldom)) + varint(len(content), draw(seldom)) + content

    def message(*fields):
        rows = list(fields)
        if draw(seldom):
            rows = draw(st.permutations(rows))
        if draw(seldom):
            rows.insert(draw(st.integers(0, len(rows))), draw(st.sampled_from([b"\x7a\x00", b"\x1a\x01x", *rows])))
        return b"".join(rows)

    header = (OTHER if draw(seldom) else HEADER).encode()
    supplier = address("bob" if draw(seldom) else "alice").encode()
    sizes = st.sampled_from([1, 32, 100, 127, 128, 129, 2000, 16383, 16384, 70_000])
    payload = [field(2, bytes(draw(sizes)))] if draw(st.booleans()) else []
    payload_hash = [field(4, bytes(draw(sizes)))] if draw(st.booleans()) else []
    signature = bytes(63 if draw(seldom) else 64)
    meta = field(1, message(field(1, header), field(2, bytes(draw(sizes))), field(3, supplier)))
    response_meta = field(1, message(field(1, header), field(2, signature)))
    request, response = message(meta, *payload), message(response_meta, *payload_hash)
    entry = message(field(1, request), field(2, response))
    return entry[: draw(st.integers(0, len(entry)))] if draw(seldom) else entry


@settings(max_examples=examples(300), deadline=None)
@given(encodings())
def test_a_relay_of_the_usual_form_is_one_that_the_decoder_takes(entry):
    if LeafBuilder(TERMS).has_usual_form(entry):
        _check(entry, TERMS)


@pytest.mark.parametrize("payload", [0, 1, 127, 128, 16383, 16384, 70_000, 2**21 - 400])
def test_usual_relays_need_no_decoder(payload):
    assert LeafBuilder(TERMS).has_usual_form(altered(request={"payload": bytes(payload)}))


def test_what_is_too_long_for_the_usual_form_is_decoded():
    entry = altered(request={"payload": bytes(2**21)})
    assert not LeafBuilder(TERMS).has_usual_form(entry)
    assert build_leaf(entry, TERMS).value == entry
