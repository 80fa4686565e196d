"""Compare another relayer and ours: `make bench-compare TARGET=host:port`.

Both get the same relays, which were signed beforehand. Without --ours everything else is started here (chain, Redis,
backend, our relayer), and what the other relayer has to be configured with is printed; it is waited for. With --ours,
--grpc, --rpc, --app, --service and --key-file both relayers run elsewhere. Rounds alternate, so that a noisy machine is
noisy for both.
"""

import argparse
import asyncio
import contextlib
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.load import Measured, Sender, Signing, signing_for
from benchmarks.machine import cpu_seconds, resident_mib
from benchmarks.relayer_cost import relayer_pid, stack_with
from pocket.chain.failover import NodeAddress
from relayctl.local_stack import LocalStack


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-compare", description=__doc__)
    parser.add_argument("--target", required=True, help="host:port or URL of the other relayer")
    parser.add_argument("--target-pid", type=int, help="its process here, for CPU and memory")
    parser.add_argument("--ours", help="URL of our relayer, where it runs already")
    parser.add_argument("--ours-pid", type=int)
    parser.add_argument("--grpc", help="a chain node, grpc://host:port")
    parser.add_argument("--rpc", default="http://127.0.0.1:26657")
    parser.add_argument("--app")
    parser.add_argument("--service", default="eth")
    parser.add_argument("--key-file", type=Path, help="hex key of the application or of its gateway")
    parser.add_argument("--workers", type=int, default=1, help="of our relayer, where it is started here")
    parser.add_argument("--relays", type=int, default=3000, help="for each round and relayer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=float, default=300.0, help="relays per second of the latency rounds")
    parser.add_argument("--wait", type=float, default=600.0, help="seconds to wait for the other relayer")
    return parser.parse_args()


def _url(text: str) -> str:
    return text if text.startswith("http") else f"http://{text}"


def _await_port(url: str, seconds: float) -> None:
    parts, end = urlsplit(url), time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((parts.hostname, parts.port or 80), timeout=1):
            return
        time.sleep(0.5)
    sys.exit(f"nothing listens on {url}")


def _tell(stack: LocalStack) -> None:
    print(f"""Configure the other relayer with
  chain           {stack.relay_miner.spec.chain.id}: grpc 127.0.0.1:{stack.ports["grpc"]}, rpc {stack.url("rpc")}
  backend         {stack.url("backend")} for JSON-RPC of every service
  supplier keys   {stack.folder / "keys"} (one hex key a file)
  Redis           one of its own, not port {stack.redis.ports["redis"]}
Waiting for it ...""", flush=True)  # fmt: skip


class _Side:
    def __init__(self, name: str, sender: Sender, pid: int | None) -> None:
        self.name, self.sender, self.pid = name, sender, pid
        self.full: list[Measured] = []
        self.calm: list[Measured] = []
        self.cpu_ms: list[float] = []
        self.resident = 0.0

    async def round(self, bodies: list[bytes], connections: int) -> None:
        before = cpu_seconds(self.pid) if self.pid else 0.0
        self.full.append(await self.sender.at_once(bodies, connections))
        if self.pid:
            self.cpu_ms.append((cpu_seconds(self.pid) - before) / len(bodies) * 1000)
            self.resident = resident_mib(self.pid)

    def row(self) -> list[str]:
        def best(rounds: list[Measured], share: float) -> str:
            return f"{min(r.ms(share) for r in rounds):.2f}"

        failed = sum(r.failed for r in (*self.full, *self.calm))
        return [
            self.name, f"{max(r.per_second for r in self.full):.0f}",
            f"{min(self.cpu_ms):.3f}" if self.cpu_ms else "?", f"{self.resident:.0f}" if self.pid else "?",
            best(self.full, 0.5), best(self.full, 0.99), best(self.calm, 0.5), best(self.calm, 0.99),
            f"{failed}  {self.sender.last_failure}".strip(),
        ]  # fmt: skip


async def _run(options: argparse.Namespace, signing: Signing, ours: str, ours_pid: int | None) -> None:
    async with aiohttp.ClientSession() as http:
        sides = [
            _Side("ours", Sender(ours), ours_pid),
            _Side("target", Sender(_url(options.target)), options.target_pid),
        ]
        warm = await signing.bodies(http, 100)
        for side in sides:
            await side.sender.at_once(warm, 1)
            side.sender.failed = 0
        for number in range(options.rounds):
            bodies = await signing.bodies(http, options.relays)
            calm = await signing.bodies(http, int(options.rate * 3))
            for side in sides if number % 2 == 0 else reversed(sides):
                await side.round(bodies, options.connections)
                await asyncio.sleep(1)
                side.calm.append(await side.sender.at_rate(calm, options.rate))
    table = Table(title=f"{options.rounds} rounds of {options.relays} relays, best of each")
    for name in ("", "relays/s", "CPU ms/relay", "RSS MiB", "p50 ms full", "p99", f"p50 ms at {options.rate:g}/s",
                 "p99", "failed"):  # fmt: skip
        table.add_column(name, justify="right" if name else "left")
    for side in sides:
        table.add_row(*side.row())
    Console().print(table)


def main() -> None:
    """Compare two relayers under the same load and print the table."""
    options = _options()
    if options.ours:
        if not (options.grpc and options.app and options.key_file):
            sys.exit("with --ours name --grpc, --rpc, --app, --service and --key-file, too")
        node = NodeAddress.parse(options.grpc, options.rpc)
        signing = Signing(node, options.key_file.read_text().strip(), options.app, options.service)
        _await_port(_url(options.target), options.wait)
        uvloop.run(_run(options, signing, _url(options.ours), options.ours_pid))
        return
    with stack_with(options.workers) as stack:
        _tell(stack)
        _await_port(_url(options.target), options.wait)
        uvloop.run(_run(options, signing_for(stack), stack.url("relayer"), relayer_pid(stack)))


if __name__ == "__main__":
    main()
