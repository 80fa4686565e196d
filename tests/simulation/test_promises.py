"""What the world does not do: faults that nothing could survive, each with its nearest one that counts."""

import pytest
from simulated.plan import Fault, Kind
from simulated.promises import (
    is_last_chance,
    leaves_no_proof,
    leaves_no_time,
    peers_are_away,
    reaches_last_chance,
    replays_too_late,
    takes_the_last_miner,
    takes_the_last_owner,
    takes_the_last_prover,
)


def fault(kind, seconds, *, target="", share=1.0, at=0.0):
    return Fault(0, kind, at, seconds, target, share, 1)


@pytest.mark.parametrize(("height", "blocks", "skipped"), [
    (12, 2, False), (15, 2, False), (16, 2, True), (19, 2, True), (20, 2, False), (17, 1, False), (18, 1, True),
    (24, 2, True), (36, 1, True), (38, 2, False),
])  # fmt: skip
def test_empty_blocks_keep_clear_of_a_windows_last_chance(height, blocks, skipped):
    assert reaches_last_chance(height, blocks) is skipped


def test_proofs_do_not_become_required_in_the_last_blocks_before_a_settlement():
    assert [height for height in range(1, 41) if leaves_no_proof(height)] == [25, 26, 27, 35, 36, 37]


def test_what_the_last_block_of_a_window_may_take_is_not_lost():
    assert [height for height in range(1, 41) if is_last_chance(height)] == [20, 28, 30, 38]


@pytest.mark.parametrize(("away", "lost_at", "height", "skipped"), [
    (fault(Kind.NODE_FAILS, 15.0, share=0.99), 13, 15, True),
    (fault(Kind.NODE_DOWN, 8.0), 13, 19, True),
    (fault(Kind.NODE_DOWN, 5.0), 13, 15, False),
    (fault(Kind.NODE_FAILS, 15.0, share=0.7), 13, 15, False),
    (fault(Kind.NODE_FAILS, 15.0, share=0.99, target="node0"), 13, 15, False),
    (fault(Kind.NODE_FAILS, 15.0, share=0.99), 11, 15, False),
    (fault(Kind.NODE_FAILS, 15.0, share=0.99), 13, 20, False),
    (fault(Kind.NODE_FAILS, 15.0, share=0.99), 0, 5, False),
    (fault(Kind.NODE_LAGS, 15.0), 13, 15, False),
    (fault(Kind.DISK_HANGS, 7.0, target="miner-1", share=5.0), 21, 24, True),
    (fault(Kind.DISK_HANGS, 5.0, target="miner-1", share=5.0), 21, 24, False),
    (fault(Kind.DISK_HANGS, 7.0, target="miner-1", share=5.0), 0, 24, False),
    (fault(Kind.NO_FUNDS, 7.0, target="carol"), 16, 16, True),
    (fault(Kind.KEYS_AWAY, 7.0), 16, 16, True),
])  # fmt: skip
def test_no_miner_is_without_nodes_or_disk_for_long_in_a_window_that_lost_a_transaction(away, lost_at, height, skipped):
    assert leaves_no_time(away, lost_at, height) is skipped


@pytest.mark.parametrize(("unclaimed", "height", "skipped"), [
    ({10}, 14, False), ({10}, 15, True), ({10}, 19, True), ({10}, 20, False),
    ({20}, 16, False), ({20}, 25, True), ({10, 20}, 15, True), (set(), 16, False),
])  # fmt: skip
def test_no_owner_goes_too_late_to_be_replaced_while_its_claims_are_not_on_chain(unclaimed, height, skipped):
    assert takes_the_last_owner(unclaimed, height) is skipped


@pytest.mark.parametrize(("back_at", "height", "late"), [
    (48.8, 10, True), (45.0, 10, True), (44.0, 10, False), (48.8, 16, False), (75.0, 16, True), (74.0, 16, False),
])  # fmt: skip
def test_a_relayer_that_resumes_after_the_middle_of_a_window_is_no_copy_for_its_sessions(back_at, height, late):
    assert replays_too_late(back_at, height) is late


def test_no_owner_that_loses_its_leases_goes_too_late_for_the_next_one_to_prove():
    assert [height for height in range(10, 40) if takes_the_last_prover({10}, height)] == list(range(22, 28))
    assert not takes_the_last_prover(set(), 25)


def test_peers_that_are_away_before_the_seals_leave_each_volume_to_itself():
    away = [fault(Kind.PEERS_AWAY, 20.0, at=50.0)]
    assert [peers_are_away(away, now) for now in (19.0, 21.0, 69.0, 71.0)] == [False, True, True, False]
    assert not peers_are_away([fault(Kind.KILL, 20.0, at=50.0)], 55.0)


@pytest.mark.parametrize(("unclaimed", "unproven", "others", "height", "skipped"), [
    ({10}, set(), 0, 13, True), ({10}, set(), 1, 13, False), (set(), set(), 0, 13, False), ({10}, set(), 0, 9, False),
    ({10}, set(), 0, 10, True), ({10}, set(), 0, 19, True), ({10}, set(), 0, 20, False), ({10, 20}, set(), 0, 20, True),
    (set(), {10}, 0, 19, False), (set(), {10}, 0, 20, True), (set(), {10}, 1, 20, False), (set(), {10}, 0, 27, True),
    (set(), {10}, 0, 28, False),
])  # fmt: skip
def test_no_miner_goes_for_long_while_no_other_one_runs_and_claims_or_proofs_are_due(
    unclaimed, unproven, others, height, skipped
):
    assert takes_the_last_miner(unclaimed, unproven, others, height) is skipped
