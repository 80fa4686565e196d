"""A miner that lost claims, seals, pages or Leases in one place loses no relay."""

import asyncio

import pytest

from mine import mine, unharmed
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.pb import cosmos_bank_v1beta1_pb2 as bank_pb
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.smst.digest import Root
from pocket.protocol.transactions.build import (
    Message,
    Timestamp,
    TransactionPlan,
    create_claim_message,
    sign_transaction,
)
from pocket.redis_store.budgets import BudgetLimits, Budgets, Charge, ChargeResult
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.seals import SealStore, SessionSeal
from pocket.redis_store.store_errors import StaleEpoch
from pocket_miner.suppliers.fleet import SupplierManager
from world import World, address, key

pytestmark = pytest.mark.redis
KEYS = RedisKeys("test")
PROOF, SEND = "/pocket.proof.MsgSubmitProof", "/cosmos.bank.v1beta1.MsgSend"


def proofs(chain):
    return [t for t in chain.transactions.values() if PROOF in t.actions]


async def lose_seals(alice, redis):
    """End the miner, and lose what it and Redis know of its seals and transactions."""
    alice.close()
    for path in alice.folder.glob("audit.sqlite*"):
        path.unlink()
    await redis.delete(KEYS.seals(alice.supplier), KEYS.transactions(alice.supplier))


async def test_seals_that_cannot_be_read_are_left_out_and_the_others_are_loaded(redis):
    store, seal = SealStore(redis, KEYS, "supplier", 1), SessionSeal("one", b"r" * 48, b"d" * 32, 12, 1)
    rows = {b"one": seal.encode(), b"\xff\xfe": b"\x00", b"two": b"no JSON", b"three": b"{}"}
    await redis.hset(KEYS.seals("supplier"), mapping=rows)
    assert await store.load() == {"one": seal}


async def test_a_claim_whose_seal_was_lost_everywhere_is_adopted_proven_and_paid(alice, redis):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(14)
    assert alice.claim(header) is not None
    await lose_seals(alice, redis)
    alice.start()
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
    assert len(proofs(alice.chain)) == 1


async def test_a_claim_whose_seal_is_lost_is_adopted_and_proven_from_the_volume_alone(alice, redis):
    """The former owner and Redis are gone together, as with their Node. The standby's volume has all relays."""
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(14)
    await lose_seals(alice, redis)
    alice.redis = connect("redis://127.0.0.1:1")
    alice.start()
    while alice.chain.height < 20:
        alice.localnet.step()
        await alice.miner.on_block(await alice.comet.block(), await alice.client.proof_params())
    assert len(proofs(alice.chain)) == 1
    await alice.redis.aclose()
    alice.redis = redis
    alice.start()
    await alice.to(24)
    assert unharmed(alice, header)


async def test_a_claim_that_cannot_be_adopted_keeps_no_other_from_it(redis, tmp_path, monkeypatch):
    """Of the first session, the volume has no relays and the stream is not read to its end."""

    async def nothing(*_):
        return 0

    async with mine(redis, tmp_path, World(services=("eth", "base"))) as alice:
        headers = sorted((alice.header(service=service) for service in ("eth", "base")), key=lambda h: h.session_id)
        for header in headers:
            await alice.record(alice.relays(header, 4))
        await alice.to(14)
        await lose_seals(alice, redis)
        alice.start()
        await alice.miner.tail()
        lost = next(iter(alice.miner.sessions.values()))
        alice.relay_store.remove(lost.end, alice.supplier, lost.session_id)
        monkeypatch.setattr(alice.miner.consumer, "consume_once", nothing)
        alice.localnet.step()
        await alice.miner.on_block(await alice.comet.block(), await alice.client.proof_params())
        sealed = {session.session_id for session in alice.miner.sessions.values() if session.seal is not None}
        assert sealed == {header.session_id for header in headers} - {lost.session_id}


