"""Stake plans against a localnet: what is planned is what the chain does, and one plan is always enough."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket.chain.model import StakingParams
from pocket.protocol.transactions.build import GasPrice, Timestamp, TransactionPlan, sign_transaction
from pocket.protocol.transactions.staking import Endpoint, Parties, StakedService, stake_message, unstake_message
from pocket.staking.stake_model import (
    ApprovalCause,
    DeclaredStake,
    Signing,
    StakeChange,
    StakeRefusal,
    StakeSnapshot,
    StakeState,
)
from pocket.staking.stake_plan import declaration_digest, plan_stake
from pocket_localnet.local_chain import LocalChain
from world import World, address, key

OPERATOR, OWNER, STRANGER = address("carol"), address("owner"), address("gateway")
PRICE = GasPrice.parse("0.000001upokt")
BY_ADDRESS = {address(name): name for name in ("carol", "owner", "gateway")}


def service(name="eth", path="", share=((OPERATOR, 100),)):
    return StakedService(name, (Endpoint(f"https://relay.example/{path}", 3),), share)


ETH = service()


def declared(amount=5_000_000, services=(ETH,), owner=OPERATOR, unstake=False):
    return DeclaredStake(OPERATOR, owner, amount, tuple(services), unstake)


class Chain:
    """A localnet with an operator that has 60 POKT and is not staked."""

    def __init__(self, balance=60_000_000, services=("eth", "sol")):
        world = World(services=services)
        accounts = [*world.genesis().accounts, {"address": OPERATOR, "balance": balance}]
        self.chain = LocalChain(world.genesis(accounts=accounts, minimum_gas_price="0.000001upokt"))

    def snapshot(self, signer=OPERATOR):
        state = self.chain.state
        return StakeSnapshot(
            state.chain_id, state.height, state.suppliers.get(OPERATOR),
            StakingParams(state.supplier_min_stake, state.supplier_staking_fee),
            state.shared_params_at(state.height), state.balances.get(signer, 0),
        )  # fmt: skip

    def plan(self, wanted, signer=OPERATOR, reached="", included=""):
        return plan_stake(wanted, self.snapshot(signer), Signing(signer, PRICE, reached, included))

    def send(self, messages, gas_limit=1_000_000, signer=OPERATOR):
        account = self.chain.state.accounts[signer]
        plan = TransactionPlan(
            tuple(messages), self.chain.state.chain_id, account.number, gas_limit, PRICE.fee_upokt(gas_limit),
            Timestamp.of_nanoseconds(self.chain.state.time_ns + 60_000_000_000 + self.chain.height),
        )  # fmt: skip
        raw = sign_transaction(plan, key(BY_ADDRESS[signer])).raw
        assert self.chain.simulate(raw) * 1.3 < gas_limit
        assert self.chain.broadcast(raw).code == 0
        result = self.chain.step().transactions[0].result
        assert result.code == 0, result.log

    def carry_out(self, plan, signer=OPERATOR):
        self.send(plan.messages, plan.gas_limit, signer)

    def blocks(self, count):
        for _ in range(count):
            self.chain.step()


SERVICES = st.lists(
    st.builds(
        service, st.sampled_from(["eth", "sol"]), st.sampled_from(["", "a", "b"]),
        st.sampled_from([((OPERATOR, 100),), ((OPERATOR, 30), (OWNER, 70)), ((OWNER, 70), (OPERATOR, 30))]),
    ),
    min_size=1, max_size=2, unique_by=lambda row: row.service_id,
)  # fmt: skip
DECLARATIONS = st.builds(declared, st.sampled_from([2_000_000, 5_000_000, 9_000_000]), SERVICES)


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.tuples(DECLARATIONS, st.integers(0, 12)), min_size=1, max_size=4))
def test_a_plan_costs_what_it_says_and_makes_the_stake_as_declared_with_one_transaction(steps):
    chain = Chain()
    for wanted, pause in steps:
        before = chain.snapshot().balance_upokt
        plan = chain.plan(wanted)
        if plan.state is StakeState.CHANGE:
            chain.carry_out(plan)
            returned = plan.returned_upokt  # the operator owns the stake
            assert chain.snapshot().balance_upokt == before - plan.cost.total_upokt + returned
            assert (ApprovalCause.LOWERS_STAKE in plan.approvals) == bool(returned)
        after = chain.plan(wanted)
        assert after.state in (StakeState.AS_DECLARED, StakeState.PENDING), after.detail
        assert not after.messages
        if after.state is StakeState.PENDING:
            chain.blocks(after.effective_height - chain.chain.height)
            assert chain.plan(wanted).state is StakeState.AS_DECLARED
        chain.blocks(pause)
        assert chain.plan(wanted).state in (StakeState.AS_DECLARED, StakeState.PENDING)
        record = chain.chain.state.suppliers[OPERATOR]
        assert record.stake_upokt == wanted.amount_upokt


@settings(max_examples=examples(20), deadline=None)
@given(DECLARATIONS, DECLARATIONS, st.integers(0, 25))
def test_the_hash_names_transaction_and_record_whatever_the_height(first, second, pause):
    chain = Chain()
    chain.carry_out(chain.plan(first))
    plan = chain.plan(second)
    chain.blocks(pause)
    later = chain.plan(second)
    assert later.plan_hash == plan.plan_hash
    if plan.state is not StakeState.CHANGE:
        return
    assert chain.plan(second, included="AB").plan_hash != plan.plan_hash, "a transaction in between"
    # Somebody else changes the record in between: the approved hash names nothing any more.
    chain.send([stake_message(Parties(OPERATOR, OPERATOR, OPERATOR), 11_000_000, ())])
    assert chain.plan(second).plan_hash not in ("", plan.plan_hash)


def test_the_effect_names_what_becomes_of_each_service():
    chain = Chain(services=("eth", "sol", "blocks", "new", *(f"s{n:02}" for n in range(12))))
    chain.carry_out(chain.plan(declared(services=(service("eth", "a"), service("sol"), service("blocks")))))
    chain.blocks(12)
    shared = service("sol", share=((OPERATOR, 60), (OWNER, 40)))
    plan = chain.plan(declared(services=(service("eth", "b"), shared, service("new"))))
    assert plan.effect[:-1] == (
        "Added: new.",
        "Removed: blocks.",
        "Changed: eth, endpoints https://relay.example/a (JSON_RPC) to https://relay.example/b (JSON_RPC).",
        f"Changed: sol, revenue shares {OPERATOR} 100 % to {OWNER} 40 %, {OPERATOR} 60 %.",
    )
    assert plan.effect[-1].startswith("In force from block")
    many = [service(f"s{n:02}", "a") for n in range(12)]
    chain.carry_out(chain.plan(declared(services=(*many, service("eth", "b")))), OPERATOR)
    chain.blocks(12)
    effect = chain.plan(
        declared(services=(*(service(row.service_id, "b") for row in many), service("eth", "b")))
    ).effect
    assert len(effect) == 11
    assert effect[8:10] == ("Changed as well: s08, s09, s10, s11.", "Sent again without a change: eth.")


def test_each_kind_of_change_has_its_name_and_tells_where_the_money_goes():
    chain = Chain()
    first = chain.plan(declared(owner=OWNER))
    assert (first.changes, first.effect[:2]) == (
        (StakeChange.STAKE, StakeChange.SERVICES),
        ("The stake goes from 0 to 5000000 upokt.", f"{OWNER} owns the stake: whatever is returned later goes there."),
    )
    chain.carry_out(first)
    chain.blocks(12)
    less = chain.plan(declared(3_000_000, owner=OWNER))
    assert (less.changes, less.returned_upokt, less.effect) == (
        (StakeChange.LOWER,),
        2_000_000,
        ("The stake goes from 5000000 to 3000000 upokt.", f"2000000 upokt go to {OWNER} at once."),
    )
    shared = declared(owner=OWNER, services=[service(share=((OWNER, 99), (OPERATOR, 1)))])
    plan = chain.plan(shared)
    assert (plan.changes, plan.returned_upokt) == ((StakeChange.REVENUE_SHARES,), 0)
    chain.carry_out(plan)
    chain.blocks(12)
    assert chain.plan(shared).state is StakeState.AS_DECLARED


@pytest.mark.parametrize("at", [1, 9, 10])
def test_an_unstake_says_until_when_it_serves_when_the_stake_is_back_and_what_it_costs(at):
    chain, gone = Chain(), declared(unstake=True)
    chain.carry_out(chain.plan(declared()))
    chain.blocks((at - chain.chain.height) % 10)
    plan, before = chain.plan(gone), chain.snapshot().balance_upokt
    chain.carry_out(plan)
    found = chain.snapshot()
    assert found.balance_upokt == before - plan.cost.total_upokt
    serves = found.supplier.unstake_session_end_height
    assert plan.effect[0] == f"Serves until block {serves} at the earliest, then no more."
    assert (plan.effective_height, plan.returned_upokt) == (chain.plan(gone).effective_height, 5_000_000)
    chain.blocks(plan.effective_height - chain.chain.height - 1)
    assert chain.snapshot().supplier is not None
    chain.blocks(1)
    assert (chain.snapshot().supplier, chain.snapshot().balance_upokt) == (None, found.balance_upokt + 5_000_000)


def test_the_order_of_services_endpoints_and_shares_says_nothing():
    chain = Chain()
    rows = (service("sol"), service("eth", share=((OPERATOR, 60), (OWNER, 40))))
    chain.carry_out(chain.plan(declared(services=rows)))
    again = declared(services=(service("eth", share=((OWNER, 40), (OPERATOR, 60))), service("sol")))
    assert chain.plan(again).state is StakeState.PENDING
    assert declaration_digest(again) == declaration_digest(declared(services=rows))


def test_a_service_that_is_listed_twice_while_it_closes_is_no_difference():
    chain = Chain()
    chain.carry_out(chain.plan(declared()))
    chain.blocks(10)
    chain.carry_out(chain.plan(declared(services=[service(path="new")])))
    assert len(chain.snapshot().supplier.history) == 2
    assert chain.plan(declared(services=[service(path="new")])).state is StakeState.PENDING
    chain.blocks(10)
    assert chain.plan(declared(services=[service(path="new")])).state is StakeState.AS_DECLARED
    back = chain.plan(declared())
    assert (back.state, back.changes) == (StakeState.CHANGE, (StakeChange.SERVICES,))


def test_an_unstake_needs_an_approval_and_is_pending_until_the_record_is_gone():
    chain = Chain()
    chain.carry_out(chain.plan(declared()))
    gone = declared(unstake=True)
    plan = chain.plan(gone)
    assert (plan.changes, plan.approvals) == ((StakeChange.UNSTAKE,), (ApprovalCause.UNSTAKES,))
    assert plan.cost.staking_fee_upokt == 0
    chain.carry_out(plan)
    assert chain.plan(gone).state is StakeState.PENDING
    # Wanting it back cancels the unbonding and sends the services again, which needs an approval as well.
    back = chain.plan(declared())
    assert set(back.changes) == {StakeChange.CANCEL_UNBONDING, StakeChange.SERVICES}
    assert back.approvals == (ApprovalCause.CANCELS_UNBONDING,)
    chain.blocks(40)
    assert chain.plan(gone).state is StakeState.AS_DECLARED


def test_the_owner_raises_the_stake_and_leaves_services_to_the_operator():
    chain = Chain()
    chain.carry_out(chain.plan(declared(owner=OWNER)))
    more = declared(7_000_000, [service(path="new")], owner=OWNER)
    plan = chain.plan(more, signer=OWNER)
    assert (plan.changes, plan.left) == ((StakeChange.TOP_UP,), (StakeChange.SERVICES,))
    chain.carry_out(plan, signer=OWNER)
    left = chain.plan(more, signer=OWNER)
    assert (left.state, left.refusal) == (StakeState.REFUSED, StakeRefusal.SIGNER_NOT_ALLOWED)
    chain.carry_out(chain.plan(more))
    chain.send([unstake_message(OPERATOR, OPERATOR)])
    assert chain.plan(more).refusal is StakeRefusal.SIGNER_NOT_ALLOWED, "only the owner cancels an unbonding"
    assert StakeChange.CANCEL_UNBONDING in chain.plan(more, signer=OWNER).changes


@pytest.mark.parametrize(("amount", "refused"), [(999_999, True), (1_000_000, False), (1_000_001, False)])
def test_the_least_stake_is_enough(amount, refused):
    assert (Chain().plan(declared(amount)).refusal is StakeRefusal.BELOW_MINIMUM) is refused


def test_an_owner_other_than_the_signer_needs_an_approval():
    assert Chain().plan(declared(owner=OWNER)).approvals == (ApprovalCause.OWNER_IS_NOT_SIGNER,)
    assert Chain().plan(declared()).approvals == ()


def test_a_change_by_another_writer_is_never_undone_without_an_approval():
    chain = Chain()
    chain.carry_out(chain.plan(declared()))
    chain.blocks(10)
    reached = chain.plan(declared()).declaration
    chain.send([stake_message(Parties(OPERATOR, OPERATOR, OPERATOR), 3_000_000, ())])
    assert chain.plan(declared(), reached=reached).approvals == (ApprovalCause.CHANGED_ELSEWHERE,)
    assert chain.plan(declared(6_000_000), reached=reached).approvals == (), "the declaration changed"


@pytest.mark.parametrize(
    ("wanted", "signer", "refusal"),
    [
        (declared(999_999), OPERATOR, StakeRefusal.BELOW_MINIMUM),
        (declared(60_000_000), OPERATOR, StakeRefusal.BALANCE_TOO_LOW),
        (declared(59_000_000), OPERATOR, StakeRefusal.BALANCE_TOO_LOW),
        (declared(), STRANGER, StakeRefusal.SIGNER_NOT_ALLOWED),
        (declared(owner=OWNER[:-1] + "q"), OPERATOR, StakeRefusal.INVALID_DECLARATION),
        (declared(services=[service(), service(path="b")]), OPERATOR, StakeRefusal.INVALID_DECLARATION),
        (declared(services=[service(share=((OWNER, 99),))]), OPERATOR, StakeRefusal.INVALID_DECLARATION),
        (declared(services=[service(share=((OWNER, 50), (OWNER, 50)))]), OPERATOR, StakeRefusal.INVALID_DECLARATION),
        (declared(services=[service(share=((OWNER, 100), (OPERATOR, 0)))]), OPERATOR, StakeRefusal.INVALID_DECLARATION),
        (declared(services=[service(share=())]), OPERATOR, StakeRefusal.INVALID_DECLARATION),
        (declared(services=[StakedService("eth", (), ((OWNER, 100),))]), OPERATOR, StakeRefusal.INVALID_DECLARATION),
        (declared(0), OPERATOR, StakeRefusal.INVALID_DECLARATION),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(wanted, signer, refusal):
    plan = Chain().plan(wanted, signer)
    assert (plan.state, plan.refusal, plan.messages) == (StakeState.REFUSED, refusal, ())
    assert (plan.cost.total_upokt, plan.returned_upokt) == (0, 0)


def test_the_last_upokt_is_enough():
    chain = Chain()
    cost = chain.plan(declared()).cost
    amount = 60_000_000 - cost.staking_fee_upokt - cost.transaction_fee_upokt
    plan = chain.plan(declared(amount))
    chain.carry_out(plan)
    assert chain.snapshot().balance_upokt == 0


def test_an_owner_is_never_changed_and_a_squatted_address_is_named():
    chain = Chain()
    chain.carry_out(chain.plan(declared()))
    for unstake in (False, True):
        assert chain.plan(declared(owner=OWNER, unstake=unstake)).refusal is StakeRefusal.OWNER_DIFFERS
    squatted = Chain()
    parties = Parties(STRANGER, STRANGER, OPERATOR)
    squatted.send([stake_message(parties, 2_000_000, ())], signer=STRANGER)
    plan = squatted.plan(declared())
    assert plan.refusal is StakeRefusal.OWNED_BY_ANOTHER
    assert STRANGER in plan.detail


def test_a_record_without_history_is_no_evidence():
    chain = Chain()
    chain.carry_out(chain.plan(declared()))
    chain.blocks(10)
    found = chain.snapshot()
    bare = replace(found, supplier=replace(found.supplier, history=(), service_ids=frozenset({"eth"})))
    assert plan_stake(declared(), bare, Signing(OPERATOR, PRICE)).refusal is StakeRefusal.RECORD_INCOMPLETE
