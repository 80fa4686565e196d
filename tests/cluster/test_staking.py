"""A declared stake on a real API server and a localnet: planned, approved, interrupted, changed, unstaked."""

import asyncio
import contextlib

import pytest
from waits import create, reason

from kube import condition, eventually
from pocket.kube.api_client import KubeError
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from pocket_operator.decide.stake_decision import APPROVAL
from pocket_operator.resources import names
from pocket_operator.resources.kinds import SECRETS, SUPPLIERS
from resources import address, changed, key_secret, relay_miner, supplier
from world import World

STAKE = {
    "policy": "Plan",
    "amountUpokt": 5_000_000,
    "minIntervalSeconds": 60,
    "services": [{"id": "eth", "endpoints": [{"url": "https://relay.example", "rpcType": "jsonRpc"}]}],
}
FUNDS, FEE = 60_000_000, 1_000_000


@pytest.fixture
async def localnet():
    """Run a localnet that commits five blocks a second by its own clock."""
    world = World()
    accounts = [*world.genesis().accounts, {"address": address("alice"), "balance": FUNDS}]
    chain = LocalChain(world.genesis(accounts=accounts, minimum_gas_price="0.000001upokt", block_seconds=0.2))
    async with serve(chain) as net:
        blocks = asyncio.create_task(net.follow_clock())
        yield net
        blocks.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await blocks


async def staking(api, namespace):
    return (await api.get(SUPPLIERS, namespace, "alice")).get("status", {}).get("staking") or {}


async def approve(api, namespace):
    """Approve the plan in the status and return its hash."""
    shown = (await staking(api, namespace))["plan"]["hash"]
    await api.merge(SUPPLIERS, namespace, "alice", {"metadata": {"annotations": {APPROVAL: shown}}})
    return shown


async def reached(api, namespace, wanted, seconds=60):
    return await reason(api, SUPPLIERS, namespace, "alice", wanted, of="StakeAsDeclared", seconds=seconds)


async def test_a_stake_is_declared_approved_survives_a_killed_operator_and_is_unstaked(
    api, namespace, replicas, nodes, localnet
):
    first, second = replicas
    first.start()
    chain = {"nodes": [{"grpc": localnet.grpc_url, "rpc": localnet.rpc_url}]}
    declared = supplier(namespace, stake=STAKE)
    for path, value in (("spec.stake.policy", "Apply"), ("spec.stake.services.0.endpoints.0.url", "ftp://x"),
                        ("spec.stake.revenueShares", [{"address": address("alice"), "percent": 99}])):  # fmt: skip
        with pytest.raises(KubeError, match=r"(?i)invalid"):
            await api.create(SUPPLIERS, namespace, changed(declared, path, value))
    await create(api, key_secret(namespace), relay_miner(namespace, chain=chain), declared)

    found = await reached(api, namespace, "AwaitsApproval")
    shown = await staking(api, namespace)
    assert shown["plan"]["hash"] in found["message"]
    assert shown["plan"]["costUpokt"] == 6_000_001
    balances = localnet.chain.state.balances
    assert balances[address("alice")] == FUNDS, "nothing is sent without an approval"

    # Killed as soon as the signed bytes are recorded; another replica takes over after the lease.
    approved = await approve(api, namespace)

    async def recorded():
        return (await staking(api, namespace)).get("transaction", {}).get("hash")

    tx_hash = await eventually(recorded, 30, "recorded transaction", pause=0.02)
    first.stop(kill=True)
    second.start()
    found = await eventually(lambda: _staked(api, namespace), 90, "staked as declared")
    shown = await staking(api, namespace)
    assert (shown["transaction"]["plan"], shown["transaction"]["outcome"]) == (approved, "Included")
    assert shown["transaction"]["hash"] == tx_hash, "the same bytes"
    assert localnet.chain.state.balances[address("alice")] == FUNDS - 6_000_001, "one fee"
    assert localnet.chain.state.suppliers[address("alice")].stake_upokt == 5_000_000

    # A change within the budget waits for its interval, and an approval overrides that.
    more = {"policy": "Apply", "budgetUpokt": 10_000_000, "amountUpokt": 6_000_000, "minIntervalSeconds": 3600}
    await api.merge(SUPPLIERS, namespace, "alice", {"spec": {"stake": more}})
    await reached(api, namespace, "RateLimited")
    await approve(api, namespace)
    await eventually(lambda: _amount(localnet, 6_000_000), 60, "topped up")
    await eventually(lambda: _staked(api, namespace), 60, "staked as declared")

    # An unstake is never within a budget.
    await api.merge(SUPPLIERS, namespace, "alice", {"spec": {"stake": {"state": "Unstaked"}}})
    await reached(api, namespace, "AwaitsApproval")
    assert (await staking(api, namespace))["plan"]["approvals"] == ["Unstakes"]
    # It drains first: relayers lose the key, miners keep it until no session is open.
    nodes.open[address("alice")] = 2
    await approve(api, namespace)
    found = await reached(api, namespace, "Draining")
    relayers, miners = names.keys("main", names.RELAYER), names.keys("main", names.MINER)
    await eventually(lambda: _has_key(api, namespace, relayers, wanted=False), 60, "relayers lose the key")
    assert await _has_key(api, namespace, miners, wanted=True)
    await eventually(lambda: _drain_reason(api, namespace, "2 sessions"), 60, "two sessions are open")
    assert address("alice") in localnet.chain.state.suppliers
    nodes.open[address("alice")] = 0
    found = await eventually(lambda: _staked(api, namespace), 90, "unbonded")
    assert address("alice") not in localnet.chain.state.suppliers
    spent = 2 * FEE + localnet.chain.state.balances[address("alice")]
    assert FUNDS - 10 < spent <= FUNDS, "both staking fees and three transaction fees, nothing else"

    # Without the declaration, only what a later one goes on from stays in the status.
    await api.merge(SUPPLIERS, namespace, "alice", {"spec": {"stake": None}})
    await eventually(lambda: _forgotten(api, namespace), 30, "no plan and no condition of the stake")


async def _staked(api, namespace):
    found = condition(await api.get(SUPPLIERS, namespace, "alice"), "StakeAsDeclared")
    if found.get("reason") != "AsDeclared":
        raise AssertionError(str(found))
    return found


async def _has_key(api, namespace, name, *, wanted):
    secret = await api.get(SECRETS, namespace, name)
    return (address("alice") in (secret.get("data") or {})) is wanted


async def _drain_reason(api, namespace, words):
    found = condition(await api.get(SUPPLIERS, namespace, "alice"), "StakeAsDeclared")
    return found["reason"] == "Draining" and words in found["message"]


async def _amount(localnet, upokt):
    return localnet.chain.state.suppliers[address("alice")].stake_upokt == upokt


async def _forgotten(api, namespace):
    status = (await api.get(SUPPLIERS, namespace, "alice"))["status"]
    kinds = {row["type"] for row in status["conditions"]}
    staking = status["staking"]
    assert staking["transaction"]["outcome"] == "Included"
    return not (staking.get("plan") or {}).get("hash") and "StakeAsDeclared" not in kinds and "Ready" in kinds
