"""Staking messages on the real chain: a supplier comes, serves from the next session on, and leaves."""

import asyncio
from dataclasses import replace

import pytest

from pocket.errors import NotFound, PocketError
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.transactions.broadcast_errors import failed_message_index
from pocket.protocol.transactions.build import Message, Timestamp, TransactionPlan, sign_transaction

pytestmark = [pytest.mark.realchain, pytest.mark.timeout(240)]

STAKE, UNSTAKE = "/pocket.supplier.MsgStakeSupplier", "/pocket.supplier.MsgUnstakeSupplier"
STAKING_FEE_UPOKT, FEE_UPOKT = 1_000_000, 1


class Staker:
    """A key that stakes itself: operator and owner."""

    def __init__(self, journey, name):
        self.journey, self.key = journey, journey.keys[name]
        self.address = address_of(self.key.public_key)

    def stake(self, upokt, *services, rpc_type=3):
        message = supplier_pb.MsgStakeSupplier(
            signer=self.address, owner_address=self.address, operator_address=self.address
        )
        message.stake.denom, message.stake.amount = "upokt", str(upokt)
        for service in services:
            row = message.services.add(service_id=service)
            row.endpoints.add(url="http://127.0.0.1:1", rpc_type=rpc_type)
            row.rev_share.add(address=self.address, rev_share_percentage=100)
        return Message(STAKE, message.SerializeToString())

    def unstake(self):
        message = supplier_pb.MsgUnstakeSupplier(signer=self.address, operator_address=self.address)
        return Message(UNSTAKE, message.SerializeToString())

    async def send(self, message, **changes):
        """Send a transaction and return its result in the block, or the rejection by the check."""
        journey = self.journey
        account = await journey.chain.account(self.address)
        timeout = Timestamp.of_nanoseconds((await journey.comet.block()).time.nanoseconds + 60_000_000_000)
        plan = TransactionPlan((message,), "pocket", account.number, 1_000_000, FEE_UPOKT, timeout)
        signed = sign_transaction(replace(plan, **changes), self.key)
        result = await journey.chain.broadcast(signed.raw)
        if result.code:
            return result
        while True:
            try:
                return await journey.chain.transaction(signed.tx_hash)
            except NotFound:
                await asyncio.sleep(0.1)

    async def balance(self):
        return await self.journey.chain.balance_upokt(self.address)


@pytest.fixture
def staker(journey):
    return Staker(journey, "supplier6")


async def test_a_stake_serves_from_the_next_session_on_and_costs_stake_and_fees(journey, staker):
    chain = journey.chain
    with pytest.raises(NotFound):
        await chain.supplier(staker.address)
    before = await staker.balance()
    staked = await staker.send(staker.stake(5_000_000, "develop-stream", "develop-http"))
    assert (staked.code, staked.log) == (0, "")
    assert await staker.balance() == before - 5_000_000 - STAKING_FEE_UPOKT - FEE_UPOKT
    next_start = (staked.height - 1) // 10 * 10 + 11
    record = await chain.supplier(staker.address)
    assert (record.owner_address, record.stake_upokt) == (staker.address, 5_000_000)
    # The chain answers sorted by service, not as sent.
    assert [row.service_id for row in record.history] == ["develop-http", "develop-stream"]
    assert {row.activation_height for row in record.history} == {next_start}
    assert not record.serves("develop-http", staked.height, next_start - 1)
    application = address_of(journey.keys["app1"].public_key)
    assert staker.address not in (await chain.session(application, "develop-http", staked.height)).supplier_addresses
    await journey.reach(next_start)
    record = await chain.supplier(staker.address)
    assert record.serves("develop-http", next_start, next_start + 9)
    assert record.service_ids == {"develop-http", "develop-stream"}

    # The same again changes nothing and costs the fee all the same; a higher stake costs the difference.
    again = await staker.send(staker.stake(5_000_000, "develop-stream", "develop-http"))
    assert again.code == 0
    assert await staker.balance() == before - 5_000_000 - 2 * (STAKING_FEE_UPOKT + FEE_UPOKT)
    more = await staker.send(staker.stake(6_000_000))
    assert more.code == 0
    assert await staker.balance() == before - 6_000_000 - 3 * (STAKING_FEE_UPOKT + FEE_UPOKT)

    gone = await staker.send(staker.unstake())
    assert gone.code == 0
    assert await staker.balance() == before - 6_000_000 - 3 * STAKING_FEE_UPOKT - 4 * FEE_UPOKT
    record = await chain.supplier(staker.address)
    session_end = (gone.height - 1) // 10 * 10 + 10
    assert record.unstake_session_end_height == session_end
    assert {row.deactivation_height for row in record.history} == {session_end + 1}


async def test_refused_stakes_tell_by_their_codes_whether_the_check_or_the_handler_refused(journey, staker):
    supplier = Staker(journey, "supplier7")
    before = await supplier.balance()
    bad_url = supplier_pb.MsgStakeSupplier.FromString(supplier.stake(5_000_000, "develop-http").value)
    bad_url.services[0].endpoints[0].rpc_type = shared_pb.UNKNOWN_RPC
    refused = {
        "no service id": await supplier.send(supplier.stake(5_000_000, "")),
        "no transport": await supplier.send(Message(STAKE, bad_url.SerializeToString())),
        "stake of nothing": await supplier.send(supplier.stake(0, "develop-http")),
        "below the least stake": await supplier.send(supplier.stake(10, "develop-http")),
        "unknown service": await supplier.send(supplier.stake(5_000_000, "develop-nothing")),
        "never staked": await supplier.send(supplier.unstake()),
    }
    assert {name: (row.codespace, row.code) for name, row in refused.items()} == {
        "no service id": ("supplier", 1104), "no transport": ("supplier", 1104),
        "stake of nothing": ("supplier", 1101), "below the least stake": ("undefined", 1),
        "unknown service": ("undefined", 1), "never staked": ("undefined", 1),
    }  # fmt: skip
    handled = [row for row in refused.values() if row.codespace == "undefined"]
    assert {failed_message_index(row.log) for row in handled} == {0}
    # What the handler refuses costs the fee.
    assert await supplier.balance() == before - len(handled) * FEE_UPOKT


async def test_simulation_finds_what_the_handler_refuses_without_a_fee(journey):
    supplier = Staker(journey, "supplier8")
    account, before = await journey.chain.account(supplier.address), await supplier.balance()
    timeout = Timestamp.of_nanoseconds((await journey.comet.block()).time.nanoseconds + 60_000_000_000)
    plan = TransactionPlan((supplier.stake(10, "develop-http"),), "pocket", account.number, 0, None, timeout)
    with pytest.raises(PocketError, match="failed to execute message"):
        await journey.chain.simulate(sign_transaction(plan, supplier.key).raw)
    good = replace(plan, messages=(supplier.stake(5_000_000, "develop-http"),))
    assert 50_000 < await journey.chain.simulate(sign_transaction(good, supplier.key).raw) < 300_000
    assert await supplier.balance() == before
