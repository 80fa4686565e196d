"""Run a steady load for a long time: `make soak DURATION=3600`.

Memory and file descriptors must stay flat, otherwise the exit code is 1. Sessions are short, so that streams, replicas,
budgets and caches are created and removed all the time (invariant I10).
"""

import argparse
import asyncio
import sys
import time

import aiohttp
import uvloop
from redis.asyncio import Redis

from benchmarks.hostile import ATTACKS
from benchmarks.hostile_soak import hostile
from benchmarks.load import Sender, signing_for
from benchmarks.machine import descriptors, resident_mib
from benchmarks.relayer_cost import stack_with
from relayctl.local_stack import LocalStack

_PARTS = ("relayer", "miner", "redis")
_ONE_SESSION = 10_000  # blocks: no relay is signed in one session and sent in the next


async def _sample(stack: LocalStack, redis: "Redis") -> dict[str, float]:
    sample: dict[str, float] = {}
    for name in _PARTS:
        child = stack.processes[name].child
        if child is None:
            raise RuntimeError(f"{name} is not running")
        sample[f"{name} MiB"] = resident_mib(child.pid)
        sample[f"{name} fds"] = descriptors(child.pid)
    sample["redis keys"] = float(await redis.dbsize())
    return sample


async def _soak(stack: LocalStack, seconds: float, rate: float) -> int:
    redis = Redis(port=stack.redis.ports["redis"])
    samples: list[dict[str, float]] = []
    started = time.monotonic()
    async with aiohttp.ClientSession() as http:
        sender, signing, sent = Sender(stack.url("relayer")), signing_for(stack), 0
        while (passed := time.monotonic() - started) < seconds:
            # Small batches of the current session. A batch at a session's end is partly rejected.
            bodies = await signing.bodies(http, int(rate * 2))
            await sender.at_rate(bodies, rate)
            sent += len(bodies)
            samples.append(await _sample(stack, redis))
            row = ", ".join(f"{name} {value:.0f}" for name, value in samples[-1].items())
            print(f"{passed:6.0f} s, {sent} sent, {sender.failed} rejected: {row}", flush=True)
        await asyncio.sleep(1)
    await redis.aclose()
    return _assess(samples)


def _assess(samples: list[dict[str, float]]) -> int:
    """Compare the last quarter with the second one, after a quarter to warm up."""
    quarter = len(samples) // 4
    if quarter < 3:
        print("too short to assess: use a longer duration")
        return 1
    bad = 0
    for name in samples[0]:
        early = sorted(row[name] for row in samples[quarter : 2 * quarter])[quarter // 2]
        late = sorted(row[name] for row in samples[-quarter:])[quarter // 2]
        grown = late > early * 1.1 + (8 if "MiB" in name else 5)
        bad += grown
        print(f"{name}: {early:.0f} then, {late:.0f} now{'  GROWS' if grown else ''}")
    return 1 if bad else 0


def main() -> None:
    """Run the soak test that the arguments name."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--hostile", action="store_true", help="run attacks under load, --seconds each")
    parser.add_argument("--attack", action="append", choices=ATTACKS, metavar="NAME", help="run these attacks only")
    parser.add_argument("--write", action="store_true", help="write the table of attacks into docs/security.md")
    options = parser.parse_args()
    if options.attack and options.write:
        parser.error("--write needs all attacks")
    if options.hostile:
        with stack_with(2, _ONE_SESSION) as attacked, stack_with(2, _ONE_SESSION) as control:
            names = options.attack or list(ATTACKS)
            sys.exit(uvloop.run(hostile(attacked, control, names, options.seconds, options.rate, write=options.write)))
    with stack_with(2, session_blocks=10) as stack:
        sys.exit(uvloop.run(_soak(stack, options.seconds, options.rate)))


if __name__ == "__main__":
    main()
