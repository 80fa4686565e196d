"""A supplier's whole life by `kubectl apply` alone, on a real API server and a node of the chain itself.

It is staked, serves, earns, drains and is unstaked, while operator, miner and node are killed.
"""

import asyncio
import json

import aiohttp
import pytest
import yaml
from waits import published

import realchain
from journey import BLOCKS_TO_SETTLE, Journey
from kube import condition, eventually
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.errors import ChainError, NotFound
from pocket.protocol.crypto.addresses import address_of
from pocket_operator.decide.stake_decision import APPROVAL
from pocket_operator.resources.kinds import SUPPLIERS
from realchain import PARAMS, SUBMISSION_FEE_UPOKT, RealNode
from realstack import prepared
from resources import relay_miner, secret, supplier

pytestmark = [
    pytest.mark.skipif(not realchain.REALCHAIN, reason="REALCHAIN names no program: see docs/realchain.md"),
    pytest.mark.timeout(570),
]
NAME, STAKE, STAKING_FEE = "supplier8", 5_000_000, 1_000_000
SHORT = {**PARAMS, "shared": {"supplier_unbonding_period_sessions": 3}}
SERVICES = [
    {"id": "develop-http", "endpoints": [{"url": "https://relay.example", "rpcType": "jsonRpc"}]},
    {"id": "develop-stream", "endpoints": [{"url": "https://relay.example", "rpcType": "rest"}]},
]


class Life:
    """One declared supplier: what is applied, what its status says, and two replicas of the operator."""

    def __init__(self, cluster, api, namespace, replicas, key):
        self.cluster, self.api, self.namespace, self.replicas = cluster, api, namespace, list(replicas)
        self.key, self.address = key, address_of(key.public_key)
        self.annotations, self.stake = {}, {
            "policy": "Apply", "amountUpokt": STAKE, "budgetUpokt": STAKE + STAKING_FEE + 1_000, "services": SERVICES,
        }  # fmt: skip

    def apply(self, node=None):
        """Apply the Supplier, and with a node the RelayMiner and the key, too."""
        declared = supplier(self.namespace, NAME, operatorAddress=self.address, stake=self.stake)
        declared["metadata"]["annotations"] = self.annotations
        documents = [declared]
        if node is not None:
            services = [{"id": row["id"], "backends": {"jsonRpc": {"urls": ["http://geth"]}}} for row in SERVICES]
            chain = {"nodes": [{"grpc": node.grpc, "rpc": node.rpc}], "blockSeconds": 1}
            documents += [
                relay_miner(self.namespace, chain=chain, services=services),
                secret(self.namespace, f"{NAME}-key", hex=f"{self.key.scalar:064x}"),
            ]
        self.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    async def status(self):
        return (await self.api.get(SUPPLIERS, self.namespace, NAME)).get("status") or {}

    async def reached(self, reason, seconds=120):
        async def look():
            found = condition(await self.api.get(SUPPLIERS, self.namespace, NAME), "StakeAsDeclared")
            assert found.get("reason") == reason, str(found)
            return True

        await eventually(look, seconds, reason)

    async def sent(self, other_than=""):
        """Wait for a transaction in the status and return its hash."""

        async def look():
            found = ((await self.status()).get("staking") or {}).get("transaction", {}).get("hash", "")
            return found if found != other_than else ""

        return await eventually(look, 120, "a recorded transaction", pause=0.02)

    def replace_operator(self):
        """Kill the running replica and start the other one, which leads once the Lease is over."""
        first, second = self.replicas
        first.stop(kill=True)
        second.start()
        self.replicas.reverse()


async def _balance(chain, address):
    """Return the balance, None while a node that has just started answers no query."""
    try:
        return await chain.balance_upokt(address)
    except ChainError:
        return None


