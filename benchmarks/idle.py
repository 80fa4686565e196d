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
_OF_A_PROCESS = 2
"""Kind of a clock in its number: what the scheduler accounted to a process (clock_getcpuclockid)."""
_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class IdleUse:
    """What a process uses in a second, and its memory."""

    cpu_ms: float
    wakes: float
    resident_mib: float
    proportional_mib: float


def _cpu_ms(pid: int) -> float:
    """Return the CPU ms of a process so far, with those of threads that have ended."""
    return time.clock_gettime_ns((~pid << 3) | _OF_A_PROCESS) / 1e6


def _wakes(pid: int) -> dict[str, int]:
    """Return the wake-ups so far by thread."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        if (row := _SWITCHES.search((thread / "status").read_text())) is not None:
            found[thread.name] = int(row[1])
    return found


def _processes(stack: LocalStack) -> dict[str, int]:
    """Return the process ids by name."""
    supervisor = relayer_pid(stack)
    pids = {"supervisor": supervisor}
    workers = [pid for pid in descendants(supervisor) if pid != supervisor]
    pids |= {f"worker {number}": pid for number, pid in enumerate(workers)}
    miner = stack.processes["miner"].child
    redis = next(iter(stack.redis.processes.values())).child
    return pids | {name: child.pid for name, child in (("miner", miner), ("Redis", redis)) if child is not None}


def measure(seconds: float = 12.0, settle_seconds: float = _SETTLES_SECONDS) -> Mapping[str, IdleUse]:
    """Return what each process uses, by its name."""
    with stack_with(1) as stack:
        pids = _processes(stack)
        time.sleep(settle_seconds)
        cpu, wakes = {pid: _cpu_ms(pid) for pid in pids.values()}, {pid: _wakes(pid) for pid in pids.values()}
        begun = time.perf_counter()
        time.sleep(seconds)
        took = time.perf_counter() - begun
        return {
            name: IdleUse(
                (_cpu_ms(pid) - cpu[pid]) / took,
                sum(number - wakes[pid].get(thread, 0) for thread, number in _wakes(pid).items()) / took,
                resident_mib_of(pid), proportional_mib_of(pid),
            )
            for name, pid in pids.items()
        }  # fmt: skip


def main() -> None:
    """Measure once and print a line for each process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--settle", type=float, default=_SETTLES_SECONDS, help="seconds before")
    options = parser.parse_args()
    for name, use in measure(options.seconds, options.settle).items():
        print(
            f"{name:>10}: {use.cpu_ms:.2f} ms of CPU and {use.wakes:.0f} wake-ups a second, "
            f"RSS {use.resident_mib:.0f} MiB, PSS {use.proportional_mib:.0f} MiB"
        )


if __name__ == "__main__":
    main()
