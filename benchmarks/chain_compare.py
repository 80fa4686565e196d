"""Compare this relay miner and another one on a node of the chain itself.

Their rounds alternate. REALCHAIN names a program that starts a node (docs/realchain.md), PEER one that starts the other
relay miner (docs/performance.md). Both serve the same suppliers, services and backend, each with a Redis of its own,
and get the same signed relays one after the other. CPU is that of whole processes, less what they use in the same time
idle.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import uvloop
from rich.console import Console
from rich.table import Table

import realchain
from benchmarks.load import Sender, Signing
from benchmarks.machine import cpu_seconds, proportional_mib, resident_mib
from benchmarks.parts import wheel_only_ring
from pocket.protocol.crypto.addresses import address_of
from pocket_operator.resources.trial_redis import REDIS_OPTIONS
from realchain import NODE_PORTS, RealNode
from realstack import RealStack, prepared
from relayctl.local_ports import free_port, free_ports
from relayctl.local_process import Process, await_port
from relayctl.local_redis import redis_server

SERVICE, APPLICATION = "develop-http", "app1"
PROCESSES = ("relayer", "miner", "redis")
_BLOCK_SECONDS, _SESSION_BLOCKS, _SUPPLIERS = 1.0, 10_000, 3
_IDLE_SECONDS, _DRAIN_SECONDS = 30.0, 4.0
"""The second one lets a miner take the last relays of a round."""
_CALL = b'{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}'

Row = dict[str, float]


@dataclass(slots=True)
class Side:
    """One relay miner: its URL, the processes by part, and what each round measured."""

    name: str
    sender: Sender
    pids: Mapping[str, int]
    rounds: list[Row] = field(default_factory=list)

    def cpu(self) -> Row:
        """Return the CPU seconds of each part so far."""
        return {part: cpu_seconds(self.pids[part]) for part in PROCESSES}


@contextlib.contextmanager
def _chain(folder: Path, relayer_url: str) -> Iterator[RealNode]:
    """Run a node whose only session lasts as long as the comparison."""
    node = RealNode(folder, free_ports(NODE_PORTS))
    node.up(
        "--block-seconds", _BLOCK_SECONDS, "--blocks-per-session", _SESSION_BLOCKS, "--suppliers", _SUPPLIERS,
        "--relayer-url", relayer_url, "--units", 1,
    )  # fmt: skip
    try:
        yield node
    finally:
        node.kill()


@contextlib.contextmanager
def _peer(program: str, folder: Path, node: RealNode, backend: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Run the other relay miner, and yield its URL and process ids.

    It has a Redis of its own.
    """
    port = free_port()
    (folder / "redis").mkdir(parents=True)
    command = [
        redis_server(),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder / "redis"),
        *REDIS_OPTIONS,
    ]
    redis = Process("redis", command, folder / "redis.log")
    redis.start()
    try:
        await_port(port, redis)
        address = node.address
        arguments = [
            "--rpc", address.rpc, "--grpc", address.grpc.partition("://")[2], "--redis", f"redis://127.0.0.1:{port}",
            "--backend", backend, "--port", str(free_ports(NODE_PORTS)), "--suppliers", str(_SUPPLIERS),
            "--block-seconds", str(_BLOCK_SECONDS),
        ]  # fmt: skip
        started = subprocess.run([program, "start", folder, *arguments], stdout=subprocess.PIPE, text=True, check=True)
        answer = json.loads(started.stdout)
        assert redis.child is not None
        yield answer["url"], {"relayer": answer["relayer"], "miner": answer["miner"], "redis": redis.child.pid}
    finally:
        subprocess.run([program, "stop", folder], check=False)
        redis.stop()


async def _idle(sides: list[Side]) -> dict[str, Row]:
    """Return the CPU seconds per second of each part without relays."""
    before = {side.name: side.cpu() for side in sides}
    await asyncio.sleep(_IDLE_SECONDS)
    return {
        side.name: {part: (now - before[side.name][part]) / _IDLE_SECONDS for part, now in side.cpu().items()}
        for side in sides
    }


def _net(before: Row, after: Row, idle: Row, seconds: float, relays: int) -> Row:
    """Return the CPU ms per relay of each part, less what it uses idle."""
    net = {part: max(0.0, after[part] - before[part] - idle[part] * seconds) / relays * 1000 for part in PROCESSES}
    return net | {"whole": sum(net.values())}


async def _round(side: Side, full: list[bytes], calm: Mapping[float, list[bytes]], idle: Row) -> None:
    found: Row = {f"idle {part}": idle[part] * 100 for part in PROCESSES}
    before, begun = side.cpu(), time.monotonic()
    sent = await side.sender.at_once(full, 64)
    await asyncio.sleep(_DRAIN_SECONDS)
    found |= _net(before, side.cpu(), idle, time.monotonic() - begun, len(full))
    found |= {"relays/s": sent.per_second, "p50": sent.ms(0.5), "p99": sent.ms(0.99)}
    for rate, bodies in calm.items():
        before, begun = side.cpu(), time.monotonic()
        paced = await side.sender.at_rate(bodies, rate)
        await asyncio.sleep(_DRAIN_SECONDS)
        used = _net(before, side.cpu(), idle, time.monotonic() - begun, len(bodies))
        found |= {f"{part} at {rate:g}/s": milliseconds for part, milliseconds in used.items()}
        found |= {f"p50 at {rate:g}/s": paced.ms(0.5), f"p99 at {rate:g}/s": paced.ms(0.99)}
    for part in ("relayer", "miner"):
        found |= {f"MiB {part}": resident_mib(side.pids[part])}
        found |= {f"MiB {part}, shared pages once": proportional_mib(side.pids[part])}
    side.rounds.append(found)


