"""The stage function over every height, seal, claim state and requirement of many grids."""

import itertools

import pytest

from pocket.protocol.claims.proof_requirement import ProofRequirement
from pocket.protocol.sessions.windows import SharedParams, Windows
from pocket_miner.sessions.stages import (
    Action,
    ClaimState,
    Decision,
    SessionSnapshot,
    Stage,
    decide,
    in_last_third,
    is_late_to_seal,
)

GRIDS = [
    SharedParams(),
    SharedParams(num_blocks_per_session=6, claim_window_close_offset_blocks=8, proof_window_close_offset_blocks=8),
    SharedParams(claim_window_open_offset_blocks=3, proof_window_open_offset_blocks=2),
    SharedParams(claim_window_close_offset_blocks=1, proof_window_close_offset_blocks=1),
]
ALL = list(itertools.product([False, True], ClaimState, [None, *ProofRequirement]))


def every(params):
    windows = Windows.after(10, params)
    for height in range(1, windows.settlement + 4):
        for sealed, claim, requirement in ALL:
            yield windows, height, SessionSnapshot(windows, sealed, claim, requirement)


@pytest.mark.parametrize("params", GRIDS, ids=range(len(GRIDS)))
def test_nothing_is_sent_that_the_chain_would_refuse_for_its_height(params):
    for windows, height, facts in every(params):
        action = decide(facts, height).action
        if action in (Action.SEAL, Action.SEND_CLAIM):
            assert windows.claim_open <= height < windows.claim_close
        if action is Action.SEND_PROOF:
            assert windows.proof_open <= height < windows.proof_close


@pytest.mark.parametrize("params", GRIDS, ids=range(len(GRIDS)))
def test_the_last_third_of_a_window_is_when_something_can_still_be_sent_and_little_is_left(params):
    for windows, height, facts in every(params):
        decision = decide(facts, height)
        last = in_last_third(windows, decision.stage, height)
        in_claim, in_proof = (
            first <= height < close and (close - height) * 3 <= close - first
            for first, close in ((windows.claim_open, windows.claim_close), (windows.proof_open, windows.proof_close))
        )
        if decision.action in (Action.SEND_CLAIM, Action.SEAL):
            assert last == in_claim
        elif decision.action is Action.SEND_PROOF:
            assert last == in_proof
        elif decision.stage not in (Stage.CLAIMABLE, Stage.SEALED, Stage.PROOFABLE):
            assert not last


@pytest.mark.parametrize("params", GRIDS, ids=range(len(GRIDS)))
def test_a_session_is_sealed_only_once_and_only_a_seal_is_sent(params):
    for _, height, facts in every(params):
        action = decide(facts, height).action
        assert not (action is Action.SEAL and facts.sealed)
        assert not (action in (Action.SEND_CLAIM, Action.SEND_PROOF) and not facts.sealed)


@pytest.mark.parametrize("params", GRIDS, ids=range(len(GRIDS)))
def test_no_proof_is_sent_without_an_own_claim_on_chain_or_without_need(params):
    for _, height, facts in every(params):
        if decide(facts, height).action is Action.SEND_PROOF:
            assert facts.claim not in (ClaimState.ABSENT, ClaimState.CONFLICTING, ClaimState.VALIDATED)
            assert facts.requirement is not ProofRequirement.NOT_REQUIRED


@pytest.mark.parametrize("params", GRIDS, ids=range(len(GRIDS)))
def test_every_session_is_time_its_settlement_at_the_latest(params):
    for windows, height, facts in every(params):
        if height >= windows.settlement:
            assert decide(facts, height).action is Action.CONCLUDE


@pytest.mark.parametrize("params", GRIDS, ids=range(len(GRIDS)))
def test_before_the_claim_window_nothing_happens(params):
    for windows, height, facts in every(params):
        if height < windows.claim_open and facts.claim is ClaimState.ABSENT:
            stage = Stage.ACTIVE if height <= windows.session_end else Stage.GRACE
            assert decide(facts, height) == Decision(stage, Action.NOTHING)


