"""Measure what idle processes of the samples' stack use: CPU, wake-ups and memory.

Usage: `python -m benchmarks.idle`. No relay is sent, and a block comes every second. CPU is what the kernel's scheduler
accounted. The proportional memory (PSS) counts pages once that several processes share.
"""

import argparse
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import descendants, proportional_mib_of, resident_mib_of
from benchmarks.relayer_cost import relayer_pid, stack_with
from relayctl.local_stack import LocalStack

_SETTLES_SECONDS = 40.0
"""A channel to a node is closed after half a minute without a query."""
_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class IdleUse:
    """What a process uses in a second, and its memory."""

    cpu_ms: float
    wakes: float
    resident_mib: float
    proportional_mib: float


def _counts(pid: int) -> tuple[float, int]:
    """Return the CPU ms and the wake-ups of all threads so far."""
    nanoseconds = wakes = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds += int((thread / "schedstat").read_text().split()[0])
        found = _SWITCHES.search((thread / "status").read_text())
        wakes += int(found[1]) if found is not None else 0
    return nanoseconds / 1e6, wakes


def _processes(stack: LocalStack) -> dict[str, int]:
    """Return the process ids by name."""
    supervisor = relayer_pid(stack)
    pids = {"supervisor": supervisor}
    workers = [pid for pid in descendants(supervisor) if pid != supervisor]
    pids |= {f"worker {number}": pid for number, pid in enumerate(workers)}
    miner = stack.processes["miner"].child
    redis = next(iter(stack.redis.processes.values())).child
    return pids | {name: child.pid for name, child in (("miner", miner), ("Redis", redis)) if child is not None}


def measure(seconds: float = 12.0) -> Mapping[str, IdleUse]:
    """Return what each process uses, by its name."""
    with stack_with(1) as stack:
        pids = _processes(stack)
        time.sleep(_SETTLES_SECONDS)
        begun, before = time.perf_counter(), {name: _counts(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        after, took = {name: _counts(pid) for name, pid in pids.items()}, time.perf_counter() - begun
        return {
            name: IdleUse(
                (after[name][0] - before[name][0]) / took, (after[name][1] - before[name][1]) / took,
                resident_mib_of(pid), proportional_mib_of(pid),
            )
            for name, pid in pids.items()
        }  # fmt: skip


def main() -> None:
    """Measure once and print a line for each process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0)
    for name, use in measure(parser.parse_args().seconds).items():
        print(
            f"{name:>10}: {use.cpu_ms:.2f} ms of CPU and {use.wakes:.0f} wake-ups a second, "
            f"RSS {use.resident_mib:.0f} MiB, PSS {use.proportional_mib:.0f} MiB"
        )


if __name__ == "__main__":
    main()
