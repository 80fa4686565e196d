"""The operator's staking against a localnet: stopped before or after every request, one fee is paid."""

import copy
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pocket.chain.client import ChainClient
from pocket.kube.api_client import Conflict
from pocket.protocol.crypto.addresses import address_of
from pocket.staking.chain import StakeChain
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from pocket_operator.controller.stake_keeper import StakeKeeper
from pocket_operator.decide.object_cache import ObjectCache
from pocket_operator.decide.stake_decision import APPROVAL
from pocket_operator.resources.kinds import RELAY_MINERS, SUPPLIERS
from resources import address, key_of, relay_miner, secret, supplier
from world import World, key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FUNDS, COST = 60_000_000, 6_000_001
STAKE = {
    "policy": "Apply",
    "budgetUpokt": 10_000_000,
    "amountUpokt": 5_000_000,
    "services": [{"id": "eth", "endpoints": [{"url": "https://relay.example", "rpcType": "jsonRpc"}]}],
}
ENOUGH = 40
"""More requests than a stake takes."""


class Stopped(BaseException):
    """The operator ends here."""


class Requests:
    """Counts what leaves the process, and stops it before or after one of them."""

    def __init__(self, stop_at=None, *, after=False):
        self.stop_at, self.after, self.count = stop_at, after, 0

    async def around(self, request):
        self.count += 1
        if self.count == self.stop_at and not self.after:
            request.close()
            raise Stopped
        answer = await request
        if self.count == self.stop_at and self.after:
            raise Stopped
        return answer


class Api:
    """Just enough of an API server: one Supplier with versions, Secrets, and a status that is applied."""

    def __init__(self, stake, name="alice"):
        self.object = supplier("ns", name, stake=stake)
        self.object["metadata"] |= {"uid": name, "resourceVersion": "1", "generation": 1}
        self.secrets = {"main-miner-keys": secret("ns", "main-miner-keys", **{address("alice"): key_of("alice")})}
        self.requests = Requests()

    async def get_or_none(self, kind, namespace, name):
        async def answer():
            return copy.deepcopy(self.object if kind is SUPPLIERS else self.secrets.get(name))

        return await self.requests.around(answer())

    async def call(self, method, path, *, body, **_):
        async def answer():
            metadata = self.object["metadata"]
            if body["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
                raise Conflict("changed", 409)
            metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
            self.object["status"] = copy.deepcopy(body["status"])
            return copy.deepcopy(self.object)

        assert (method, path.rsplit("/", 1)[1]) == ("PATCH", "status")
        return await self.requests.around(answer())

    @property
    def reason(self):
        return self.object["status"]["conditions"][0]["reason"]


class Staking:
    """A localnet, the API and the operator's staking, which may be stopped and started."""

    def __init__(self, net, monkeypatch, name="alice"):
        self.net = net
        self.api = Api(copy.deepcopy(STAKE), name)
        self.store = ObjectCache()
        chain = {"nodes": [{"grpc": net.grpc_url, "rpc": net.rpc_url}]}
        owner = relay_miner("ns", chain=chain)
        owner["metadata"]["uid"] = "main"
        self.store.put(RELAY_MINERS.name, owner)
        self.store.put(SUPPLIERS.name, self.api.object)
        for method in ("snapshot", "sign", "send", "outcome"):
            self._counted(monkeypatch, method)

    def _counted(self, monkeypatch, name):
        real = getattr(StakeChain, name)

        async def counted(chain, *arguments):
            return await self.api.requests.around(real(chain, *arguments))

        monkeypatch.setattr(StakeChain, name, counted)

    def keeper(self):
        return StakeKeeper(self.api, self.store, "pocket-system", lambda: NOW, time.monotonic)

    async def round(self):
        """One round of an operator that was just started, and a block."""
        try:
            await self.keeper().once()
        except BaseExceptionGroup as stopped:
            if stopped.subgroup(Stopped) is None:
                raise
        self.net.step()

    @property
    def balance(self):
        return self.net.chain.state.balances[address("alice")]

    @property
    def staked(self):
        return self.net.chain.state.suppliers[address("alice")].stake_upokt


@pytest.fixture
async def world(monkeypatch):
    made = World(suppliers=("bob",))
    accounts = [*made.genesis().accounts, {"address": address("alice"), "balance": FUNDS}]
    chain = LocalChain(made.genesis(accounts=accounts, minimum_gas_price="0.000001upokt"))
    async with serve(chain) as net:
        yield Staking(net, monkeypatch)


async def settled(world):
    for _ in range(ENOUGH):
        await world.round()
        if world.api.object.get("status") and world.api.reason == "AsDeclared":
            return
    raise AssertionError(world.api.object["status"])


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


def approve(world):
    """Approve the plan that the status shows."""
    shown = world.api.object["status"]["staking"]["plan"]["hash"]
    world.api.object["metadata"]["annotations"] = {APPROVAL: shown}


def restake(world, upokt):
    """Change the stake as another writer does."""
    suppliers = world.net.chain.state.suppliers
    suppliers[address("alice")] = replace(suppliers[address("alice")], stake_upokt=upokt)
    world.net.step()


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
    for now in (1.0, 2.0, 60.0, 62.0):  # noqa: B007 - the clock of the keeper
        before = world.api.requests.count
        await keeper.once()
        asked.append(world.api.requests.count > before)
    assert asked == [True, False, False, True]
    world.api.object["metadata"]["generation"] += 1
    before = world.api.requests.count
    await keeper.once()
    assert world.api.requests.count > before


@pytest.mark.parametrize(("field", "value"), [("spec", {"paused": True}), ("status", {"operator": "elsewhere"})])
async def test_a_relay_miner_that_is_paused_or_managed_elsewhere_is_left_alone(world, field, value):
    owner = world.store.get(RELAY_MINERS.name, "ns", "main")
    owner[field] = owner.get(field, {}) | value
    await world.round()
    assert world.api.requests.count == 0


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