async def test_a_session_is_not_sealed_in_a_redis_that_failed_over_since_it_was_inspected(alice):
    """The former primary took seven relays, of which the new one lacks three until the second half of the window."""
    header = alice.header()
    early, late = alice.relays(header, 4), alice.relays(header, 3)
    await alice.record(early)
    alice.miner.consumer.history_id = lambda: "former/primary"
    await alice.to(13)
    await alice.record(late)
    await alice.to(15)
    assert Root(alice.claim(header).root_hash).count == 7


@pytest.mark.parametrize("lost", ["stream", "entries"])
async def test_a_session_is_not_sealed_while_redis_lacks_relays_of_it_that_relayers_have(alice, redis, lost):
    header = alice.header()
    early, late = alice.relays(header, 4), alice.relays(header, 3)
    await alice.record(early)
    await alice.to(12)
    await alice.record(late)
    name = KEYS.stream(alice.supplier, header.session_id)
    await (redis.delete(name) if lost == "stream" else redis.xtrim(name, maxlen=1, approximate=False))
    await alice.to(13)
    await alice.record([*early, *late])
    await alice.to(15)
    assert Root(alice.claim(header).root_hash).count == 7


async def test_seals_of_the_volume_are_put_back_into_redis(alice, redis):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(14)
    before = await SealStore(redis, KEYS, alice.supplier, 1).load()
    assert set(before) == {header.session_id}
    await redis.flushdb()
    alice.start()
    await alice.to(15)
    assert await SealStore(redis, KEYS, alice.supplier, 1).load() == before
    state = await redis.hget(KEYS.closed(alice.supplier), header.session_id)
    assert state == b"sealing/10", "the session takes no relay"


