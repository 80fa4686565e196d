"""Measure what a recorded relay costs Redis: bytes, commands, CPU.

`python -m benchmarks.redis_cost` prints how they grow.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.growth import Growth, exponent, listed, print_growth
from benchmarks.parts import mined_relays
from pocket.redis_store.budgets import Budgets, Charge
from pocket.redis_store.connection import connect
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.redis_keys import REPLAY_BUCKETS, RedisKeys
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.stream_reader import StreamReader
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_operator.resources.trial_redis import REDIS_OPTIONS
from relayctl.local_ports import free_port
from relayctl.local_process import Process
from relayctl.local_redis import redis_server


async def _measure(url: str, folder: Path, count: int) -> dict[str, float]:
    redis = connect(url)
    rows, terms = mined_relays(count)
    publisher = RelayRecorder(redis, RedisKeys("bench"), WriteAheadLog(folder, "w"))
    header = terms.header.encode()
    while True:
        try:
            before = await redis.info()
            break
        except Exception:  # noqa: BLE001 - the server is starting
            await asyncio.sleep(0.05)
    task = asyncio.create_task(publisher.run())
    for start in range(0, count, 64):
        chunk = rows[start : start + 64]
        await asyncio.gather(
            *(publisher.record(WalRecord(terms.supplier, terms.header.session_id, header, row)) for row in chunk)
        )
    after = await redis.info()
    guard = await _guard_bytes(redis, terms.supplier, terms.header.session_id, count)
    charged = await redis.info()
    tail, position, read = StreamReader(redis, RedisKeys("bench"), terms.supplier), "0-0", 0
    while entries := (await tail.read({terms.header.session_id: position})).get(terms.header.session_id):
        position, read = entries[-1].id, read + len(entries)
    end = await redis.info()
    task.cancel()
    stored = await redis.memory_usage(RedisKeys("bench").stream(terms.supplier, terms.header.session_id), samples=0)
    await redis.aclose()

    def cpu(info: dict[str, float]) -> float:
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    relay_bytes = sum(map(len, rows)) / count
    beyond = stored / count - relay_bytes
    return {
        "relay_bytes": relay_bytes,
        "stream_bytes_beyond_the_relay": beyond,
        "guard_bytes": guard,
        "bytes_beyond_the_relay": beyond + guard,
        "commands_per_relay_write": (after["total_commands_processed"] - before["total_commands_processed"]) / count,
        "commands_per_relay_read": (end["total_commands_processed"] - charged["total_commands_processed"]) / count,
        "redis_cpu_us_write": (cpu(after) - cpu(before)) / count * 1e6,
        "redis_cpu_us_charge": (cpu(charged) - cpu(after)) / count * 1e6,
        "redis_cpu_us_read": (cpu(end) - cpu(charged)) / count * 1e6,
        "read": read,
    }


async def _guard_bytes(redis: "Redis", supplier: str, session_id: str, count: int) -> float:
    """Return the bytes per relay that guard against replays.

    It charges that many relays.
    """
    keys = RedisKeys("bench")
    budgets = Budgets(redis, keys)
    task = asyncio.create_task(budgets.run())
    for start in range(0, count, 64):
        ids = [hashlib.sha256(b"%d" % number).digest()[:16] for number in range(start, min(start + 64, count))]
        await asyncio.gather(*(budgets.charge(Charge(supplier, session_id, 1, None, 600, one)) for one in ids))
    task.cancel()
    buckets = [keys.replays(supplier, session_id, bucket) for bucket in range(REPLAY_BUCKETS)]
    return sum([await redis.memory_usage(name, samples=0) or 0 for name in buckets]) / count


def measure(count: int = 20_000) -> dict[str, float]:
    """Measurements per relay."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        command = [redis_server(), "--port", str(port), "--dir", name, *REDIS_OPTIONS]
        process = Process("redis", command, folder / "redis.txt")
        process.start()
        try:
            return asyncio.run(_measure(f"redis://127.0.0.1:{port}/0", folder / "log", count))
        finally:
            process.kill()


def growth(relays: Sequence[int] = (10_000, 100_000, 200_000)) -> Growth:
    """Return the measurements for growing numbers of relays in a session."""
    rows = [measure(number) for number in relays]
    names = ("bytes_beyond_the_relay", "guard_bytes", "redis_cpu_us_write", "redis_cpu_us_charge", "redis_cpu_us_read")
    found = {}
    for name in names:
        values = [row[name] for row in rows]
        found[f"{listed(relays)} relays of a session, {name.replace('_', ' ')}"] = values, exponent(relays, values)
    return found


if __name__ == "__main__":
    print_growth(growth())
