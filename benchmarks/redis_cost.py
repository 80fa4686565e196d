"""What a recorded relay costs Redis: bytes, commands, CPU."""

import asyncio
import tempfile
from pathlib import Path

from benchmarks.parts import mined_relays
from pocket.redis_store.connection import connect
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.stream_reader import StreamReader
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_operator.resources.trial_redis import REDIS_OPTIONS
from relayctl.local_process import Process, free_port
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
    return {
        "relay_bytes": relay_bytes,
        "stream_bytes_beyond_the_relay": stored / count - relay_bytes,
        "commands_per_relay_write": (after["total_commands_processed"] - before["total_commands_processed"]) / count,
        "commands_per_relay_read": (end["total_commands_processed"] - after["total_commands_processed"]) / count,
        "redis_cpu_us_write": (cpu(after) - cpu(before)) / count * 1e6,
        "redis_cpu_us_read": (cpu(end) - cpu(after)) / count * 1e6,
        "read": read,
    }


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
