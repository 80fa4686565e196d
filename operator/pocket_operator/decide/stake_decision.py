"""Decide the next step towards a declared stake, purely."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from pocket.api.stake import StakePlanStatus, StakePolicy, StakeSpec, StakeTransactionStatus, StakingStatus
from pocket.api.status import DrainProgress, timestamp
from pocket.protocol.transactions.staking import message_json
from pocket.staking.chain import SentOutcome, SentState
from pocket.staking.stake_model import StakeChange, StakePlan, StakeRefusal, StakeState
from pocket.staking.stake_plan import IN_FORCE
from pocket_operator.decide.conditions import StakeCondition, State
from pocket_operator.decide.reasons import AnyStakeReason, StakeReason
from pocket_operator.decide.sections import section

APPROVAL: Final = "pocket.network/approve-stake-plan"
_LONGEST_LOG: Final = 4096


class StakeStep(StrEnum):
    """The step that follows after the status is written."""

    NOTHING = "nothing"
    SIGN = "sign"


@dataclass(frozen=True, slots=True)
class StakeSight:
    """The input of a stake decision."""

    namespace: str
    name: str
    """Name of the Supplier."""
    spec: StakeSpec
    signer: str
    has_key: bool
    approved: str
    status: StakingStatus
    now: datetime
    drain: DrainProgress | None = None
    """How far the supplier's drain is, None while it serves."""


@dataclass(frozen=True, slots=True)
class StakeDecision:
    """The condition and status to write, and the step after that."""

    condition: StakeCondition
    status: StakingStatus
    step: StakeStep = StakeStep.NOTHING
    approved: bool = False


def after_sending(status: StakingStatus, sent: SentState) -> StakeDecision:
    """Conclude a transaction that was signed before, or go on waiting for it."""
    transaction = status.transaction
    if sent.outcome is SentOutcome.WAITING:
        text = f"Transaction {transaction.hash} is sent and in no block yet. {sent.log}".strip()
        return StakeDecision(_condition("False", StakeReason.TRANSACTION_SENT, text), status)
    concluded = transaction.model_copy(
        update={"outcome": sent.outcome.value, "height": sent.height, "log": sent.log[:_LONGEST_LOG]}
    )
    costs = {SentOutcome.INCLUDED: transaction.cost_upokt, SentOutcome.FAILED: transaction.fee_upokt}
    paid = 0 if transaction.approved else costs.get(sent.outcome, 0)
    status = status.model_copy(
        update={
            "transaction": concluded,
            "plan": StakePlanStatus(),
            "spent_upokt": status.spent_upokt + paid,
        }
    )
    if sent.outcome is SentOutcome.INCLUDED:
        status = status.model_copy(update={"included": transaction.hash})
    if sent.outcome is SentOutcome.INCLUDED:
        text = f"Transaction {transaction.hash} is in block {sent.height}."
        return StakeDecision(_condition("False", StakeReason.TRANSACTION_INCLUDED, text), status)
    return StakeDecision(_condition("False", StakeReason.TRANSACTION_FAILED, _failed(concluded)), status)


def towards_declaration(sight: StakeSight, plan: StakePlan) -> StakeDecision:
    """Decide with nothing on its way: report, wait for an approval, or sign."""
    if plan.state in (StakeState.AS_DECLARED, StakeState.PENDING):
        status = _found_on_chain(sight.status)
        status = status.model_copy(update={"plan": StakePlanStatus(), "reached": plan.declaration})
        pending = plan.state is StakeState.PENDING
        reason = StakeReason.PENDING if pending else StakeReason.AS_DECLARED
        return StakeDecision(_condition("False" if pending else "True", reason, _sentence(plan.detail)), status)
    empty = sight.status.model_copy(update={"plan": StakePlanStatus()})
    if plan.refusal is not None:
        return StakeDecision(_condition("False", plan.refusal, _sentence(plan.detail)), empty)
    left = f" Left for another signer: {', '.join(plan.left)}." if plan.left else ""
    differs = f"Differs: {plan.detail}. {' '.join(plan.effect)}{left}"
    if sight.spec.policy is StakePolicy.OBSERVE:
        return StakeDecision(_condition("False", StakeReason.DIFFERS, differs), empty)
    planned = sight.status.model_copy(update={"plan": _shown(plan, sight.signer)})
    held = _held(sight, plan)
    if held is not None:
        return StakeDecision(_condition("False", held[0], f"{held[1]} {differs}"), planned)
    approved = _approved(sight, plan)
    text = f"Signing plan {plan.plan_hash}. {differs}"
    return StakeDecision(_condition("False", StakeReason.SIGNING, text), planned, StakeStep.SIGN, approved)


