import pytest

from corpus import load, numbered, unhex
from pocket.errors import PocketError
from pocket.protocol.crypto.ring import verify_ring_signature
from pocket.protocol.relays.messages import decode_relay_request
from pocket.protocol.rings import Delegations, ring_addresses, ring_keys
from pocket.protocol.sessions.windows import SharedParams

SCENARIOS = load("ring_construction")["scenarios"]


def session_end(scenario, height):
    state = scenario["state"]
    params = SharedParams(
        num_blocks_per_session=state["num_blocks_per_session"],
        session_grid_anchor_height=state["session_grid_anchor_height"],
    )
    return params.session_end(height)


def ring_of(scenario, height):
    state = scenario["state"]
    pending = {int(h): tuple(a) for h, a in state["pending_undelegations"].items()}
    delegations = Delegations(state["application_address"], tuple(state["delegatee_gateway_addresses"]), pending)
    addresses = ring_addresses(delegations, session_end(scenario, height))
    keys = {address: unhex(key) for address, key in state["account_public_keys"].items()}
    return addresses, ring_keys(addresses, keys)


@pytest.mark.parametrize(("index", "scenario"), numbered(SCENARIOS))
def test_the_expected_ring_equals_the_reference(index, scenario):
    assert session_end(scenario, scenario["query_height"]) == scenario["session_end_height"]
    addresses, keys = ring_of(scenario, scenario["query_height"])
    assert list(addresses) == scenario["ring_addresses_sorted"]
    assert [key.hex() for key in keys] == scenario["ring_public_keys_in_order"]
    assert sorted({key.hex() for key in keys}) == scenario["expected_member_set"]


@pytest.mark.parametrize(("index", "case"), numbered(load("ring_construction")["requests"]))
def test_a_request_is_accepted_exactly_when_the_reference_accepts_it(index, case):
    scenario = SCENARIOS[case["scenario"]]
    kind = ""
    try:
        request = decode_relay_request(unhex(case["request_bytes"]))
        if request.problem() or request.header.application_address != scenario["state"]["application_address"]:
            kind = "invalid_request"
        else:
            _, keys = ring_of(scenario, request.header.session_end_block_height)
            if case["signable_hash"]:
                assert request.signable_hash().hex() == case["signable_hash"]
            try:
                verify_ring_signature(request.signable_hash(), request.signature, frozenset(keys))
            except PocketError:
                kind = "invalid_signature"
    except (PocketError, KeyError):
        kind = "invalid_request"
    assert kind == case["reject_kind"]
