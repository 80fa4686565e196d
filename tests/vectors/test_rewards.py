import pytest

from corpus import load, numbered, unhex
from pocket.protocol.claims.amounts import (
    Price,
    claimed_upokt,
    estimated_compute_units,
    estimated_relays,
    meter_limit_upokt,
    relay_cost_upokt,
)
from pocket.protocol.relays.difficulty import multiplier, target_for
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.smst.digest import Root

DATA = load("rewards")


def price(case):
    return Price(int(case["compute_units_to_tokens_multiplier"]), int(case["compute_unit_cost_granularity"]))


@pytest.mark.parametrize(("index", "case"), numbered(DATA["claims"]))
def test_a_claim_is_worth_what_the_reference_says(index, case):
    root, target = Root(unhex(case["root_hash"])), unhex(case["target_hash"])
    assert str(root.count) == str(case["num_relays"])
    assert str(root.total) == str(case["num_claimed_compute_units"])
    assert str(estimated_compute_units(root, target)) == str(case["num_estimated_compute_units"])
    assert str(estimated_relays(root, target)) == str(case["num_estimated_relays"])
    assert str(multiplier(target)) == case["difficulty_multiplier"]
    assert str(claimed_upokt(root, target, price(case))) == str(case["claimed_upokt"])


@pytest.mark.parametrize(("index", "case"), numbered(DATA["difficulty_updates"]))
def test_the_next_target_equals_the_reference(index, case):
    target = target_for(int(case["num_relays_ema"]), int(case["target_num_relays"]))
    assert target.hex() == case["new_target_hash"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["meter"]))
def test_the_meter_equals_the_reference(index, case):
    params, stake, places = (
        SharedParams(**case["params"]),
        int(case["app_stake_upokt"]),
        case["num_suppliers_per_session"],
    )
    assert str(meter_limit_upokt(stake, places, params)) == str(case["base_limit_upokt"])
    limit = meter_limit_upokt(stake, places, params, case.get("service_factor"))
    assert str(limit) == str(case["limit_upokt"])
    cost = relay_cost_upokt(int(case["compute_units_per_relay"]), price(case))
    assert str(cost) == str(case["relay_cost_upokt"])
