"""The work of a supplier at a block: its order, and what a former owner must not do."""

from dataclasses import replace
from itertools import product

import pytest

from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket_miner.sessions.stages import ORDER, SENDS, Action, Decision, Stage, is_early_to_seal
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.suppliers.block_work import work_of

ENDS = (30, 10, 20)


def decisions():
    """Every action for a session of each end height, in an order that is not that of the work."""
    for end, action in product(ENDS, reversed(ORDER)):
        header = SessionHeader("app", "eth", f"{action.name} {end}", end - 9, end)
        yield TrackedSession(header, params=SharedParams()), Decision(Stage.ACTIVE, action)


def test_what_has_a_window_goes_first_and_earlier_sessions_before_later_ones():
    work = work_of(decisions(), 12)
    assert [(group.action, group.end) for group in work.groups] == list(product(ORDER, sorted(ENDS)))
    assert [[session.end for session in group.sessions] for group in work.groups] == [[g.end] for g in work.groups]


def test_sends_go_ahead_of_everything_else_and_are_not_repeated():
    first = work_of(decisions(), 12, sends_only=True)
    assert {group.action for group in first.groups} == set(SENDS)
    rest = work_of(decisions(), 12, sent=first.stages)
    assert {group.action for group in rest.groups} == set(Action) - set(SENDS)
    assert first.stages == rest.stages  # what is not grouped is reported all the same


@pytest.mark.parametrize("action", Action)
def test_only_what_costs_a_fee_or_records_an_outcome_needs_the_fence(action):
    chosen = [(session, decision) for session, decision in decisions() if decision.action is action]
    fenced = {Action.SEND_CLAIM, Action.SEND_PROOF, Action.CONCLUDE}
    assert work_of(chosen, 12).needs_fence == (action in fenced)


def test_a_session_without_a_decision_is_neither_reported_nor_grouped():
    (session, _), *_ = decisions()
    work = work_of([(session, None)], 12)
    assert (work.decided, work.stages, work.groups, work.deadline) == ([], {}, [], None)


@pytest.mark.parametrize("blocks", range(1, 9))
def test_sealing_is_early_in_the_first_half_of_the_claim_window_but_not_in_its_last_two_blocks(blocks):
    (session, _), *_ = decisions()
    opened = session.windows.claim_open
    windows = replace(session.windows, claim_close=opened + blocks)
    early = [height for height in range(opened - 1, opened + blocks + 2) if is_early_to_seal(windows, height)]
    assert early == [height for height in range(opened - 1, opened + blocks - 2) if height - opened < blocks / 2]