async def _compare(options: argparse.Namespace, sides: list[Side], signing: Signing, backend: Sender) -> list[Row]:
    """Run the rounds.

    Returns the latency of the backend alone and the ring verification of each.
    """
    units: list[Row] = []
    async with aiohttp.ClientSession() as http:
        for side in sides:
            await side.sender.at_once(await signing.bodies(http, 200), 8)
            side.sender.failed = 0
        for number in range(options.rounds):
            full = await signing.bodies(http, options.relays)
            calm = {rate: await signing.bodies(http, int(rate * options.seconds)) for rate in options.rates}
            unit = {"ring": wheel_only_ring() * 1000}
            idle = await _idle(sides)
            for side in sides if number % 2 == 0 else reversed(sides):
                await _round(side, full, calm, idle[side.name])
            for rate, bodies in calm.items():
                direct = await backend.at_rate([_CALL] * len(bodies), rate)
                unit |= {f"p50 at {rate:g}/s": direct.ms(0.5), f"p99 at {rate:g}/s": direct.ms(0.99)}
            units.append(unit | {"ring": (unit["ring"] + wheel_only_ring() * 1000) / 2})
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    return units


def _medians(rounds: list[Row]) -> Row:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def table(ours: list[Row], theirs: list[Row], units: list[Row]) -> Table:
    """Return the medians of both sides and the medians of their quotients."""
    made = Table(title=f"{len(ours)} alternating rounds, wheel-only ring verification {_medians(units)['ring']:.3f} ms")
    for column in ("", "ours", "other", "ours / other"):
        made.add_column(column, justify="left" if not column else "right")
    mine, other, base = _medians(ours), _medians(theirs), _medians(units)
    for name in mine:
        added = base.get(name, 0.0)
        quotients = [(one[name] - added) / (two[name] - added) for one, two in zip(ours, theirs, strict=True)
                     if two[name] > added]  # fmt: skip
        ratio = f"{statistics.median(quotients):.2f}" if quotients else "-"
        made.add_row(_label(name), f"{mine[name] - added:.3f}", f"{other[name] - added:.3f}", ratio)
    return made


def _label(name: str) -> str:
    if name.startswith(("p50 at", "p99 at")):
        return f"added {name}, ms"
    if name.startswith("idle"):
        return f"{name}, % of a core"
    if name.startswith(("MiB", "relays/s")):
        return name
    return f"{name}, ms" if name in {"p50", "p99"} else f"{name}, CPU ms/relay"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-chain", description=__doc__)
    parser.add_argument("--peer", default=os.environ.get("PEER", ""), help="program that starts the other relay miner")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--relays", type=int, default=3000, help="for each round and side, at saturation")
    parser.add_argument("--rates", type=float, nargs="*", default=[150.0, 400.0], help="relays per second")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each round, side and rate")
    parser.add_argument("--output", type=Path, help="file for the measurements of all rounds, as JSON")
    options = parser.parse_args()
    if not realchain.REALCHAIN or not options.peer:
        sys.exit("REALCHAIN and PEER must name programs: see docs/realchain.md and docs/performance.md")
    return options


def _pids(stack: RealStack) -> dict[str, int]:
    children = {part: stack.processes[part].child for part in PROCESSES}
    return {part: child.pid for part, child in children.items() if child is not None}


def main() -> None:
    """Compare, and print the table."""
    options, keys = _options(), realchain.keys()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as entered:
        folder = Path(name)
        stack = entered.enter_context(prepared(folder / "ours", keys, _BLOCK_SECONDS))
        node = entered.enter_context(_chain(folder / "node", stack.relayer_url))
        stack.start(node.address)
        backend = f"http://127.0.0.1:{stack.ports['backend']}"
        url, pids = entered.enter_context(_peer(options.peer, folder / "other", node, backend))
        sides = [Side("ours", Sender(stack.relayer_url), _pids(stack)), Side("other", Sender(url), pids)]
        gateway, application = f"{keys['gateway1'].scalar:064x}", address_of(keys[APPLICATION].public_key)
        signing = Signing(node.address, gateway, application, SERVICE)
        units = uvloop.run(_compare(options, sides, signing, Sender(backend)))
        for side in sides:
            if side.sender.failed:
                print(f"{side.name}: {side.sender.failed} failed, last: {side.sender.last_failure}", file=sys.stderr)
    rounds = {side.name: side.rounds for side in sides}
    if options.output:
        options.output.write_text(json.dumps(rounds | {"units": units}, indent=1))
    Console().print(table(rounds["ours"], rounds["other"], units))


if __name__ == "__main__":
    main()