async def test_a_transaction_that_is_handed_on_after_its_window_costs_nothing(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(12)
    alice.chain.faults.hold_blocks = 6  # a node that was cut off keeps it for so long
    before = alice.chain.state.balances[alice.supplier]
    await alice.to(20)
    assert alice.claim(header) is None
    assert alice.chain.state.balances[alice.supplier] == before
    assert [t.result.code for t in alice.chain.transactions.values()] == []


async def test_transactions_name_the_last_block_of_their_window(alice):
    await alice.record(alice.relays(alice.header(), 4))
    await alice.to(21)
    found = {}
    for transaction in alice.chain.transactions.values():
        body = tx_pb.TxBody.FromString(tx_pb.TxRaw.FromString(transaction.raw).body_bytes)
        found[transaction.actions[0]] = body.timeout_height
    assert found == {"/pocket.proof.MsgCreateClaim": 16, PROOF: 20}


async def test_localnet_forgets_a_transaction_that_failed_in_a_block_as_a_node_does(alice):
    """The very same bytes are then looked at anew: their nonce is used. What succeeded is known for good."""
    state, header = alice.chain.state, alice.header()
    results, nothing = {}, bank_pb.MsgSend(from_address=alice.supplier, to_address=address("bob"))
    for name, message in {
        "failed": create_claim_message(alice.supplier, header, bytes(39) + b"\x64" + bytes(7) + b"\x01"),
        "succeeded": Message(SEND, nothing.SerializeToString()),
    }.items():
        stamp = Timestamp.of_nanoseconds(state.time_ns + 10**11 + len(results))
        plan = TransactionPlan((message,), "pocket", state.accounts[alice.supplier].number, 500_000, 1, stamp)
        raw = sign_transaction(plan, key("alice")).raw
        assert alice.chain.broadcast(raw).code == 0
        alice.localnet.step()
        again = alice.chain.broadcast(raw)
        results[name] = (again.codespace, again.code)
    assert results == {"failed": ("sdk", 18), "succeeded": ("sdk", 19)}


async def test_all_pages_of_claims_are_read(alice):
    """More claims than the chain answers with at once."""
    header = alice.header()
    state, wanted = alice.chain.state, set()
    for number in range(250):
        session = SessionHeader(header.application_address, "eth", f"{number:064x}", 1, 10)
        state.claims[session.session_id, alice.supplier] = Claim(alice.supplier, session, bytes(47) + b"\x01")
        wanted.add(session.session_id)
    state.claims["f" * 64, address("bob")] = Claim(address("bob"), header, bytes(47) + b"\x01")
    found = await alice.client.claims_of(alice.supplier)
    assert len(found) == 250
    assert {claim.header.session_id for claim in found} == wanted
    node = NodeAddress.parse(alice.localnet.grpc_url, alice.localnet.rpc_url)
    async with ChainClient([node]) as client:
        (by_node,) = (await client.claims_by_node(alice.supplier, 1)).values()
    assert len(by_node) == 250


# The fence.


async def test_a_fence_is_written_only_after_a_look_at_the_lease(redis):
    store = SealStore(redis, KEYS, "pokt1a", 5)
    looked = []

    async def not_ours():
        looked.append(await redis.get(KEYS.fence("pokt1a")))
        raise StaleEpoch("the Lease is not ours", 9)

    with pytest.raises(StaleEpoch):
        await store.fence(not_ours)
    assert looked == [None], "the look comes before the write"
    assert await redis.get(KEYS.fence("pokt1a")) is None


async def test_a_look_counts_only_for_the_life_of_redis_in_which_it_was_taken(redis):
    store = SealStore(redis, KEYS, "pokt1a", 5)
    looks = []

    async def redis_is_lost_meanwhile():
        looks.append(len(looks))
        if len(looks) == 1:
            await redis.flushdb()

    await store.fence(redis_is_lost_meanwhile)
    assert looks == [0, 1]
    assert await redis.get(KEYS.fence("pokt1a")) == b"5"


class Leases:
    """What a fresh look at the Lease of any shard says."""

    def __init__(self, epoch):
        self.epoch = epoch

    async def verify_lease(self, shard):
        return self.epoch


@pytest.mark.parametrize("epoch", [0, 4, 6])
async def test_an_owner_confirms_only_the_epoch_that_its_lease_has_now(epoch):
    fleet = SupplierManager.__new__(SupplierManager)
    fleet.keeper, fleet._shards = Leases(epoch), {"pokt1a": 0}
    with pytest.raises(StaleEpoch) as caught:
        await fleet._confirm("pokt1a", 5)
    assert caught.value.epoch == epoch
    fleet.keeper = Leases(5)
    await fleet._confirm("pokt1a", 5)


# Budgets.


async def charged(redis, *charges):
    budgets = Budgets(redis, KEYS, BudgetLimits())
    running = asyncio.create_task(budgets.run())
    verdicts = [await budgets.charge(charge) for charge in charges]
    return budgets, running, verdicts


async def test_a_budget_is_kept_until_nobody_can_ask_again(redis):
    charge = Charge("pokt1a", "s", 10, 100, 7200, b"a" * 16)
    _, running, _ = await charged(redis, charge)
    for name in (KEYS.consumed("pokt1a", "s"), KEYS.replays("pokt1a", "s", charge.request_id[0])):
        assert 7100 < await redis.ttl(name) <= 7200
    running.cancel()


async def test_a_refund_is_exactly_what_was_charged(redis):
    first, second = (Charge("pokt1a", "s", cost, 100, 600, bytes([cost]) * 16) for cost in (30, 45))
    budgets, running, verdicts = await charged(redis, first, second)
    assert verdicts == [ChargeResult.CHARGED, ChargeResult.CHARGED]
    budgets.refund(first)
    await budgets.drain()
    assert await redis.get(KEYS.consumed("pokt1a", "s")) == b"45"
    assert await budgets.charge(second) is ChargeResult.REPLAYED, "only the refunded one may come again"
    assert await budgets.charge(first) is ChargeResult.CHARGED
    running.cancel()


async def test_a_charge_whose_asker_left_is_taken_back(redis):
    budgets = Budgets(redis, KEYS, BudgetLimits())
    asking = asyncio.create_task(budgets.charge(Charge("pokt1a", "s", 10, 100, 600, b"b" * 16)))
    await asyncio.sleep(0)
    asking.cancel()
    running = asyncio.create_task(budgets.run())
    await budgets.drain()
    assert await redis.get(KEYS.consumed("pokt1a", "s")) == b"0"
    running.cancel()
