"""The operator's staking against a localnet: stopped before or after every request, one fee is paid."""

import copy

import pytest

from pocket.chain.client import ChainClient
from pocket.protocol.crypto.addresses import address_of
from pocket.staking.chain import StakeChain
from pocket_operator.resources.kinds import RELAY_MINERS, SUPPLIERS
from resources import address, secret, supplier
from staking_world import COST, ENOUGH, FUNDS, STAKE, Requests, Staking, approve, restake, settled, staking_world
from world import key


@pytest.fixture
async def world(monkeypatch):
    async with staking_world(monkeypatch) as made:
        yield made


@pytest.mark.parametrize("after", [False, True])
async def test_stopped_anywhere_the_stake_is_made_with_one_fee(world, after):
    await settled(world)
    assert world.balance == FUNDS - COST
    whole = world.api.requests.count
    status = world.api.object["status"]
    assert (status["staking"]["spentUpokt"], status["staking"]["transaction"]["outcome"]) == (COST, "Included")
    for stop_at in range(1, min(whole, 20)):
        state = world.net.chain.state
        del state.suppliers[address("alice")]
        state.balances[address("alice")] = FUNDS
        world.net.step()
        world.api.object["status"] = {}
        world.net.chain.faults.hold_blocks = 3  # blocks without the transaction: another one would have other bytes
        world.api.requests = Requests(stop_at, after=after)
        await settled(world)
        assert world.balance == FUNDS - COST, f"stopped at request {stop_at}"


async def test_an_approval_is_good_for_one_transaction_even_if_the_same_record_comes_back(world):
    await settled(world)
    world.api.object["spec"]["stake"] |= {"policy": "Plan", "amountUpokt": 3_000_000}
    for _ in range(2):
        restake(world, 5_000_000)
        balance = world.balance
        for _ in range(4):
            await world.round()
        assert world.api.reason == "AwaitsApproval"
        assert (world.balance, world.staked) == (balance, 5_000_000)
        approve(world)
        # A transaction that expires uses up no approval and brings back no earlier hash.
        world.net.chain.faults.evict = 6
        await world.round()
        for _ in range(340):
            world.net.step()
        await settled(world)
        assert world.staked == 3_000_000


