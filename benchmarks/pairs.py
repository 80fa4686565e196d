"""Compare the relayers of two checkouts in alternating rounds, on this machine.

Usage: `.venv/bin/python -m benchmarks.pairs ANOTHER_CHECKOUT`. Each checkout runs its own stack with one worker. Both
use this environment's packages, unless `--python` names the interpreter of another one for the other checkout. Before
and after each round the time of one wheel-only ring verification is measured, which is the unit of the ratios: it
changes with the load and the clock of the machine as the relays do.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import aiohttp
import uvloop

from benchmarks.load import Sender, signing_for
from benchmarks.machine import cpu_seconds
from benchmarks.parts import wheel_only_ring
from benchmarks.relayer_cost import relayer_pid, stack_with
from relayctl.local_stack import LocalStack

_OURS = Path(__file__).resolve().parent.parent
_ROOTS = ("", "core", "operator", "workloads/relayer", "workloads/miner", "workloads/localnet", "cli")
Round = dict[str, float]


class _Child:
    """A stack of one checkout, in a process that answers each line with a line."""

    def __init__(self, checkout: Path, python: str) -> None:
        path = os.pathsep.join(str(checkout / root) for root in _ROOTS)
        self._process = subprocess.Popen(
            [python, "-P", __file__, "--serve", str(checkout)],
            cwd=checkout, env={**os.environ, "PYTHONPATH": path}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def answer(self, line: str) -> str:
        """Send a line and return the answer.

        Raises SystemExit if the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        found = self._process.stdout.readline().strip()
        if not found:
            raise SystemExit(f"a process ended with {self._process.wait()}")
        return found

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


async def _serve_rounds(stack: LocalStack) -> None:
    """Sign relays for each line of input, and send them at the next one."""
    lines = asyncio.get_running_loop().run_in_executor
    async with aiohttp.ClientSession() as http:
        relayer, signing = Sender(stack.url("relayer")), signing_for(stack)
        await relayer.at_once(await signing.bodies(http, 300), 8)
        pid = relayer_pid(stack)
        while line := (await lines(None, sys.stdin.readline)).strip():
            bodies = await signing.bodies(http, int(line))
            print("signed", flush=True)
            await lines(None, sys.stdin.readline)
            before = cpu_seconds(pid)
            sent = await relayer.at_once(bodies, 64)
            used = (cpu_seconds(pid) - before) / len(bodies)
            found = {"cpu_ms": used * 1000, "per_second": sent.per_second, "p50_ms": sent.ms(0.5)}
            print(json.dumps(found | {"p99_ms": sent.ms(0.99), "failed": relayer.failed}), flush=True)


def _measured(side: _Child, relays: int) -> Round:
    side.answer(str(relays))
    before = wheel_only_ring()
    found: Round = json.loads(side.answer("send"))
    found["ring_ms"] = (before + wheel_only_ring()) * 500
    found["ratio"] = found["cpu_ms"] / found["ring_ms"]
    return found


def _shown(name: str, rounds: list[Round]) -> str:
    medians = {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}
    return (
        f"{name:>6}: {medians['cpu_ms']:.3f} ms CPU a relay, {medians['ratio']:.2f} ring verifications of "
        f"{medians['ring_ms']:.3f} ms, {medians['per_second']:.0f} relays/s, p50 {medians['p50_ms']:.1f} ms, "
        f"p99 {medians['p99_ms']:.1f} ms, {rounds[-1]['failed']:.0f} failed"
    )


def compare(other: Path, python: str, number: int, relays: int) -> None:
    """Print the medians of both checkouts, and of their quotients."""
    sides = [_Child(other, python), _Child(_OURS, sys.executable)]
    rounds: list[list[Round]] = [[], []]
    for turn in range(number):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            rounds[side].append(_measured(sides[side], relays))
        theirs, ours = rounds[0][-1], rounds[1][-1]
        print(f"round {turn + 1}: {theirs['ratio']:.2f} and {ours['ratio']:.2f} ring verifications", flush=True)
    for child in sides:
        child.end()
    print(_shown("other", rounds[0]))
    print(_shown("this", rounds[1]))
    quotients = [ours["cpu_ms"] / theirs["cpu_ms"] for theirs, ours in zip(*rounds, strict=True)]
    print(f"this / other: {statistics.median(quotients):.3f} ({' '.join(f'{one:.2f}' for one in quotients)})")


def main() -> None:
    """Compare, or run as one of the processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=__doc__)
    parser.add_argument("checkout", type=Path, help="another checkout of this repository")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the other checkout")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--relays", type=int, default=1500, help="for each round and checkout")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with stack_with(1) as stack:
            uvloop.run(_serve_rounds(stack))
    else:
        compare(options.checkout.resolve(), options.python, options.rounds, options.relays)


if __name__ == "__main__":
    main()
