"""Run simulated lives, seed by seed, and shrink and print a failing one.

Usage: python -m simulated [--first N] [--seeds N] [--replay SEED] [--whole]
"""

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[2]


def main() -> int:
    """Exit code 1 where a life went wrong."""
    parser = argparse.ArgumentParser(prog="simulated", description=__doc__)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--replay", type=int, help="one seed, told even where all is well")
    parser.add_argument("--whole", action="store_true", help="do not make a failing life small")
    options = parser.parse_args()
    from simulated.life import live
    from simulated.logs import quiet
    from simulated.shrink import shrunk, story

    quiet()
    seeds = [options.replay] if options.replay is not None else range(options.first, options.first + options.seeds)
    begun, cpu, hits, faults, failed, relays = time.monotonic(), 0.0, Counter(), 0, [], 0
    for seed in seeds:
        result = live(seed)
        cpu, faults, relays = cpu + result.cpu_seconds, faults + len(result.faults), relays + result.relays
        hits.update(fault.kind.value for fault in result.faults)
        if result.problems or result.errors:
            failed.append(seed)
            print(story(result if options.whole else shrunk(result)))
            print(f"Replay: make simulate REPLAY={seed}\n", flush=True)
        elif options.replay is not None:
            print(story(result))
            print(f"All is well. Trace {result.trace}")
    print(
        f"{len(seeds)} lives from seed {seeds[0]}: {relays} relays, {faults} faults of {len(hits)} kinds, "
        f"{len(failed)} went wrong{f' ({failed})' if failed else ''}; "
        f"{cpu / len(seeds):.2f} s of CPU each, {time.monotonic() - begun:.0f} s in all"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path[:0] = [str(TESTS / "support"), str(TESTS / "vectors")]
    if os.environ.get("PYTHONHASHSEED") != "0":
        # What sets give must be the same in every run.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(TESTS / "simulation")}
        os.execve(sys.executable, [sys.executable, "-m", "simulated", *sys.argv[1:]], environment)
    sys.exit(main())