def _found_on_chain(status: StakingStatus) -> StakingStatus:
    """Conclude an expired transaction from the record that it made after all.

    Nodes without an index find no transaction by its hash.
    """
    last = status.transaction
    if last.outcome != SentOutcome.EXPIRED.value:
        return status
    spent = status.spent_upokt + (0 if last.approved else last.cost_upokt)
    included = last.model_copy(update={"outcome": SentOutcome.INCLUDED.value})
    return status.model_copy(update={"transaction": included, "included": last.hash, "spent_upokt": spent})


def undeclared(status: StakingStatus) -> StakingStatus:
    """Return what stays of a status without a declaration.

    It is what was spent, reached and last signed. A declaration that comes back goes on from there.
    """
    transaction = status.transaction.model_copy(update={"raw": "", "log": ""})
    return status.model_copy(update={"plan": StakePlanStatus(), "inherited": (), "transaction": transaction})


def last_included(status: StakingStatus) -> str:
    """Return the hash of the last transaction in a block, empty for none.

    Statuses of releases before `included` have it in the transaction.
    """
    last = status.transaction
    return last.hash if last.outcome == SentOutcome.INCLUDED.value else status.included


def _approved(sight: StakeSight, plan: StakePlan) -> bool:
    """Return True if the owner approved the plan.

    No transaction has used the approval up.
    """
    last = sight.status.transaction
    used = last.plan == plan.plan_hash and last.outcome == SentOutcome.INCLUDED.value
    return sight.approved == plan.plan_hash and not used


def _held(sight: StakeSight, plan: StakePlan) -> tuple[StakeReason, str] | None:
    """Return why a plan is not carried out now, None where it is."""
    last, spec = sight.status.transaction, sight.spec
    approved = _approved(sight, plan)
    if not sight.has_key:
        return (
            StakeReason.KEY_MISSING,
            "The key that signs is missing: see KeysLoaded and spec.stake.keySecretRef.",
        )
    rest = _rest(last, sight.now, spec.min_interval_seconds)
    if rest and last.plan == plan.plan_hash and last.outcome == SentOutcome.FAILED.value:
        return StakeReason.TRANSACTION_FAILED, f"{_failed(last)} It is tried again in {rest} s."
    if approved:
        return _undrained(sight, plan)
    if spec.policy is StakePolicy.PLAN or plan.approvals:
        causes = f" ({', '.join(plan.approvals)})" if plan.approvals else ""
        return (
            StakeReason.AWAITS_APPROVAL,
            f"The plan costs {plan.cost.total_upokt} upokt and waits for an approval{causes}: `kubectl -n "
            f"{sight.namespace} annotate supplier {sight.name} --overwrite {APPROVAL}={plan.plan_hash}`.",
        )
    if sight.status.spent_upokt + plan.cost.total_upokt > spec.budget_upokt:
        return (
            StakeReason.BUDGET_EXHAUSTED,
            f"The plan costs {plan.cost.total_upokt} upokt, and {sight.status.spent_upokt} of budgetUpokt "
            f"{spec.budget_upokt} are spent. Raise spec.stake.budgetUpokt, or approve plan {plan.plan_hash}.",
        )
    if rest and last.outcome != SentOutcome.EXPIRED.value:
        return StakeReason.RATE_LIMITED, f"The last transaction was signed less than {spec.min_interval_seconds} s ago."
    return None


def _undrained(sight: StakeSight, plan: StakePlan) -> tuple[StakeReason, str] | None:
    """Return why an approved unstake waits.

    The result is None where relayers refuse new relays and no session is open.
    """
    if StakeChange.UNSTAKE not in plan.changes or (sight.drain is not None and sight.drain.done):
        return None
    how_far = sight.drain.reason if sight.drain is not None else "relayers still serve it"
    return StakeReason.DRAINING, f"New relays are refused, and open sessions are claimed and proven first: {how_far}."


