"""The operator's staking: how often it compares stakes and reads keys, and the status of other releases."""

import asyncio
import copy
import itertools
import random
from contextlib import AsyncExitStack

import aiohttp
import pytest

from pocket.api.crd import definitions
from pocket.api.relayminer import ChainSpec
from pocket.api.supplier import Supplier
from pocket.chain.client import ChainClient
from pocket.protocol.crypto.addresses import address_of
from pocket_operator.controller.stake_keeper import StakeKeeper
from pocket_operator.controller.stake_sources import StakeChains, StakeKeys
from pocket_operator.resources.kinds import RELAY_MINERS
from resources import address, relay_miner, supplier
from staking_world import (
    COST,
    FUNDS,
    NOW,
    STAKE,
    Api,
    approve,
    settled,
    staking_world,
)


@pytest.fixture
async def world(monkeypatch):
    async with staking_world(monkeypatch) as made:
        yield made


async def test_fields_of_a_newer_release_do_not_abandon_a_transaction(world):
    world.net.chain.faults.evict = 6  # its bytes have to be sent again
    await world.round()
    shown = world.api.object["status"]["staking"]
    first = shown["transaction"]["hash"]
    shown["novel"] = 1
    shown["transaction"]["novel"] = {"a": 1}
    await settled(world)
    assert world.api.object["status"]["staking"]["transaction"]["hash"] == first
    assert world.balance == FUNDS - COST


def without(*path):
    """Return the Supplier definition of an older release, which lacks a field of status.staking."""
    rows = {row["spec"]["names"]["kind"]: row["spec"]["versions"][0] for row in definitions().values()}
    schema = copy.deepcopy(rows["Supplier"]["schema"]["openAPIV3Schema"])
    fields = schema["properties"]["status"]["properties"]["staking"]["properties"]
    for part in path[:-1]:
        fields = fields[part]["properties"]
    del fields[path[-1]]
    return {"Supplier": schema}


async def test_an_older_definition_gets_the_fields_that_it_knows(world):
    world.api.installed = without("inherited")
    await settled(world)
    assert "inherited" not in world.api.object["status"]["staking"]
    assert world.balance == FUNDS - COST


async def test_what_an_older_definition_cannot_record_is_not_sent(world):
    world.api.installed = without("transaction", "raw")
    for _ in range(3):
        await world.round()
    assert world.api.reason == "CRDOlder"
    assert world.balance == FUNDS
    assert address("alice") not in world.net.chain.state.suppliers


async def test_without_a_key_the_plan_is_shown(world):
    world.api.secrets.clear()
    await world.round()
    assert world.api.reason == "KeyMissing"
    assert world.api.object["status"]["staking"]["plan"]["costUpokt"] == COST
    assert world.balance == FUNDS


async def test_a_stake_that_is_as_declared_is_compared_once_a_minute_or_when_its_supplier_changes(world):
    await settled(world)
    now = 0.0
    keeper = StakeKeeper(world.api, world.store, "pocket-system", lambda: NOW, lambda: now)
    asked = []
    for now in (1.0, 2.0, 48.0, 62.0):  # noqa: B007 - the clock of the keeper
        before = world.api.requests.count
        await world.once(keeper)
        asked.append(world.api.requests.count > before)
    assert asked == [True, False, False, True]
    world.api.object["metadata"]["generation"] += 1
    before = world.api.requests.count
    await world.once(keeper)
    assert world.api.requests.count > before


async def test_a_state_that_does_not_change_is_compared_less_and_less_often(world):
    world.api.object["spec"]["stake"]["policy"] = "Plan"
    now = 0.0
    keeper = StakeKeeper(world.api, world.store, "pocket-system", lambda: NOW, lambda: now, rng=random.Random(1))
    asked = []
    for now in range(0, 400, 5):
        before = world.api.requests.count
        await world.once(keeper)
        if world.api.requests.count > before:
            asked.append(now)
    assert world.api.reason == "AwaitsApproval"
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses[:5] == [5, 5, 10, 20, 35]
    assert all(45 < pause <= 60 for pause in pauses[5:])
    approve(world)  # ends the rest
    await world.once(keeper)
    assert world.api.reason == "Signing"


async def test_a_round_that_is_too_long_is_continued_with_the_stakes_that_waited_longest(world, monkeypatch):
    for number in range(10):
        waiting = supplier("ns", f"s{number}", "main", stake=STAKE)
        waiting["metadata"]["uid"] = f"s{number}"
        world.store.put(waiting["kind"], waiting)
    now, asked = 0.0, []

    async def slow(kind, namespace, name):
        nonlocal now
        now += 8
        asked.append(name)
        raise TimeoutError

    monkeypatch.setattr(world.api, "get_or_none", slow)
    keeper = StakeKeeper(world.api, world.store, "pocket-system", lambda: NOW, lambda: now)
    for _ in range(3):
        await world.once(keeper)
    assert len(asked) == 12
    assert len(set(asked[:11])) == 11


async def test_parameters_are_read_once_for_the_suppliers_of_a_block(world, monkeypatch):
    read = []
    for name in ("staking_params", "shared_params"):
        real = getattr(ChainClient, name)

        async def counted(*arguments, name=name, real=real):
            read.append(name)
            return await real(*arguments)

        monkeypatch.setattr(ChainClient, name, counted)
    spec = ChainSpec.model_validate({"nodes": [{"grpc": world.net.grpc_url, "rpc": world.net.rpc_url}]})
    async with AsyncExitStack() as stack:
        chain = await StakeChains(stack, await stack.enter_async_context(aiohttp.ClientSession())).of(spec)
        first = await chain.snapshot(address("alice"), address("alice"))
        assert (await chain.snapshot(address("bob"), address("bob"))).params == first.params
        assert sorted(read) == ["shared_params", "staking_params"]
        world.net.step()
        await chain.snapshot(address("alice"), address("alice"))
        assert len(read) == 4


async def test_a_policy_that_signs_nothing_reads_no_key(world):
    world.api.object["spec"]["stake"]["policy"] = "Observe"
    await world.round()
    assert (world.api.reason, world.api.secret_reads) == ("Differs", 0)


async def test_suppliers_of_one_relay_miner_read_its_keys_once_a_round():
    api = Api(STAKE)
    parsed, keys = Supplier.model_validate(api.object), StakeKeys(api)
    found = await asyncio.gather(*(keys.key("ns", "main", parsed) for _ in range(3)))
    assert {address_of(row.public_key) for row in found} == {address("alice")}
    assert api.secret_reads == 1


async def test_a_relay_miner_that_hangs_delays_no_other(world):
    for number in range(20):
        slow, waiting = (
            relay_miner("ns", f"{number // 4}"),
            supplier("ns", f"slow{number}", f"{number // 4}", stake=STAKE),
        )
        for each in (slow, waiting):
            each["metadata"]["uid"] = each["metadata"]["name"]
            world.store.put(each["kind"], each)
    running = asyncio.create_task(world.keeper().once())
    async with asyncio.timeout(10):
        await world.api.written.wait()
    world.api.release.set()
    await running
    assert world.api.reason == "Signing"


@pytest.mark.parametrize(("field", "value"), [("spec", {"paused": True}), ("status", {"operator": "elsewhere"})])
async def test_a_relay_miner_that_is_paused_or_managed_elsewhere_is_left_alone(world, field, value):
    owner = world.store.get(RELAY_MINERS.name, "ns", "main")
    owner[field] = owner.get(field, {}) | value
    await world.round()
    assert world.api.requests.count == 0