async def test_a_status_that_was_changed_in_between_sends_nothing(world, monkeypatch):
    real = StakeChain.sign

    async def meanwhile(chain, *arguments):
        metadata = world.api.object["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        return await real(chain, *arguments)

    monkeypatch.setattr(StakeChain, "sign", meanwhile)
    for _ in range(3):
        await world.round()
    assert world.balance == FUNDS
    assert address("alice") not in world.net.chain.state.suppliers


async def test_a_lost_broadcast_is_repeated_with_the_same_bytes(world):
    world.net.chain.faults.evict = 6  # as often as it is sent at once
    await world.round()
    first = world.api.object["status"]["staking"]["transaction"]["hash"]
    await settled(world)
    assert world.api.object["status"]["staking"]["transaction"]["hash"] == first
    assert world.balance == FUNDS - COST


async def test_a_transaction_that_expired_is_signed_again_at_no_cost(world):
    world.net.chain.faults.evict = 6  # as often as it is sent at once
    await world.round()
    first = world.api.object["status"]["staking"]["transaction"]["hash"]
    for _ in range(340):
        world.net.step()
    await settled(world)
    assert world.api.object["status"]["staking"]["transaction"]["hash"] != first
    assert world.balance == FUNDS - COST


def lagging_records(world, monkeypatch, blocks):
    """Lead queries for records to a node that lags, and everything else to one in step."""
    real = ChainClient.ask_every_node

    async def behind(client, *arguments):
        faults = world.net.chain.faults
        faults.lag_blocks = blocks
        try:
            return await real(client, *arguments)
        finally:
            faults.lag_blocks = 0

    monkeypatch.setattr(ChainClient, "ask_every_node", behind)


@pytest.mark.parametrize("whole", [False, True])
async def test_a_node_that_lags_behind_the_transactions_block_causes_no_second_one(world, monkeypatch, whole):
    world.api.object["spec"]["stake"] |= {"budgetUpokt": FUNDS, "minIntervalSeconds": 60}
    chain = world.net.chain
    for _ in range(ENOUGH):
        await world.round()
        if world.api.reason == "TransactionIncluded":
            break
    last = world.api.object["status"]["staking"]["transaction"]
    world.api.object["status"]["staking"]["transaction"]["signedAt"] = "2025-12-31T00:00:00Z"
    behind = chain.height - last["height"] + 1  # the record of before
    if whole:
        chain.faults.lag_blocks = behind
        await world.round()
    else:
        with monkeypatch.context() as lagging:
            lagging_records(world, lagging, behind)
            await world.round()
    assert world.api.reason == "ChainUnreachable"
    assert world.api.object["status"]["staking"]["transaction"]["hash"] == last["hash"]
    chain.faults.lag_blocks = 0
    await settled(world)
    assert world.balance == FUNDS - COST


async def test_an_expired_transaction_that_a_lagging_node_does_not_show_is_not_signed_again(world, monkeypatch):
    await world.round()
    chain = world.net.chain
    first = world.api.object["status"]["staking"]["transaction"]["hash"]
    del chain.transactions[first]  # nodes without an index
    for _ in range(340):
        chain.step()
    with monkeypatch.context() as lagging:
        lagging_records(world, lagging, 341)
        for _ in range(3):
            await world.round()
    assert world.api.object["status"]["staking"]["transaction"]["outcome"] == "Expired"
    assert world.api.reason == "ChainUnreachable"
    await settled(world)
    assert world.balance == FUNDS - COST
    shown = world.api.object["status"]["staking"]
    assert (shown["transaction"]["hash"], shown["spentUpokt"]) == (first, COST)


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_transaction_is_followed_to_its_end_without_its_declaration(world, deleted):
    world.net.chain.faults.evict = 6  # its bytes have to be sent again
    await world.round()
    first, metadata = world.api.object["status"]["staking"]["transaction"]["hash"], world.api.object["metadata"]
    spec = world.api.object["spec"]
    declared = spec["stake"]
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    else:
        del spec["stake"]
    for _ in range(4):
        await world.round()
    shown = world.api.object["status"]["staking"]
    assert (shown["transaction"]["hash"], shown["transaction"]["outcome"]) == (first, "Included")
    assert shown["spentUpokt"] == COST
    before = world.api.requests.count
    await world.round()
    assert world.api.requests.count == before, "nothing is left to do"
    metadata.pop("deletionTimestamp", None)
    spec["stake"] = declared
    await settled(world)
    assert world.balance == FUNDS - COST, "no second transaction"


async def test_a_declaration_that_comes_back_goes_on_from_what_was_spent_and_reached(world):
    stake = world.api.object["spec"]["stake"]
    stake |= {"budgetUpokt": FUNDS, "minIntervalSeconds": 60}
    await settled(world)
    spec = world.api.object["spec"]
    del spec["stake"]
    await world.round()
    status = world.api.object["status"]
    assert (status["staking"]["spentUpokt"], status.get("conditions", [])) == (COST, [])
    restake(world, 4_000_000)  # another writer lowers it
    spec["stake"] = stake
    status["staking"]["transaction"]["signedAt"] = "2025-12-31T00:00:00Z"
    balance = world.balance
    for _ in range(3):
        await world.round()
    assert (world.api.reason, world.balance) == ("AwaitsApproval", balance)
    assert world.api.object["status"]["staking"]["plan"]["approvals"] == ["ChangedElsewhere"]


async def test_what_the_chain_would_refuse_is_not_sent(world):
    world.api.object["spec"]["stake"]["services"][0]["id"] = "nosuch"
    await world.round()
    assert world.api.reason == "SimulationFailed"
    assert "nosuch" in world.api.object["status"]["conditions"][0]["message"]
    assert world.balance == FUNDS


async def test_without_a_node_nothing_is_concluded(world):
    owner = world.store.get(RELAY_MINERS.name, "ns", "main")
    owner["spec"]["chain"]["nodes"] = [{"grpc": "grpc://127.0.0.1:1", "rpc": "http://127.0.0.1:1"}]
    await world.round()
    assert world.api.reason == "ChainUnreachable"
    assert world.api.object["status"]["conditions"][0]["status"] == "Unknown"


async def test_the_owners_key_pays_and_leaves_the_services_to_the_operator(world):
    payer = address_of(key("owner").public_key)
    world.api.secrets["owner-key"] = secret("ns", "owner-key", hex=f"{key('owner').scalar:064x}")
    stake = world.api.object["spec"]["stake"]
    stake |= {"owner": payer, "keySecretRef": {"name": "owner-key", "key": "hex"}}
    before = world.net.chain.state.balances[payer]
    for _ in range(6):
        await world.round()
    record = world.net.chain.state.suppliers[address("alice")]
    assert (record.owner_address, record.history) == (payer, ())
    assert world.net.chain.state.balances[payer] == before - COST
    assert world.balance == FUNDS
    assert world.api.reason == "SignerNotAllowed"
    # The operator's own key does the rest.
    del stake["keySecretRef"]
    stake["minIntervalSeconds"] = 60
    world.api.object["status"]["staking"]["transaction"]["signedAt"] = "2025-12-31T00:00:00Z"
    await settled(world)
    assert world.balance == FUNDS - 1_000_001


async def test_suppliers_that_share_a_paying_key_are_all_staked_by_one_block(world, monkeypatch):
    payer, chain = address_of(key("owner").public_key), world.net.chain
    others = [Staking(world.net, monkeypatch, name) for name in ("carol", "dave")]
    for each in (world, *others):
        each.api.secrets["owner-key"] = secret("ns", "owner-key", hex=f"{key('owner').scalar:064x}")
        each.api.object["spec"]["stake"] |= {"owner": payer, "keySecretRef": {"name": "owner-key", "key": "hex"}}
        await each.keeper().once()
        assert each.api.reason == "Signing"
    world.net.step()
    assert {address(name) for name in ("alice", "carol", "dave")} <= set(chain.state.suppliers)


async def test_what_nodes_answer_to_the_bytes_is_shown_while_they_wait(world):
    world.net.chain.faults.evict = 6
    await world.round()
    refusal = (18, "sdk", "failed to add unordered nonce")
    world.net.chain.faults.refuse = [refusal] * 12
    await world.round()
    assert world.api.reason == "TransactionSent"
    assert "failed to add unordered nonce" in world.api.object["status"]["conditions"][0]["message"]
    world.net.chain.faults.refuse.clear()
    await settled(world)
    assert world.balance == FUNDS - COST


async def test_services_of_another_supplier_reach_the_chain_and_are_named(world):
    world.api.object["spec"]["stake"] = {
        key: value for key, value in STAKE.items() if key != "services"
    } | {"defaultsFrom": {"name": "base"}}  # fmt: skip
    await world.round()
    assert world.api.reason == "InvalidDeclaration"
    assert address("alice") not in world.net.chain.state.suppliers
    base = supplier("ns", "base", "another", stake=copy.deepcopy(STAKE))
    base["metadata"]["uid"] = "base"
    world.store.put(SUPPLIERS.name, base)
    await settled(world)
    staked = world.net.chain.state.suppliers[address("alice")]
    assert {row.service_id for row in staked.history} == {row["id"] for row in STAKE["services"]}
    assert world.api.object["status"]["staking"]["inherited"] == ["services"]
