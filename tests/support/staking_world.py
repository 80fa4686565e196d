"""A localnet, the API server's Supplier, and the operator's staking between them."""

import asyncio
import contextlib
import copy
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from pocket.kube.api_client import Conflict, KubeError
from pocket.staking.chain import StakeChain
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from pocket_operator.controller.stake_keeper import StakeKeeper
from pocket_operator.decide.object_cache import ObjectCache
from pocket_operator.decide.schemas import Schemas
from pocket_operator.decide.stake_decision import APPROVAL
from pocket_operator.resources.kinds import RELAY_MINERS, SECRETS, SUPPLIERS
from resources import address, key_of, relay_miner, secret, supplier
from world import World

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
        self.installed = {}
        self.secret_reads = 0
        self.release, self.written = asyncio.Event(), asyncio.Event()

    async def get_or_none(self, kind, namespace, name):
        async def answer():
            self.secret_reads += kind is SECRETS
            if name.startswith("slow"):
                await self.release.wait()
                return None
            return copy.deepcopy(self.object if kind is SUPPLIERS else self.secrets.get(name))

        return await self.requests.around(answer())

    async def call(self, method, path, *, body, **_):
        async def answer():
            metadata = self.object["metadata"]
            if body["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
                raise Conflict("changed", 409)
            if Schemas(self.installed).pruned_status("Supplier", body["status"]) != body["status"]:
                raise KubeError("field not declared in schema", 500)
            metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
            self.object["status"] = copy.deepcopy(body["status"])
            self.written.set()
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
        return StakeKeeper(self.api, self.store, "pocket-system", lambda: NOW, time.monotonic, schemas=self.schemas)

    async def once(self, keeper):
        """One round of an operator whose watch has shown the Supplier as it is."""
        self.store.put(SUPPLIERS.name, self.api.object, also_older=True)
        await keeper.once()

    def schemas(self):
        return Schemas(self.api.installed)

    async def round(self):
        """One round of an operator that was just started, and a block."""
        with contextlib.suppress(Stopped):
            await self.once(self.keeper())
        self.net.step()

    @property
    def balance(self):
        return self.net.chain.state.balances[address("alice")]

    @property
    def staked(self):
        return self.net.chain.state.suppliers[address("alice")].stake_upokt


@asynccontextmanager
async def staking_world(monkeypatch):
    """Run a localnet with a funded operator that is not staked."""
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


def approve(world):
    """Approve the plan that the status shows."""
    shown = world.api.object["status"]["staking"]["plan"]["hash"]
    world.api.object["metadata"]["annotations"] = {APPROVAL: shown}


def restake(world, upokt):
    """Change the stake as another writer does."""
    suppliers = world.net.chain.state.suppliers
    suppliers[address("alice")] = replace(suppliers[address("alice")], stake_upokt=upokt)
    world.net.step()