def test_the_stages_of_an_ordinary_session_in_order():
    windows = Windows.after(10, SharedParams())
    required = ProofRequirement.PROBABILISTIC
    rows = [
        (9, False, ClaimState.ABSENT, None, Stage.ACTIVE, Action.NOTHING),
        (11, False, ClaimState.ABSENT, None, Stage.GRACE, Action.NOTHING),
        (12, False, ClaimState.ABSENT, None, Stage.CLAIMABLE, Action.NOTHING),
        (13, False, ClaimState.ABSENT, None, Stage.CLAIMABLE, Action.SEAL),
        (14, True, ClaimState.ABSENT, None, Stage.SEALED, Action.SEND_CLAIM),
        (14, True, ClaimState.PENDING, None, Stage.CLAIMED, Action.NOTHING),
        (16, True, ClaimState.PENDING, required, Stage.PROOFABLE, Action.SEND_PROOF),
        (16, True, ClaimState.PENDING, None, Stage.PROOFABLE, Action.SEND_PROOF),
        (17, True, ClaimState.INVALID, required, Stage.PROOFABLE, Action.SEND_PROOF),
        (17, True, ClaimState.VALIDATED, required, Stage.PROVEN, Action.NOTHING),
        (17, True, ClaimState.PENDING, ProofRequirement.NOT_REQUIRED, Stage.PROOF_NOT_REQUIRED, Action.NOTHING),
        (20, True, ClaimState.ABSENT, required, Stage.SETTLED, Action.CONCLUDE),
    ]
    for height, sealed, claim, requirement, stage, action in rows:
        assert decide(SessionSnapshot(windows, sealed, claim, requirement), height) == Decision(stage, action)


@pytest.mark.parametrize("params", GRIDS, ids=range(len(GRIDS)))
def test_no_session_is_concluded_before_its_settlement(params):
    for windows, height, facts in every(params):
        if height < windows.settlement:
            assert decide(facts, height).action is not Action.CONCLUDE


@pytest.mark.parametrize("params", GRIDS, ids=range(len(GRIDS)))
def test_a_sealed_claim_that_may_be_on_chain_is_proven_in_each_block_of_the_proof_window(params):
    windows = Windows.after(10, params)
    for height in range(windows.proof_open, windows.proof_close):
        for claim in (ClaimState.UNKNOWN, ClaimState.PENDING, ClaimState.INVALID):
            assert decide(SessionSnapshot(windows, True, claim, None), height).action is Action.SEND_PROOF


@pytest.mark.parametrize("params", [*GRIDS, SharedParams(claim_window_close_offset_blocks=2)], ids=range(5))
def test_each_claim_window_has_a_last_block_in_which_whatever_is_there_is_sealed(params):
    windows = Windows.after(10, params)
    late = [is_late_to_seal(windows, height) for height in range(windows.claim_open, windows.claim_close)]
    assert late[-1]
    assert late == sorted(late)
    assert late.count(True) <= max(1, len(late) / 3)


def test_a_claim_of_which_nobody_knows_is_proven_and_one_that_is_not_there_is_not():
    windows = Windows.after(10, SharedParams())
    assert decide(SessionSnapshot(windows, True, ClaimState.UNKNOWN, None), 17).action is Action.SEND_PROOF
    assert decide(SessionSnapshot(windows, True, ClaimState.ABSENT, None), 17) == Decision(Stage.SEALED, Action.NOTHING)
    assert decide(SessionSnapshot(windows, True, ClaimState.CONFLICTING, None), 17) == Decision(
        Stage.CLAIMED, Action.NOTHING
    )


@pytest.mark.parametrize(("close", "after", "height"), [(4, 1, 13), (8, 1, 13), (4, 3, 13), (8, 99, 17), (1, 1, 12)])
def test_sealing_is_late_but_leaves_three_blocks(close, after, height):
    windows = Windows.after(10, SharedParams(claim_window_close_offset_blocks=close))
    assert windows.seal_height(after) == height
