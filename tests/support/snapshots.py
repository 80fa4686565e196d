"""Snapshots of a RelayMiner with one Supplier, for what the operator decides."""

from datetime import UTC, datetime, timedelta

from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.snapshot import Pod, SecretView, Snapshot
from pocket_operator.resources import names
from resources import address, key_of, relay_miner, supplier

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def with_uid(resource, uid, **metadata):
    return {**resource, "metadata": {**resource["metadata"], "uid": uid, "generation": 1, **metadata}}


def gone(resource, seconds_ago=10.0, *, held=True):
    stamp = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    finalizers = [names.FINALIZER] if held else []
    return {**resource, "metadata": {**resource["metadata"], "deletionTimestamp": stamp, "finalizers": finalizers}}


RM = with_uid(relay_miner("ns"), "rm")
ALICE = with_uid(supplier("ns"), "alice")
POD = Pod("main-relayer-1", "p1", names.RELAYER, ready=True, deleting=False, ip="10.0.0.1")
MINER_POD = Pod("main-miner-0", "p2", names.MINER, ready=True, deleting=False, ip="10.0.0.2")


def relayer_report(*addresses: str, leaving=(), complete=True) -> Report:
    body = {"component": "relayer", "addresses": addresses, "leaving": leaving, "complete": complete}
    return Report.of("main-relayer-1", body)


def miner_report(
    open_sessions: int = 0, *, pod="main-miner-0", last_scan_began=99.0, owned=("alice",), chain=(), **more
) -> Report:
    """`last_scan_began` on the clock of a snapshot, which shows 100."""
    row = {"open": open_sessions, "staked": True, "stake": {"services": ["eth"]}, **more}
    looked = {} if last_scan_began is None else {address(name): 100.0 - last_scan_began for name in owned}
    body = {
        "component": "miner", "role": "active", "addresses": [address("alice")], "chain": chain, "looked": looked,
        "owned": [address(name) for name in owned], "suppliers": {address("alice"): row},
    }  # fmt: skip
    return Report.of(pod, body, 100.0)


def snapshot(**more) -> Snapshot:
    return Snapshot(
        **{
            "now": NOW, "clock": 100.0, "namespace": "ns", "name": "main", "relay_miner": RM, "suppliers": (ALICE,),
            "owners": {address("alice"): "alice"}, "secrets": {"alice-key": SecretView({"hex": key_of("alice")})},
            "published": SecretView({address("alice"): key_of("alice")}), "children": {}, "pods": (POD, MINER_POD),
            "drain_anchor_uid": "keeper", **more,
        }
    )  # fmt: skip
