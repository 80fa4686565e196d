import pytest

from corpus import load, numbered, unhex
from pocket.protocol.sessions.session_id import (
    Candidate,
    application_active,
    config_active,
    select_suppliers,
    session_id,
    session_id_preimage,
    supplier_weight,
)
from pocket.protocol.sessions.windows import SharedParams, Windows

DATA = load("sessions")


@pytest.mark.parametrize(("index", "case"), numbered(DATA["grid"]))
def test_grid_and_windows_equal_the_reference(index, case):
    params = SharedParams(**case["params"])
    assert params.pending_sessions == case["num_pending_sessions"]
    for row in case["heights"]:
        height = row["height"]
        assert params.session_start(height) == row["session_start"]
        assert params.session_end(height) == row["session_end"]
        assert params.session_number(height) == row["session_number"]
        if height <= 0:
            continue
        windows = params.windows(height)
        assert windows.session_end + 1 == row["next_session_start"]
        assert (height == row["session_start"]) == row["is_session_start"]
        assert (height == row["session_end"]) == row["is_session_end"]
        assert windows.grace_end == row["grace_period_end"]
        assert windows.claim_open == row["claim_window_open"]
        assert windows.claim_close == row["claim_window_close"]
        assert windows.proof_open == row["proof_window_open"]
        assert windows.proof_close == row["proof_window_close"]
        assert windows.proof_seed == row["proof_seed_block"]
        assert windows.earliest_claim_commit == row["earliest_claim_commit"]
        assert windows.earliest_proof_commit == row["earliest_proof_commit"]
        assert windows.settlement == row["settlement_height"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["grace"]))
def test_the_grace_period_ends_where_the_reference_ends_it(index, case):
    windows = Windows.after(case["session_end"], SharedParams(**case["params"]))
    assert windows.grace_elapsed(case["current_height"]) == case["elapsed"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["session_ids"]))
def test_session_ids_equal_the_reference(index, case):
    assert SharedParams(**case["params"]).session_start(case["height"]) == case["session_start"]
    preimage = session_id_preimage(
        unhex(case["block_hash"]), case["service_id"], case["application_address"], case["session_start"]
    )
    assert preimage.hex() == case["preimage"]
    assert session_id(preimage) == case["session_id"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["supplier_selection"]))
def test_the_same_suppliers_are_selected_in_the_same_order(index, case):
    preimage = unhex(case["session_id_preimage"])
    rows = case["candidates_in_store_order"]
    candidates = [Candidate(row["operator_address"], row["activation_height"]) for row in rows]
    for row in rows:
        assert str(supplier_weight(preimage, row["operator_address"])) == str(row["weight"])
    assert select_suppliers(preimage, candidates, case["num_suppliers_per_session"]) == case["selected"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["service_config_active"]))
def test_a_service_configuration_is_active_between_its_bounds(index, case):
    active = config_active(case["activation_height"], case["deactivation_height"], case["height"])
    assert active == case["active"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["application_active"]))
def test_an_application_is_active_until_it_unstakes_or_transfers(index, case):
    active = application_active(
        case["session_end_height"],
        case["unstake_session_end_height"],
        case["pending_transfer_session_end_height"],
    )
    assert active == case["active"]
