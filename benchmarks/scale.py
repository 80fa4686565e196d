"""Estimate what a deployment of a given size needs.

Costs are measured here, and sizes are built here. Sizes of transactions are those of signed claims. Gas is that of the
localnet, whose costs follow the recorded chain.
"""

import argparse
import asyncio
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import parts, redis_cost
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.transactions.build import Timestamp, TransactionPlan, create_claim_message, sign_transaction
from pocket.redis_store.budgets import Budgets, Charge
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from pocket_localnet.ante import decode
from pocket_localnet.handlers import MESSAGE_GAS
from pocket_miner.storage.relay_store import SessionEndFile
from relayctl.local_redis import LocalRedis

_HOUR = 3600
_ROOT = bytes(32) + (10_000).to_bytes(8, "big") + (100).to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs per relay, in seconds of CPU and bytes."""

    redis_write: float
    redis_read: float
    redis_budget: float
    redis_bytes: float
    miner: float
    volume_bytes: float
    relayer: float


@dataclass(frozen=True, slots=True)
class Chain:
    """Parameters of the chain.

    `window` are the blocks in which the claims of one session end are spread.
    """

    block_seconds: float
    session_blocks: int
    settled_after_seconds: float
    window: int
    block_bytes: int


def volume_bytes_per_relay(count: int = 20_000) -> float:
    """Return the bytes of a relay on the miner's volume."""
    rows, terms = parts.mined_relays(count)
    made = [parts.build_leaf(row, terms) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        file = SessionEndFile(Path(folder) / "end-10.sqlite")
        file.add_session(terms.supplier, terms.header.session_id, terms.header.encode())
        for start in range(0, count, 500):
            file.store(terms.supplier, terms.header.session_id, made[start : start + 500], 0, "1-1", "x")
        file.close()
        return sum(path.stat().st_size for path in Path(folder).iterdir()) / count


def budget_seconds(count: int = 20_000) -> float:
    """Return the CPU of Redis for one charge of a budget, in seconds.

    It includes the protection from replays, in batches of 64.
    """

    async def charge(url: str) -> float:
        redis = connect(url)
        budgets = Budgets(redis, RedisKeys("bench"))
        charging = asyncio.create_task(budgets.run())

        async def used() -> float:
            info = await redis.info("cpu")
            return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

        before = await used()
        for start in range(0, count, 64):
            await asyncio.gather(
                *(
                    budgets.charge(Charge("supplier", "session", 1, count, _HOUR, hashlib.md5(b"%d" % n).digest()))  # noqa: S324 - an id
                    for n in range(start, start + 64)
                )
            )
        after = await used()
        charging.cancel()
        await redis.aclose()
        return (after - before) / count

    with tempfile.TemporaryDirectory() as folder:
        server = LocalRedis(Path(folder))
        try:
            server.start()
            return asyncio.run(charge(server.url))
        finally:
            server.stop()


def claim_transaction(sessions: int) -> tuple[int, int]:
    """Return the bytes and the gas of one supplier's claims of a session end."""
    key = parts.key("supplier")
    supplier, application = address_of(key.public_key), address_of(parts.key("app").public_key)
    messages = tuple(
        create_claim_message(
            supplier,
            SessionHeader(application, "eth", hashlib.sha256(b"%d" % n).hexdigest(), 100_000, 100_059),
            _ROOT,
        )
        for n in range(sessions)
    )
    plan = TransactionPlan(messages, "pocket", 100_000, 200_000, 1, Timestamp(1_800_000_000, 1))
    raw = sign_transaction(plan, key).raw
    return len(raw), decode(raw).ante_gas + MESSAGE_GAS * sessions


def measured(relayer_seconds: float) -> Costs:
    """Measure the costs on this machine."""
    redis = redis_cost.measure()
    gate, relay_store = parts.miner()
    return Costs(
        redis["redis_cpu_us_write"] / 1e6,
        redis["redis_cpu_us_read"] / 1e6,
        budget_seconds(),
        redis["relay_bytes"] + redis["stream_bytes_beyond_the_relay"],
        gate + relay_store,
        volume_bytes_per_relay(),
        relayer_seconds,
    )


def row(suppliers: int, rate: float, sessions: int, costs: Costs, chain: Chain) -> list[str]:
    """Return the cells of one size.

    `sessions` are those of a supplier with relays, at a session end.
    """
    kept = rate * (chain.settled_after_seconds + chain.session_blocks * chain.block_seconds)
    size, gas = claim_transaction(sessions)
    blocks = suppliers * size / chain.block_bytes
    return [
        f"{suppliers:,}", f"{rate:,.0f}",
        f"{rate * costs.relayer:,.1f}",
        f"{rate * (costs.redis_write + costs.redis_read + costs.redis_budget):.2f}",
        f"{kept * costs.redis_bytes / 1e9:,.1f}",
        f"{rate * costs.miner:,.2f}",
        f"{kept * costs.volume_bytes / 1e9:,.1f}",
        f"{suppliers:,}", f"{suppliers * size / 1e6:,.1f}", f"{suppliers * gas / 1e6:,.0f}",
        f"{blocks / chain.window:.1%}",
    ]  # fmt: skip


def main() -> None:
    """Print the costs and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relayer-ms", type=float, default=0.45, help="CPU of a relay in a relayer (`make bench`)")
    parser.add_argument("--sessions", type=int, default=20, help="sessions of a supplier with relays, at a session end")
    parser.add_argument("--block-seconds", type=float, default=30.0)
    parser.add_argument("--session-blocks", type=int, default=60)
    parser.add_argument("--settled-after", type=float, default=2 * _HOUR, help="seconds from session end to settlement")
    parser.add_argument(
        "--window", type=int, default=4, help="blocks over which the claims of a session end are spread"
    )
    parser.add_argument("--block-bytes", type=int, default=4 * 1024 * 1024)
    chosen = parser.parse_args()
    chain = Chain(chosen.block_seconds, chosen.session_blocks, chosen.settled_after, chosen.window, chosen.block_bytes)
    costs = measured(chosen.relayer_ms / 1000)
    console = Console(width=200)
    console.print(
        f"per relay: relayer {costs.relayer * 1e6:.0f} µs, Redis {costs.redis_budget * 1e6:.1f} µs for the budget, "
        f"{costs.redis_write * 1e6:.1f} µs to write and {costs.redis_read * 1e6:.1f} µs to read, "
        f"{costs.redis_bytes:.0f} bytes in Redis, miner {costs.miner * 1e6:.0f} µs and "
        f"{costs.volume_bytes:.0f} bytes on its volume"
    )
    for sessions in (1, chosen.sessions):
        size, gas = claim_transaction(sessions)
        console.print(f"the claims of {sessions} sessions of a supplier: {size:,} bytes, {gas:,} gas")
    table = Table(
        "suppliers", "relays/s", "relayers, cores", "Redis, cores", "Redis, GB", "miners, cores", "volumes, GB",
        "claim transactions", "MB", "million gas", "of the blocks",
    )  # fmt: skip
    for suppliers, rate in ((1, 100.0), (10, 1000.0), (100, 1000.0), (1000, 10_000.0), (10_000, 100_000.0)):
        table.add_row(*row(suppliers, rate, chosen.sessions, costs, chain))
    console.print(table)


if __name__ == "__main__":
    main()