async def follow_miner(stack, nodes, address):
    """Say through the pods of the API server how many sessions the real miner has open."""
    async with aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"http://127.0.0.1:{stack.ports['miner-admin']}/report") as answer:
                    rows = (await answer.json())["suppliers"]
                nodes.open[address] = rows[address]["open"] if address in rows else 1
            except (aiohttp.ClientError, KeyError, ValueError):
                nodes.open[address] = 1  # a miner that does not answer may have one
            await asyncio.sleep(0.2)


async def test_a_supplier_is_staked_earns_and_is_unstaked_by_what_is_applied_alone(
    cluster, api, namespace, replicas, nodes, tmp_path
):
    keys = await asyncio.to_thread(realchain.keys)
    with prepared(tmp_path / "stack", keys, 1.0, [NAME]) as stack:
        node = await asyncio.to_thread(
            RealNode.start, tmp_path / "node", block_seconds=1.0, relayer_url=stack.relayer_url, params=SHORT
        )
        try:
            async with aiohttp.ClientSession() as http, ChainClient([node.address]) as chain:
                journey = Journey(node, stack, keys, chain, CometClient([node.address], http), http)
                journey.relays = {NAME: 12}
                await _live(Life(cluster, api, namespace, replicas, keys[NAME]), journey, nodes)
        finally:
            node.kill()


async def _live(life, journey, nodes):
    chain, stack, address = journey.chain, journey.stack, life.address
    before = await eventually(lambda: _balance(chain, address), 60, "a node that answers")
    life.replicas[0].start()
    life.apply(journey.node.address)
    staked = await life.sent()
    life.replace_operator()
    await life.reached("AsDeclared")
    assert (await life.status())["staking"]["transaction"]["hash"] == staked, "the same bytes"
    assert (await chain.supplier(address)).stake_upokt == STAKE
    assert before - STAKE - STAKING_FEE - 10 < await chain.balance_upokt(address) < before - STAKE - STAKING_FEE
    for component in ("relayer", "miner"):
        assert await published(life.api, life.namespace, component) == {address}

    await asyncio.to_thread(stack.start, journey.node.address)

    async def restart_miner():
        await asyncio.to_thread(stack.restart_miner)

    async def restart_node():
        await asyncio.to_thread(journey.node.kill)
        await asyncio.to_thread(journey.node.again)

    # Every relay of a session is paid to the upokt, whatever is killed meanwhile.
    await journey.run(1, {5: restart_miner, 12: restart_node, 14: restart_miner})
    earned = await chain.balance_upokt(address)
    proofs = len(journey.ledger.proofs)
    paid, fees = journey.ledger.paid[address], journey.ledger.fees[address]
    assert paid > 0

    # With another session open it is unstaked only after that one is settled.
    async with asyncio.TaskGroup() as group:
        following = group.create_task(follow_miner(stack, nodes, address))
        await journey.traffic((await journey.height() - 1) // 10 * 10 + 11, 1)
        nodes.open[address] = 1
        life.stake |= {"state": "Unstaked"}
        life.apply()
        await life.reached("AwaitsApproval")
        life.annotations[APPROVAL] = (await life.status())["staking"]["plan"]["hash"]
        life.apply()
        await life.reached("Draining")
        assert await published(life.api, life.namespace, "miner") == {address}
        life.replace_operator()
        await life.sent(other_than=staked)
        assert journey.seen < await journey.height() - BLOCKS_TO_SETTLE, "the open session is settled first"
        life.replace_operator()
        await life.reached("AsDeclared", seconds=240)
        following.cancel()
    with pytest.raises(NotFound):
        await chain.supplier(address)
    await journey.follow(await journey.height())
    book = journey.ledger
    assert {pair for pair in journey.sent if pair not in book.ends} == set(), "a relay was not settled"
    assert book.failed == [], json.dumps(book.failed)
    came = book.paid[address] - paid + STAKE
    went = book.fees[address] - fees + SUBMISSION_FEE_UPOKT * (len(book.proofs) - proofs)
    assert await chain.balance_upokt(address) == earned + came - went
