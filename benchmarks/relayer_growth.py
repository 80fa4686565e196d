"""Measure the CPU per relay over growing numbers of sessions.

Usage: `python -m benchmarks.relayer_growth`. Every session is that of another application, which delegates to the same
gateway. Each is used once before the measurement, so that its chain data is known.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import uvloop

from benchmarks.growth import Growth, exponent, listed, print_growth
from benchmarks.load import Sender, signing_for
from benchmarks.machine import cpu_seconds, resident_mib
from benchmarks.parts import key, wheel_only_ring
from benchmarks.relayer_cost import relayer_pid, stack_with
from pocket.protocol.crypto.addresses import address_of
from relayctl.local_stack import LocalStack

_CONNECTIONS = 64
_SESSION_BLOCKS = 3600
"""Long enough for no session to end meanwhile."""


def with_applications(number: int) -> Callable[[dict[str, Any]], None]:
    """Return a change of a genesis that adds applications.

    They are for the service of the samples.
    """

    def change(genesis: dict[str, Any]) -> None:
        known = next(row for row in genesis["applications"] if row["service"] == "eth")
        for n in range(number):
            public_key = key(f"application {n}").public_key
            address = address_of(public_key)
            genesis["applications"].append({**known, "address": address})
            genesis["accounts"].append({"address": address, "balance": 10**10, "public_key": public_key.hex()})

    return change


async def _measure(stack: LocalStack, sessions: int, relays: int) -> tuple[float, float]:
    """Return the relayer's CPU in seconds per relay, and its memory in MiB."""
    async with aiohttp.ClientSession() as http:
        relayer, signing = Sender(stack.url("relayer")), signing_for(stack)
        applications = [address_of(key(f"application {n}").public_key) for n in range(sessions)]
        share = max(1, relays // sessions)
        first, rest = await signing.bodies_of(http, applications, share + 1)
        await relayer.at_once(first, 8)
        pid = relayer_pid(stack)
        before = cpu_seconds(pid)
        await relayer.at_once(rest, _CONNECTIONS)
        if relayer.failed:
            raise SystemExit(f"{relayer.failed} relays failed: {relayer.last_failure}")
        return (cpu_seconds(pid) - before) / len(rest), resident_mib(pid)


def measure(sessions: int, relays: int) -> tuple[float, float]:
    """Return the CPU per relay and the memory in MiB.

    The unit of CPU is a wheel-only ring verification of the same moment.
    """
    with stack_with(1, _SESSION_BLOCKS, with_applications(sessions)) as stack:
        ring = wheel_only_ring()
        seconds, resident = uvloop.run(_measure(stack, sessions, relays))
        return seconds * 2 / (ring + wheel_only_ring()), resident


def growth(sessions: Sequence[int] = (1, 100, 1000), relays: int = 3000) -> Growth:
    """Return the measurements for growing numbers of sessions."""
    rows = [measure(number, relays) for number in sessions]
    names = ("CPU per relay, ring verifications", "resident, MiB")
    found = {}
    for at, name in enumerate(names):
        values = [row[at] for row in rows]
        found[f"{listed(sessions)} sessions, {name}"] = values, exponent(sessions, values)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relayer_growth", description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="*", default=[1, 100, 1000])
    parser.add_argument("--relays", type=int, default=3000, help="in all sessions together")
    options = parser.parse_args()
    print_growth(growth(options.sessions, options.relays))


if __name__ == "__main__":
    main()
