"""Measure the CPU of the operator's decisions for one RelayMiner.

It has many Suppliers. A decision is a plan and all statuses.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks.growth import Growth, exponent, listed, print_growth
from benchmarks.parts import key
from pocket.api.status import as_status
from pocket.protocol.crypto.addresses import address_of
from pocket_operator.decide.plan import drifted_children, key_digest, plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.snapshot import Pod, SecretView, Snapshot
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources import names

_API = "pocket.network/v1beta1"
_NAMESPACE = "bench"
_SERVICE = {"id": "eth", "backends": {"jsonRpc": {"urls": ["http://eth:8545"]}}}
_CHAIN = {"nodes": [{"grpc": "grpc://node:9090", "rpc": "http://node:26657"}]}


def snapshot(suppliers: int, relayers: int, miners: int) -> Snapshot:
    """Return the snapshot of a healthy RelayMiner.

    All keys are published and loaded, every pod reports, every supplier has open sessions.
    """
    hexes: dict[str, str] = {
        address_of(k.public_key): f"{k.scalar:064x}" for k in (key(f"supplier {n}") for n in range(suppliers))
    }
    addresses = sorted(hexes)
    resources = tuple(_supplier(number, address) for number, address in enumerate(addresses))
    digest = key_digest(list(hexes.values()))
    relayer = {"component": "relayer", "keys": digest, "addresses": addresses, "height": 9}
    reports = [Report.of(f"main-relayer-{n}", relayer) for n in range(relayers)]
    reports += [_miner_report(n, addresses, addresses[n::miners], digest) for n in range(miners)]
    return Snapshot(
        now=datetime(2026, 1, 1, tzinfo=UTC), clock=100.0, namespace=_NAMESPACE, name="main",
        relay_miner={
            "apiVersion": _API, "kind": "RelayMiner",
            "metadata": {"name": "main", "namespace": _NAMESPACE, "uid": "rm", "generation": 1},
            "spec": {"chain": _CHAIN, "redis": {"url": "redis://redis:6379/0"}, "services": [_SERVICE]},
        },
        suppliers=resources,
        owners={address: address for address in addresses},
        secrets={"keys": SecretView(hexes)}, published=SecretView(hexes), children={}, drain_anchor_uid="keeper",
        pods=tuple(_pod(r.pod, r.component) for r in reports), reports=tuple(reports),
    )  # fmt: skip


def _supplier(number: int, address: str) -> dict[str, object]:
    return {
        "apiVersion": _API, "kind": "Supplier",
        "metadata": {
            "name": f"supplier-{number}", "namespace": _NAMESPACE, "uid": address, "generation": 1,
            "finalizers": [names.FINALIZER],
        },
        "spec": {
            "operatorAddress": address, "relayMinerRef": {"name": "main"},
            "key": {"secretRef": {"name": "keys", "key": address}},
        },
    }  # fmt: skip


def _pod(name: str, component: str) -> Pod:
    return Pod(name, name, component, ready=True, deleting=False, ip="10.0.0.1")


def _miner_report(number: int, addresses: list[str], owned: list[str], digest: str) -> Report:
    row = {
        "open": 3, "staked": True, "sessions": {"active": 3}, "stake": {"services": ["eth"]}, "earned_by": {"owner": 5},
    }  # fmt: skip
    return Report.of(
        f"main-miner-{number}",
        {
            "component": "miner", "keys": digest, "addresses": addresses, "owned": owned, "height": 9,
            "looked": dict.fromkeys(owned, 1.0), "suppliers": dict.fromkeys(owned, row),
        },
    )  # fmt: skip


def measure(suppliers: int = 1000, relayers: int = 9, miners: int = 3) -> float:
    """Return the CPU seconds of one decision.

    It consists of a plan, and the status of the RelayMiner and of every Supplier.
    """
    found = []
    for _ in range(3):
        seen = snapshot(suppliers, relayers, miners)
        begun = time.process_time()
        planned = plan(seen)
        if planned.blocked_by is not None:
            raise SystemExit(f"the measurement would mean nothing: {planned.blocked_by}")
        drifted_children(planned, seen.children)
        as_status(relay_miner_status(seen, planned))
        for check in planned.key_checks:
            as_status(supplier_status(check, seen, planned))
        found.append(time.process_time() - begun)
    return min(found)


def growth(suppliers: Sequence[int] = (10, 100, 1000, 5000)) -> Growth:
    """Return the CPU of a reconciliation for growing numbers of Suppliers."""
    values = [measure(number) for number in suppliers]
    return {f"{listed(suppliers)} Suppliers, s of CPU": (values, exponent(suppliers, values))}


if __name__ == "__main__":
    print_growth(growth())
