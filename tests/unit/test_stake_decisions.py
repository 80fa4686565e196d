"""What the operator does about a declared stake: never twice, never more than the budget, never without an approval."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pocket.api.stake import StakePolicy, StakeSpec, StakeTransactionStatus, StakingStatus
from pocket.api.status import DrainProgress
from pocket.protocol.transactions.staking import Parties, stake_message
from pocket.staking.chain import SentOutcome, SentState
from pocket.staking.stake_model import ApprovalCause, StakeChange, StakeCost, StakePlan, StakeRefusal, StakeState
from pocket_operator.controller.stake_keeper import without_staking
from pocket_operator.decide.conditions import StakeCondition, stake_event
from pocket_operator.decide.reasons import StakeReason
from pocket_operator.decide.stake_decision import (
    APPROVAL,
    StakeSight,
    StakeStep,
    after_sending,
    last_included,
    signed_status,
    towards_declaration,
    unstakes,
    would_fail,
)
from world import address

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALICE = address("alice")
CHANGE = StakePlan(
    StakeState.CHANGE, "TopUp", changes=(StakeChange.TOP_UP,), plan_hash="a" * 32, gas_limit=500_000,
    messages=(stake_message(Parties(ALICE, ALICE, ALICE), 5, ()),), cost=StakeCost(4_000_000, 1_000_000, 1),
)  # fmt: skip
LAST = StakeTransactionStatus(
    hash="AB", plan=CHANGE.plan_hash, raw="AA==", cost_upokt=5_000_001, fee_upokt=1, outcome="Sent",
    signed_at="2026-01-01T00:00:00Z",
)  # fmt: skip


def spec(policy="Apply", budget=10_000_000, **more):
    return StakeSpec(policy=policy, amount_upokt=5, budget_upokt=budget, **more)


def sight(policy="Apply", budget=10_000_000, **more):
    fields = {"namespace": "ns", "name": "alice", "spec": spec(policy, budget), "signer": ALICE, "has_key": True}
    return StakeSight(**{**fields, "approved": "", "now": NOW, "status": StakingStatus(), **more})


def of(last=LAST, **more):
    return StakingStatus(transaction=last.model_copy(update=more))


def test_the_status_has_the_whole_effect_but_the_height_that_changes_with_each_session():
    effect = ("Added: blockscout.", "In force from block 121 at the earliest. Present endpoints serve until then.")
    made = towards_declaration(sight("Plan"), replace(CHANGE, effect=effect))
    assert made.status.plan.effect == effect[:1]


PLANS = st.builds(
    lambda causes, refusal, state: replace(
        CHANGE if state is StakeState.CHANGE else StakePlan(state, "words", declaration="d"),
        approvals=tuple(causes) if state is StakeState.CHANGE else (),
        refusal=refusal if state is StakeState.REFUSED else None,
    ),
    st.sets(st.sampled_from(list(ApprovalCause))), st.sampled_from(list(StakeRefusal)),
    st.sampled_from(list(StakeState)),
)  # fmt: skip


@given(
    PLANS, st.sampled_from(list(StakePolicy)), st.sampled_from(["", "a" * 32, "b" * 32]), st.integers(0, 12_000_000),
    st.booleans(), st.sampled_from(["", "Included", "Failed", "Expired"]), st.integers(0, 7200),
)  # fmt: skip
def test_money_moves_only_by_approval_or_within_budget_and_rate(plan, policy, annotation, spent, has_key, last, age):
    status = of(outcome=last).model_copy(update={"spent_upokt": spent}) if last else StakingStatus(spent_upokt=spent)
    made = towards_declaration(
        sight(policy, approved=annotation, status=status, has_key=has_key, now=NOW + timedelta(seconds=age)), plan
    )
    if made.step is not StakeStep.SIGN:
        return
    assert plan.state is StakeState.CHANGE
    assert has_key
    assert policy is not StakePolicy.OBSERVE
    assert made.approved == (annotation == plan.plan_hash and last != "Included"), "an approval is used up"
    if not made.approved:
        assert policy is StakePolicy.APPLY
        assert not plan.approvals
        assert spent + plan.cost.total_upokt <= 10_000_000
        assert last in ("", "Expired") or age >= 3600
    if last == "Failed":
        assert age >= 3600, "the same plan failed just before"


@pytest.mark.parametrize(
    ("made", "reason", "step"),
    [
        (sight("Observe"), StakeReason.DIFFERS, StakeStep.NOTHING),
        (sight("Plan"), StakeReason.AWAITS_APPROVAL, StakeStep.NOTHING),
        (sight("Plan", approved="a" * 32), StakeReason.SIGNING, StakeStep.SIGN),
        (sight("Plan", approved="b" * 32), StakeReason.AWAITS_APPROVAL, StakeStep.NOTHING),
        (sight(), StakeReason.SIGNING, StakeStep.SIGN),
        (sight(budget=5_000_000), StakeReason.BUDGET_EXHAUSTED, StakeStep.NOTHING),
        (sight(status=StakingStatus(spent_upokt=9_999_999)), StakeReason.BUDGET_EXHAUSTED, StakeStep.NOTHING),
        (sight(budget=5_000_000, approved="a" * 32), StakeReason.SIGNING, StakeStep.SIGN),
        (sight(has_key=False), StakeReason.KEY_MISSING, StakeStep.NOTHING),
        (sight(status=of(outcome="Included", plan="c")), StakeReason.RATE_LIMITED, StakeStep.NOTHING),
        (
            sight("Plan", status=of(outcome="Included"), approved="a" * 32),
            StakeReason.AWAITS_APPROVAL,
            StakeStep.NOTHING,
        ),
        (sight("Plan", status=of(outcome="Expired"), approved="a" * 32), StakeReason.SIGNING, StakeStep.SIGN),
        (sight(status=of(outcome="Expired")), StakeReason.SIGNING, StakeStep.SIGN),
        (sight(status=of(outcome="Failed"), approved="a" * 32), StakeReason.TRANSACTION_FAILED, StakeStep.NOTHING),
    ],
)
def test_a_difference_has_its_reason_and_step(made, reason, step):
    found = towards_declaration(made, CHANGE)
    assert (found.condition.reason, found.step, found.condition.state) == (reason, step, "False")
    shown = found.status.plan
    assert (shown.hash == CHANGE.plan_hash) == (made.spec.policy is not StakePolicy.OBSERVE)


@pytest.mark.parametrize(
    ("outcome", "hash_"), [("Included", "AB"), ("Expired", "CD"), ("Failed", "CD"), ("Sent", "CD")]
)
def test_the_last_included_transaction_is_the_last_one_or_the_one_noted_before(outcome, hash_):
    assert last_included(of(outcome=outcome).model_copy(update={"included": "CD"})) == hash_


@pytest.mark.parametrize(("age", "step"), [(3599, StakeStep.NOTHING), (3600, StakeStep.SIGN), (9999, StakeStep.SIGN)])
@pytest.mark.parametrize("last", [{"outcome": "Included", "plan": "c"}, {"outcome": "Failed"}])
def test_another_transaction_is_signed_once_the_interval_has_passed(age, step, last):
    made = sight(status=of(**last), now=NOW + timedelta(seconds=age))
    found = towards_declaration(made, CHANGE)
    assert found.step is step
    if step is StakeStep.NOTHING and last["outcome"] == "Failed":
        assert "It is tried again in 1 s." in found.condition.message


@pytest.mark.parametrize("refusal", list(StakeRefusal))
def test_every_refusal_is_a_reason_of_the_condition(refusal):
    found = towards_declaration(sight(), StakePlan(StakeState.REFUSED, "words", refusal=refusal))
    assert found.condition.reason.value == refusal.value
    assert found.step is StakeStep.NOTHING


def test_every_reason_is_explained():
    text = (Path(__file__).resolve().parents[2] / "docs/staking.md").read_text()
    reasons = [*StakeReason, *StakeRefusal]
    assert not [reason.value for reason in reasons if f"`{reason.value}`" not in text]
    assert len({reason.value for reason in reasons}) == len(reasons)


@pytest.mark.parametrize(
    ("outcome", "step", "reason", "spent"),
    [
        (SentOutcome.WAITING, StakeStep.NOTHING, StakeReason.TRANSACTION_SENT, 0),
        (SentOutcome.INCLUDED, StakeStep.NOTHING, StakeReason.TRANSACTION_INCLUDED, 5_000_001),
        (SentOutcome.FAILED, StakeStep.NOTHING, StakeReason.TRANSACTION_FAILED, 1),
        (SentOutcome.EXPIRED, StakeStep.NOTHING, StakeReason.TRANSACTION_FAILED, 0),
    ],
)
def test_what_was_sent_is_concluded_before_anything_else(outcome, step, reason, spent):
    found = after_sending(of(), SentState(outcome, 7, "log"))
    assert (found.step, found.condition.reason, found.status.spent_upokt) == (step, reason, spent)
    assert (found.status.transaction.outcome, found.approved) == (outcome.value, False)
    approved = after_sending(of(approved=True), SentState(outcome, 7))
    assert approved.status.spent_upokt == 0, "an approval is not charged to the budget"


def test_a_transaction_that_no_index_knows_is_concluded_from_the_record():
    reached = StakePlan(StakeState.AS_DECLARED, "words", declaration="d")
    found = towards_declaration(sight(status=of(outcome="Expired")), reached)
    assert (found.status.transaction.outcome, found.status.spent_upokt) == ("Included", 5_000_001)
    assert (found.condition.state, found.condition.message, found.status.reached) == ("True", "Words.", "d")
    approved = towards_declaration(sight(status=of(outcome="Expired", approved=True)), reached)
    assert approved.status.spent_upokt == 0


def test_what_is_recorded_before_the_broadcast_names_plan_cost_and_approval():
    status = signed_status(StakingStatus(), CHANGE, StakeTransactionStatus(hash="AB", raw="x"), now=NOW, approved=True)
    last = status.transaction
    assert (last.plan, last.cost_upokt, last.approved, last.outcome) == (CHANGE.plan_hash, 5_000_001, True, "Sent")
    assert last.signed_at == "2026-01-01T00:00:00Z"


def test_a_refused_simulation_signs_nothing():
    failing = would_fail(towards_declaration(sight(), CHANGE), "the chain would refuse it")
    assert (failing.step, failing.condition.reason) == (StakeStep.NOTHING, StakeReason.SIMULATION_FAILED)
    assert not failing.status.transaction.hash


@pytest.mark.parametrize(
    "fields",
    [
        {"policy": "Apply", "amountUpokt": 5},
        {"amountUpokt": 0},
        {"amountUpokt": 5, "revenueShares": [{"address": ALICE, "percent": 99}]},
        {"amountUpokt": 5, "owner": "pokt1x"},
        {"amountUpokt": 5, "services": [{"id": "eth", "endpoints": []}]},
        {"amountUpokt": 5, "services": [{"id": "eth", "endpoints": [{"url": "ftp://x", "rpcType": "rest"}]}]},
        {"amountUpokt": 5, "services": 2 * [{"id": "eth", "endpoints": [{"url": "http://x", "rpcType": "rest"}]}]},
    ],
)
def test_a_declaration_that_cannot_work_is_refused(fields):
    with pytest.raises(ValidationError):
        StakeSpec.model_validate(fields)


def test_the_other_writer_of_the_status_leaves_the_stake_alone():
    rows = [{"type": "Ready"}, {"type": "StakeAsDeclared"}]
    assert without_staking({"staking": {}, "conditions": rows, "address": "a"}) == {
        "conditions": [{"type": "Ready"}], "address": "a",
    }  # fmt: skip


UNSTAKE = replace(CHANGE, changes=(StakeChange.UNSTAKE,), approvals=(ApprovalCause.UNSTAKES,))


@pytest.mark.parametrize("policy", ["Plan", "Apply"])
def test_an_approved_unstake_is_signed_only_after_the_drain(policy):
    def made(drain, approved=CHANGE.plan_hash):
        return towards_declaration(sight(policy, approved=approved, drain=drain), UNSTAKE)

    assert made(None).condition.reason is StakeReason.DRAINING
    waiting = made(DrainProgress(done=False, reason="2 sessions are on their way"))
    assert waiting.condition.reason is StakeReason.DRAINING
    assert waiting.step is StakeStep.NOTHING
    assert "2 sessions are on their way" in waiting.condition.message
    assert made(DrainProgress(done=True)).step is StakeStep.SIGN
    assert made(DrainProgress(done=True), approved="").condition.reason is StakeReason.AWAITS_APPROVAL


def test_a_plan_that_waits_shows_the_whole_command_that_approves_it():
    told = towards_declaration(sight("Plan"), CHANGE).condition.message
    command = f"kubectl -n ns annotate supplier alice --overwrite {APPROVAL}={CHANGE.plan_hash}"
    assert f"`{command}`" in told


def test_no_other_change_waits_for_a_drain():
    assert towards_declaration(sight(approved=CHANGE.plan_hash), CHANGE).step is StakeStep.SIGN


def declaring(state="Unstaked", policy="Plan", approved="h", plan="h", sent=""):
    annotations = {"pocket.network/approve-stake-plan": approved} if approved else {}
    staking = {"plan": {"hash": plan}, "transaction": {"plan": sent}}
    stake = {"state": state, "policy": policy}
    return {"metadata": {"annotations": annotations}, "spec": {"stake": stake}, "status": {"staking": staking}}


@pytest.mark.parametrize(
    ("changes", "drains"),
    [
        ({}, True),
        ({"plan": "", "sent": "h"}, True),  # signed: it stays drained
        ({"plan": "i", "sent": "h"}, False),  # unstaked, and staked again by another writer
        ({"approved": ""}, False),
        ({"approved": "of another plan"}, False),
        ({"policy": "Observe"}, False),
        ({"state": "Staked"}, False),
    ],
)
def test_a_supplier_drains_once_its_unstake_is_approved(changes, drains):
    assert unstakes(declaring(**changes)) is drains


def test_a_supplier_without_a_declared_stake_never_drains_for_it():
    assert not unstakes({"metadata": {}, "spec": {}})


def test_a_new_reason_is_an_event_and_a_warning_if_it_needs_somebody():
    def event(state, reason, before=""):
        return stake_event(StakeCondition(state, reason, "words"), {"reason": before})

    assert event("False", StakeReason.BUDGET_EXHAUSTED).warning
    assert not event("False", StakeReason.AWAITS_APPROVAL).warning
    assert not event("True", StakeReason.AS_DECLARED, "Pending").warning
    assert event("False", StakeReason.BUDGET_EXHAUSTED, "BudgetExhausted") is None
    assert event("Unknown", StakeReason.CHAIN_UNREACHABLE) is None
