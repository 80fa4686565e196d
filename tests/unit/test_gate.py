from dataclasses import replace

import pytest

from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import Relay, SessionHeader, decode_relay, relay_hash
from pocket.protocol.smst.digest import leaf_digest, path_of
from pocket_miner.sessions.leaf_validation import InvalidEntry, LeafTerms, build_leaf
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


def test_a_relay_at_or_above_the_target_is_refused():
    target = relay_hash(RELAY)
    with pytest.raises(InvalidEntry, match="difficulty"):
        build_leaf(RELAY, replace(TERMS, target_hash=target))
    above = (int.from_bytes(target, "big") + 1).to_bytes(32, "big")
    assert build_leaf(RELAY, replace(TERMS, target_hash=above)).weight == 100


def test_the_weight_is_the_chains_never_the_entrys():
    assert build_leaf(RELAY, replace(TERMS, compute_units_per_relay=7)).weight == 7
