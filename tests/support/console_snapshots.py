"""Snapshots of the console, made by hand."""

from pocket.api import miner_status as api
from pocket.api.problems import Problem
from pocket_console.snapshot import (
    AnswerFreshness,
    Component,
    ConsoleSnapshot,
    MinerSnapshot,
    ProcessOrigin,
    RelayerSample,
    RelayerSnapshot,
    RelayerState,
    ServiceTotals,
)

NOW = 1000.0
HEIGHT = 112
WINDOWS = api.SessionWindows(grace_end=111, claim_open=112, claim_close=116, proof_open=116, proof_close=120)
ALICE, BOB = "pokt1" + "a" * 38, "pokt1" + "b" * 38
OWNER, APPLICATION = "pokt1" + "c" * 38, "pokt1" + "d" * 38


def opened(number=1, **fields):
    """Return an open session of blocks 101 to 110."""
    known = {
        "supplier": ALICE, "session_id": f"{number:064x}", "service_id": "eth", "application": APPLICATION,
        "start": 101, "end": 110, "stage": "CLAIMABLE", "windows": WINDOWS, "relays": 10, "compute_units": 1000,
        "value_upokt": 420, "owes": "claim", "due": 116,
    }  # fmt: skip
    return api.OpenSession(**(known | fields))


def ended(number=1, **fields):
    """Return a settled session of blocks 91 to 100."""
    known = {
        "number": number, "supplier": ALICE, "session_id": f"{10_000_000 + number:064x}", "outcome": "settled",
        "height": 110, "time": "2026-11-29T10:00:00Z", "service_id": "eth", "application": APPLICATION, "start": 91,
        "end": 100, "relays": 7, "claimed_upokt": 300, "settled_upokt": 300, "earned_upokt": 200,
        "earned_by": {ALICE: 150, OWNER: 50}, "paid": True,
    }  # fmt: skip
    return api.EndedSession(**(known | fields))


def lost(number=1, **fields):
    """Return a session whose proof was missing."""
    return ended(
        number, outcome="proof_missed", reason="PROOF_MISSING", paid=False, lost=True, settled_upokt=0, earned_upokt=0,
        earned_by={}, **fields,
    )  # fmt: skip


def day(**fields):
    known = {"sessions": 1, "settled": 1, "relays": 7, "claimed_upokt": 300, "earned_by": {ALICE: 150, OWNER: 50}}
    return api.DayTotals(**(known | fields))


def supplier(address=ALICE, **fields):
    known = {
        "address": address, "owned": True, "shard": 3, "open": 1, "staked": True, "stake_upokt": 60_000_000_000,
        "services": ("eth",), "balance_upokt": 5_000_000, "public_key_on_chain": True,
        "earned_by": {address: 150, OWNER: 50}, "days": {"2026-11-29": day()},
    }  # fmt: skip
    return api.MinedSupplier(**(known | fields))


def state(**fields):
    known = {
        "relay_miner": "default/trial", "phase": "mining", "leader": True, "shards": {3: 1}, "shard_count": 4,
        "height": HEIGHT, "block_time": "2026-11-29T10:02:00Z", "block_seconds": 30, "suppliers": (ALICE,),
        "owned": (ALICE,), "last_outcome": 1,
    }  # fmt: skip
    return api.MinerState(**(known | fields))


def miner(name="miner-0", *, answered_at=NOW - 1, error="", **fields):
    known = {
        "state": state(), "sessions": (opened(),), "outcomes": (ended(),), "suppliers": (supplier(),), "complete": True,
    }  # fmt: skip
    origin = ProcessOrigin(Component.MINER, name, f"http://{name}:9090")
    return MinerSnapshot(origin, AnswerFreshness(answered_at, error), **(known | fields))


def silent(name="miner-9"):
    """Return a miner that never answered."""
    return MinerSnapshot(
        ProcessOrigin(Component.MINER, name, f"http://{name}:9090"), AnswerFreshness(None, "no connection")
    )


def totals(served=100.0, **fields):
    known = {
        "received": served + 10, "served": served, "mined": served, "rejected": {"budget_exhausted": 10.0},
        "metered": {"over_budget": 4.0}, "answers": {"success": served, "backend_timeout": 2.0},
        "latency": {0.01: served / 2, 0.1: served, float("inf"): served},
    }  # fmt: skip
    return ServiceTotals(**(known | fields))


def relayer(
    name="relayer-0",
    *,
    answered_at=NOW - 1,
    error="",
    samples=None,
    problems=(),
    unhealthy=(),
    addresses=(),
    budgets=(),
):
    made = (
        RelayerSample(NOW - 61, {"eth": totals(100.0)}),
        RelayerSample(NOW - 1, {"eth": totals(700.0)}, in_flight=2, connections=9),
    )
    return RelayerSnapshot(
        ProcessOrigin(Component.RELAYER, name, f"http://{name}:9090"), AnswerFreshness(answered_at, error),
        RelayerState(
            workers=2, addresses=frozenset({ALICE, *addresses}), height=HEIGHT,
            problems=tuple(Problem(code="", message=text) for text in problems), unhealthy=unhealthy,
            budgets=budgets,
        ),
        made if samples is None else samples,
        ((NOW - 61, {"eth": 100.0}), (NOW - 31, {"eth": 400.0}), (NOW - 1, {"eth": 700.0})),
    )  # fmt: skip


def snapshot(miners=None, relayers=None, cluster=None):
    return ConsoleSnapshot(
        1, NOW, (miner(),) if miners is None else miners, (relayer(),) if relayers is None else relayers, cluster
    )