def unstakes(supplier: Mapping[str, Any]) -> bool:
    """Return True if a Supplier must drain, since its owner approved to unstake."""
    stake = section(supplier, "spec", "stake")
    if stake.get("state") != "Unstaked" or stake.get("policy", StakePolicy.OBSERVE) == StakePolicy.OBSERVE:
        return False
    approved = str((supplier["metadata"].get("annotations") or {}).get(APPROVAL, ""))
    staking = (supplier.get("status") or {}).get("staking") or {}
    shown = (staking.get("plan") or {}).get("hash")  # empty once its transaction is in a block
    return bool(approved) and approved == (shown or (staking.get("transaction") or {}).get("plan"))


def transaction_on_its_way(supplier: Mapping[str, Any]) -> bool:
    """Return True if a transaction in the status may still come into a block."""
    staking = (supplier.get("status") or {}).get("staking") or {}
    return (staking.get("transaction") or {}).get("outcome") == SentOutcome.WAITING.value


def _rest(last: StakeTransactionStatus, now: datetime, seconds: int) -> int:
    """Return the seconds until another transaction may be signed."""
    if not last.signed_at:
        return 0
    due = datetime.fromisoformat(last.signed_at) + timedelta(seconds=seconds)
    return max(0, int((due - now).total_seconds()))


def signed_status(
    status: StakingStatus, plan: StakePlan, transaction: StakeTransactionStatus, *, now: datetime, approved: bool
) -> StakingStatus:
    """Return the status that must be stored before the transaction is sent."""
    recorded = transaction.model_copy(
        update={
            "plan": plan.plan_hash,
            "approved": approved,
            "cost_upokt": plan.cost.total_upokt,
            "signed_at": timestamp(now),
            "outcome": SentOutcome.WAITING.value,
        }
    )
    return status.model_copy(update={"transaction": recorded})


def would_fail(decision: StakeDecision, text: str) -> StakeDecision:
    """Return the decision where the simulation refuses the plan, which costs nothing."""
    condition = _condition("False", StakeReason.SIMULATION_FAILED, f"{_sentence(text)} No fee was paid.")
    return replace(decision, condition=condition, step=StakeStep.NOTHING)


def cannot_record(decision: StakeDecision) -> StakeDecision:
    """Return the decision if the installed CRD cannot store the transaction."""
    text = "The installed Supplier CRD is older than the operator and cannot record the transaction. Update the CRDs."
    return replace(decision, condition=_condition("False", StakeReason.CRD_OLDER, text), step=StakeStep.NOTHING)


def invalid_declaration(text: str) -> StakeCondition:
    """Return the condition where the declaration cannot be used."""
    return _condition("False", StakeRefusal.INVALID_DECLARATION, _sentence(text))


def unknown(text: str) -> StakeCondition:
    """Return the condition where the chain gives no usable answer."""
    return _condition("Unknown", StakeReason.CHAIN_UNREACHABLE, _sentence(text))


def _shown(plan: StakePlan, signer: str) -> StakePlanStatus:
    messages = [message_json(message) for message in plan.messages]
    return StakePlanStatus(
        hash=plan.plan_hash,
        changes=tuple(change.value for change in plan.changes),
        signer=signer,
        cost_upokt=plan.cost.total_upokt,
        returned_upokt=plan.returned_upokt,
        effect=tuple(line for line in plan.effect if not line.startswith(IN_FORCE)),
        approvals=tuple(cause.value for cause in plan.approvals),
        transaction=json.dumps(messages, separators=(",", ":")),
    )


def _failed(transaction: StakeTransactionStatus) -> str:
    if transaction.outcome == SentOutcome.EXPIRED.value:
        return f"Transaction {transaction.hash} came into no block in time; no fee was paid."
    return f"Transaction {transaction.hash} failed in block {transaction.height} and cost its fee: {transaction.log}."


def _sentence(text: str) -> str:
    sentence = text[:1].upper() + text[1:]
    return sentence if sentence.endswith(".") else f"{sentence}."


def _condition(state: State, reason: AnyStakeReason, message: str) -> StakeCondition:
    return StakeCondition(state, reason, message)
