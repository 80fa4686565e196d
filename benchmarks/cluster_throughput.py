"""Measure relays per second over 1, 2 and 3 primaries of a Redis Cluster.

Redis is made the bottleneck. Each primary gets a small share of a core (Linux control groups, as root), so that the
client has time left on the same machine: the ratio of the rows counts, not their size.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.parts import mined_relays
from pocket.redis_store.connection import connect
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.write_ahead_log import WriteAheadLog
from relayctl.local_redis import LocalRedis, Topology

_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 50_000
_SUPPLIERS, _RECORDERS, _AT_ONCE = 96, 4, 1024


class CpuShare:
    """A control group with a share of one core."""

    def __init__(self, name: str, share: float) -> None:
        self._first = (_V1 / "cpu.cfs_quota_us").exists() or _V1.is_dir()
        self._folder = (_V1 if self._first else _V2) / f"pocket-bench-{os.getpid()}-{name}"
        self._quota = int(share * _PERIOD_MICROSECONDS)

    def __enter__(self) -> "CpuShare":
        self._folder.mkdir()
        if self._first:
            (self._folder / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
            (self._folder / "cpu.cfs_quota_us").write_text(str(self._quota))
        else:
            (self._folder / "cpu.max").write_text(f"{self._quota} {_PERIOD_MICROSECONDS}")
        return self

    def add(self, pid: int) -> None:
        """Move a process into the group."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def throttled(self) -> tuple[int, int]:
        """Return the periods so far, and those in which the share was used up."""
        rows = dict(line.split() for line in (self._folder / "cpu.stat").read_text().splitlines())
        return int(rows["nr_periods"]), int(rows["nr_throttled"])

    def __exit__(self, *_: object) -> None:
        self._folder.rmdir()


@contextlib.contextmanager
def _limited(folder: Path, primaries: int, share: float) -> Iterator[tuple[LocalRedis, list[CpuShare]]]:
    servers = LocalRedis(folder, Topology.CLUSTER, primaries=primaries, replicas=False)
    with contextlib.ExitStack() as stack:
        shares = [stack.enter_context(CpuShare(str(number), share)) for number in range(primaries)]
        stack.callback(servers.stop)
        servers.start()
        for limit, name in zip(shares, servers.servers, strict=True):
            child = servers.processes[name].child
            if child is not None:
                limit.add(child.pid)
        yield servers, shares


async def _load(url: str, folder: Path, seconds: float) -> tuple[float, float]:
    """Record relays for a while.

    Returns relays per second and the share of a core that the client used.
    """
    redis = connect(url, timeout_seconds=30.0)
    rows, terms = mined_relays(256)
    header = terms.header.encode()
    limits = RecorderLimits(append_timeout_seconds=60.0)
    recorded = 0

    async def record(recorder: RelayRecorder, lane: int) -> None:
        nonlocal recorded
        supplier = f"{terms.supplier[:-4]}{lane % _SUPPLIERS:04d}"
        while True:
            await recorder.record(WalRecord(supplier, terms.header.session_id, header, rows[recorded % len(rows)]))
            recorded += 1

    tasks = []
    for number in range(_RECORDERS):
        recorder = RelayRecorder(redis, RedisKeys("bench"), WriteAheadLog(folder, f"w{number}"), limits)
        tasks.append(asyncio.create_task(recorder.run()))
        tasks += [asyncio.create_task(record(recorder, lane)) for lane in range(_AT_ONCE)]
    await asyncio.sleep(seconds / 4)
    begun, before, used = time.monotonic(), recorded, time.process_time()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - begun
    result = (recorded - before) / elapsed, (time.process_time() - used) / elapsed
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await redis.aclose()
    return result


def measure(primaries: int, share: float, seconds: float) -> dict[str, float]:
    """Measure one size of the cluster.

    Returns relays per second, the share of periods in which primaries were held back, and the client's CPU.
    """
    with tempfile.TemporaryDirectory(prefix="cluster-bench-") as name:
        with _limited(Path(name) / "redis", primaries, share) as (servers, shares):
            before = [limit.throttled() for limit in shares]
            rate, client = asyncio.run(_load(servers.url, Path(name) / "log", seconds))
            after = [limit.throttled() for limit in shares]
        held = [(b[1] - a[1]) / max(1, b[0] - a[0]) for a, b in zip(before, after, strict=True)]
        return {"relays_per_second": rate, "held_back": min(held), "client_cpu": client}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.02, help="share of a core for each primary")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds, of which the medians are printed")
    chosen = parser.parse_args()
    found: dict[int, list[dict[str, float]]] = {1: [], 2: [], 3: []}
    for _ in range(chosen.rounds):
        for primaries, rows in found.items():
            rows.append(measure(primaries, chosen.share, chosen.seconds))
    table = Table("primaries", "relays/s", "ratio", "periods with Redis held back", "client, cores")
    first = 0.0
    for primaries, rows in found.items():
        middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        first = first or middle["relays_per_second"]
        table.add_row(
            str(primaries), f"{middle['relays_per_second']:.0f}", f"{middle['relays_per_second'] / first:.2f}",
            f"{middle['held_back']:.0%}", f"{middle['client_cpu']:.2f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
