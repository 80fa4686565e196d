"""Declared stakes on the real chain: a plan is accepted, costs what it says, and is never needed twice."""

import asyncio

import pytest

from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.transactions.build import GasPrice
from pocket.protocol.transactions.staking import Endpoint, StakedService
from pocket.staking.chain import SentOutcome, StakeChain, TransactionWouldFail, lane_of
from pocket.staking.stake_model import DeclaredStake, Signing, StakeChange, StakeState
from pocket.staking.stake_plan import plan_stake
from realchain import GAS_PRICE

pytestmark = [pytest.mark.realchain, pytest.mark.timeout(240)]


def service(name, path, share):
    return StakedService(name, (Endpoint(f"https://relay.example/{path}", 3),), share)


class Declarer:
    """A key of the genesis that brings its own stake about."""

    def __init__(self, journey, name):
        self.journey, self.key = journey, journey.keys[name]
        self.address = address_of(self.key.public_key)
        self.chain = StakeChain(journey.chain, journey.comet, "pocket")

    async def plan(self, declared):
        snapshot = await self.chain.snapshot(self.address, self.address)
        return plan_stake(declared, snapshot, Signing(self.address, GasPrice.parse(GAS_PRICE)))

    async def carry_out(self, plan):
        """Send a plan and return its cost in upokt."""
        before = await self.balance()
        signed, expires_at = await self.chain.sign(plan, self.key, lane_of(self.address, ""))
        await self.chain.send(signed.raw)
        state = await self.chain.outcome(signed.tx_hash, expires_at)
        while state.outcome is SentOutcome.WAITING:
            await asyncio.sleep(0.1)
            state = await self.chain.outcome(signed.tx_hash, expires_at)
        assert state.outcome is SentOutcome.INCLUDED, state.log
        return before - await self.balance()

    async def balance(self):
        return await self.journey.chain.balance_upokt(self.address)

    async def reach(self, declared):
        """Carry the one plan out, if there is one, and compare again."""
        plan = await self.plan(declared)
        cost = await self.carry_out(plan) if plan.messages else 0
        assert cost == plan.cost.total_upokt - (0 if StakeChange.UNSTAKE in plan.changes else plan.returned_upokt)
        after = await self.plan(declared)
        assert after.state in (StakeState.AS_DECLARED, StakeState.PENDING), after.detail
        return plan, after


async def test_declared_stakes_are_reached_with_one_transaction_each(journey):
    who = Declarer(journey, "supplier9")
    other = address_of(journey.keys["supplier7"].public_key)
    mine, shared = ((who.address, 100),), ((who.address, 60), (other, 40))

    def declared(amount, *services, unstake=False):
        return DeclaredStake(who.address, who.address, amount, services, unstake)

    plan = await who.plan(declared(5_000_000, service("no-such", "a", mine)))
    with pytest.raises(TransactionWouldFail, match="does not exist"):
        await who.carry_out(plan)
    first = declared(5_000_000, service("develop-stream", "a", mine), service("develop-http", "a", mine))
    plan, after = await who.reach(first)
    assert set(plan.changes) == {StakeChange.STAKE, StakeChange.SERVICES}
    assert after.effective_height >= plan.effective_height
    await journey.reach(after.effective_height)
    assert (await who.plan(first)).state is StakeState.AS_DECLARED

    changed = declared(4_000_000, service("develop-http", "b", shared))
    plan, after = await who.reach(changed)
    assert set(plan.changes) == {StakeChange.LOWER, StakeChange.SERVICES, StakeChange.REVENUE_SHARES}
    # Both entries of develop-http are listed until the next session.
    assert len((await journey.chain.supplier(who.address)).history) == 3

    plan, after = await who.reach(declared(4_000_000, unstake=True))
    assert (plan.changes, after.state) == ((StakeChange.UNSTAKE,), StakeState.PENDING)
    # Wanting it back sends the services again with the end of the unbonding.
    plan, _ = await who.reach(changed)
    assert set(plan.changes) == {StakeChange.CANCEL_UNBONDING, StakeChange.SERVICES}
