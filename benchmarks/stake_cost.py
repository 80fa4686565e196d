"""Measure what comparing declared stakes costs the operator.

Usage: `python -m benchmarks.stake_cost [SUPPLIERS]`. The localnet is another process. All stakes are as declared, so
each is compared once a minute.
"""

import asyncio
import copy
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.parts import key
from pocket.chain.client import ChainClient
from pocket.protocol.crypto.addresses import address_of
from pocket_operator.controller.stake_keeper import StakeKeeper
from pocket_operator.decide.object_cache import ObjectCache
from pocket_operator.resources.kinds import RELAY_MINERS, SUPPLIERS
from relayctl.local_ports import free_port
from relayctl.local_process import Process, await_http

NAMESPACE = "bench"
STAKE = 60_000_000_000


class Api:
    """The parts of an API server that staking uses, in memory."""

    def __init__(self, suppliers: dict[str, dict[str, Any]]) -> None:
        self.suppliers = suppliers
        self.calls: Counter[str] = Counter()

    async def get_or_none(self, kind: object, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a Supplier, and nothing else."""
        self.calls["reads"] += 1
        return copy.deepcopy(self.suppliers.get(name)) if kind is SUPPLIERS else None

    async def call(self, method: str, path: str, *, body: dict[str, Any], **_: object) -> dict[str, Any]:
        """Store the status of a Supplier."""
        self.calls["writes"] += 1
        found = self.suppliers[body["metadata"]["name"]]
        found["status"] = copy.deepcopy(body["status"])
        return copy.deepcopy(found)


def genesis(addresses: list[str]) -> dict[str, Any]:
    """Return a chain on which all suppliers are staked."""
    owner = address_of(key("owner").public_key)
    return {
        "block_seconds": 1.0,
        "accounts": [{"address": address, "balance": 10**9} for address in [*addresses, owner]],
        "services": [{"id": "eth", "name": "eth", "compute_units_per_relay": 1, "owner": owner}],
        "suppliers": [
            {"operator": address, "owner": address, "stake": STAKE, "services": ["eth"]}
            for address in addresses
        ],
    }  # fmt: skip


def supplier(address: str) -> dict[str, Any]:
    """Return a Supplier that declares this stake."""
    return {
        "apiVersion": "pocket.network/v1beta1", "kind": "Supplier",
        "metadata": {"name": address, "namespace": NAMESPACE, "uid": address, "generation": 1, "resourceVersion": "1"},
        "spec": {
            "relayMinerRef": {"name": "main"}, "operatorAddress": address,
            "key": {"secretRef": {"name": "keys", "key": address}},
            "stake": {"policy": "Plan", "amountUpokt": STAKE},
        },
    }  # fmt: skip


async def measure(addresses: list[str], grpc: str, rpc: str) -> None:
    """Print the cost of the first round and of the following one.

    The first round writes each status.
    """
    suppliers = {address: supplier(address) for address in addresses}
    api, store, asked, now = Api(suppliers), ObjectCache(), Counter[str](), 0.0
    store.put(
        RELAY_MINERS.name,
        {
            "apiVersion": "pocket.network/v1beta1", "kind": "RelayMiner",
            "metadata": {"name": "main", "namespace": NAMESPACE, "uid": "main"},
            "spec": {
                "chain": {"nodes": [{"grpc": grpc, "rpc": rpc}]}, "redis": {"url": "redis://redis:6379/0"},
                "services": [{"id": "eth", "backends": {"jsonRpc": {"urls": ["http://eth:8545"]}}}],
            },
        },
    )  # fmt: skip
    for row in suppliers.values():
        store.put(SUPPLIERS.name, row)
    for name in ("ask_every_node", "staking_params", "shared_params", "balance_upokt"):
        real = getattr(ChainClient, name)

        async def counted(*arguments: Any, name: str = name, real: Any = real) -> Any:
            asked[name] += 1
            return await real(*arguments)

        setattr(ChainClient, name, counted)
    keeper = StakeKeeper(api, store, "pocket-system", lambda: datetime(2026, 1, 1, tzinfo=UTC), lambda: now)  # type: ignore[arg-type]
    for title in ("first round", "a minute later"):
        api.calls.clear()
        asked.clear()
        began, cpu = time.perf_counter(), time.process_time()
        await keeper.once()
        took, used = time.perf_counter() - began, time.process_time() - cpu
        print(f"{title}: {used:.2f} s CPU, {took:.1f} s, API {dict(api.calls)}, chain {dict(asked)}")
        now += 61.0
        for row in suppliers.values():
            store.put(SUPPLIERS.name, row)
    print(Counter(row["status"]["conditions"][0]["reason"] for row in suppliers.values()))


def main() -> None:
    """Start a localnet with the suppliers and measure."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    addresses = [address_of(key(f"supplier {n}").public_key) for n in range(number)]
    with tempfile.TemporaryDirectory() as name:
        folder, grpc, rpc = Path(name), free_port(), free_port()
        (folder / "genesis.yaml").write_text(yaml.safe_dump(genesis(addresses)))
        command = [sys.executable, "-m", "pocket_localnet", "chain", "--genesis", str(folder / "genesis.yaml")]
        chain = Process(
            "localnet", [*command, "--grpc-port", str(grpc), "--rpc-port", str(rpc)], folder / "localnet.log"
        )
        chain.start()
        try:
            await_http(f"http://127.0.0.1:{rpc}/health", chain, 60)
            asyncio.run(measure(addresses, f"grpc://127.0.0.1:{grpc}", f"http://127.0.0.1:{rpc}"))
        finally:
            chain.stop()


if __name__ == "__main__":
    main()
