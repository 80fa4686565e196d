"""Run all parts as local processes, and compare earnings with relays.

Relays and claims are real, and the earnings must be exact.
"""

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml
from rich.console import Console

from pocket.api.base import ManifestError
from pocket.api.manifests import load_manifests
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.errors import ConfigurationError, PocketError
from pocket.protocol.claims.rewards import TokenomicsParams
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.relays.messages import Relay, relay_hash
from relayctl.accounting import Accounting, Expectation
from relayctl.client_transports import RelayFailed
from relayctl.demo_view import DemoView
from relayctl.gateway import Gateway, SessionSigner, json_rpc_envelope, rest_envelope
from relayctl.local_redis import Topology
from relayctl.local_stack import LocalStack

_JSON_RPC, _REST = 3, 4
_FREEZES = 0.4
_REDIS = {
    Topology.SINGLE: "Redis",
    Topology.SENTINEL: "Redis (a primary, a replica, three Sentinels)",
    Topology.CLUSTER: "Redis (a Cluster of three primaries and three replicas)",
}
_NOTHING = TokenomicsParams(mint_ratio=0.0, supplier_share=0.0)
"""The split of a lane before its first session."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of the user.

    `chaos` is a seed, `rate` relays per second, `corrupt` a deliberate fault. With `lose_redis` every killed Redis
    comes back empty. With several `miners` chaos also freezes them for a while.
    """

    samples: Path
    folder: Path
    sessions: int = 2
    rate: float = 40.0
    keep: bool = False
    chaos: int | None = None
    corrupt: str = ""
    lose_redis: bool = False
    miners: int = 1
    redis: Topology = Topology.SINGLE


@dataclass(slots=True)
class TrafficLane:
    """The traffic to one service."""

    service: str
    application: str
    rpc_type: int
    signer: SessionSigner | None = None
    price_upokt: int = 0
    split: TokenomicsParams = _NOTHING
    number: int = 0


class DemoRunner:
    """Runs one demo."""

    def __init__(self, options: DemoOptions, console: Console) -> None:
        self._options = options
        self._console = console
        seed = options.chaos if options.chaos is not None else 1
        # One for the traffic, one for chaos: the speed of the traffic must not decide what is killed.
        self._rng, self._chaos_rng = random.Random(seed), random.Random(seed)  # noqa: S311 - a demo's choices
        self.accounting = Accounting()
        self._sessions_seen: set[int] = set()
        self._traffic_done = asyncio.Event()

    async def run(self, stack: LocalStack) -> list[str]:
        """Run the demo.

        Returns its problems, none when every acknowledged relay was paid.
        """
        gateway_file = yaml.safe_load((self._options.samples / "gateway.yaml").read_text(encoding="utf-8"))
        node = NodeAddress.parse(f"grpc://127.0.0.1:{stack.ports['grpc']}", stack.url("rpc"))
        async with aiohttp.ClientSession() as http, ChainClient([node]) as chain:
            comet = CometClient([node], http)
            gateway = Gateway(chain, http, PrivateKey.from_hex(gateway_file["key"]))
            lanes = [
                TrafficLane("eth", gateway_file["applications"]["eth"], _JSON_RPC),
                TrafficLane("weather", gateway_file["applications"]["weather"], _REST),
            ]
            view = DemoView(self._console, self.accounting, stack)
            async with asyncio.TaskGroup() as group:
                traffic = group.create_task(self._traffic(stack, gateway, chain, lanes))
                tasks = [group.create_task(view.run(http))]
                if self._options.chaos is not None:
                    tasks.append(group.create_task(self._chaos(stack)))
                await self._follow(comet)
                traffic.cancel()
                for task in tasks:
                    task.cancel()
            view.finish()
        return self.accounting.problems(exact=self._options.chaos is None)

    async def _follow(self, comet: CometClient) -> None:
        """Read every block's events until all is settled, or can no longer settle."""
        seen = 0
        while True:
            try:
                latest = (await comet.block()).height
                for height in range(seen + 1, latest + 1):
                    for event in await comet.end_events(height, lambda event: True):
                        self.accounting.record_event(event)
                    self.accounting.height = seen = height
            except PocketError as error:
                self.accounting.failures[str(error)[:60]] += 1
            last_end = max((row.end for row in self.accounting.pairs.values()), default=0)
            if self._traffic_done.is_set() and (self.accounting.complete() or self.accounting.height > last_end + 24):
                return
            await asyncio.sleep(0.2)

    async def _traffic(self, stack: LocalStack, gateway: Gateway, chain: ChainClient, lanes: list[TrafficLane]) -> None:
        """Send steady traffic for the wanted number of sessions.

        It goes to all services and suppliers.
        """
        inflight: set[asyncio.Task[None]] = set()
        pause = 1.0 / self._options.rate
        async with asyncio.TaskGroup() as group:
            while True:
                lane = lanes[self._rng.randrange(len(lanes))]
                with contextlib.suppress(PocketError):
                    await self._renew(lane, gateway, chain)
                if len(self._sessions_seen) > self._options.sessions:
                    break
                if lane.signer is not None and len(inflight) < 200:
                    supplier = self._rng.choice(sorted(lane.signer.session.supplier_addresses))
                    lane.number += 1
                    task = group.create_task(self._send(stack, gateway, lane, lane.signer, supplier, lane.number))
                    inflight.add(task)
                    task.add_done_callback(inflight.discard)
                await asyncio.sleep(pause)
        self._traffic_done.set()

    async def _renew(self, lane: TrafficLane, gateway: Gateway, chain: ChainClient) -> None:
        height = self.accounting.height
        if lane.signer is not None and height <= lane.signer.session.header.session_end_block_height:
            return
        signer = await gateway.signer(lane.application, lane.service)
        start = signer.session.header.session_start_block_height
        params = await chain.shared_params(start)
        units = await chain.compute_units_per_relay(lane.service, start)
        lane.split = await chain.tokenomics_params()
        lane.price_upokt = units * params.compute_units_to_tokens_multiplier // params.compute_unit_cost_granularity
        lane.signer = signer
        self._sessions_seen.add(start)

    async def _send(
        self, stack: LocalStack, gateway: Gateway, lane: TrafficLane, signer: SessionSigner, supplier: str, number: int
    ) -> None:
        header = signer.session.header
        row = self.accounting.pairs.setdefault(
            (header.session_id, supplier), Expectation(header, lane.price_upokt, lane.split)
        )
        if lane.rpc_type == _JSON_RPC:
            body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "eth_getBalance", "params": [number]})
            envelope = json_rpc_envelope(stack.url("relayer") + "/", body.encode())
        else:
            envelope = rest_envelope(f"{stack.url('relayer')}/weather/{number}?units=metric")
        request = signer.sign(supplier, envelope)
        if self._options.corrupt == "gateway-signature":
            damaged = bytearray(request.signature)
            damaged[40] ^= 1
            request = type(request)(request.header, bytes(damaged), request.supplier_operator_address, request.payload)
        row.attempted += 1
        try:
            answer = await gateway.send(stack.url("relayer"), request, lane.rpc_type, timeout_seconds=10)
        except RelayFailed as error:
            row.rejected += 1
            self.accounting.failures[str(error)[:80]] += 1
            return
        if answer.http.status != 200:
            self.accounting.invalid_answers.append(f"the backend returned status {answer.http.status}")
        row.acknowledged.add(relay_hash(Relay(request, answer.response.without_payload()).encode()))

    async def _chaos(self, stack: LocalStack) -> None:
        """Kill with SIGKILL and restart, at moments that the seed decides.

        A killed process is up before the next is killed: a miner that is never up for a whole claim window earns
        nothing.
        """
        while True:
            await asyncio.sleep(self._chaos_rng.uniform(1.5, 5.0))
            name = self._chaos_rng.choice(["relayer", *stack.miner_names, "redis"])
            if name == "redis":
                primaries = await asyncio.to_thread(stack.redis.primaries)
                name = primaries[self._chaos_rng.randrange(len(primaries)) if len(primaries) > 1 else 0]
            process = stack.processes[name]
            if name in stack.miner_names and len(stack.miner_names) > 1 and self._chaos_rng.random() < _FREEZES:
                # Longer than a lease: when it resumes, it still believes it owns shards that others took over.
                process.freeze(frozen=True)
                self.accounting.kills[f"{name} frozen"] += 1
                try:
                    await asyncio.sleep(self._chaos_rng.uniform(1.0, 7.0))
                finally:
                    process.freeze(frozen=False)
                continue
            await asyncio.to_thread(process.kill)
            self.accounting.kills[name] += 1
            if name in stack.redis.servers and self._options.lose_redis:
                await asyncio.to_thread(stack.redis.lose_data, name)
            await asyncio.sleep(self._chaos_rng.uniform(0.0, stack.redis.down_seconds(name)))
            process.start()
            await asyncio.to_thread(stack.await_part, name)
            await asyncio.to_thread(stack.redis.await_replicas)


@contextlib.asynccontextmanager
async def interruptible() -> AsyncIterator[asyncio.Event]:
    """Yield an event that Ctrl-C and SIGTERM set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    try:
        yield stop
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)


async def _run(options: DemoOptions, stack: LocalStack, console: Console) -> int:
    runner = DemoRunner(options, console)
    async with interruptible() as stop:
        run = asyncio.ensure_future(runner.run(stack))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({run, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not run.done():
            run.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await run
            console.print("interrupted")
            return 130
        stopping.cancel()
        problems = run.result()
        summary(runner.accounting, problems, console, options)
        if options.keep:
            await asyncio.to_thread(stack.revive)  # chaos may have ended between a kill and its restart
            console.print(f"still running below {stack.folder}:")
            for name in (
                "console",
                "relayer",
                "rpc",
                "backend",
                "relayer-admin",
                *(f"{m}-admin" for m in stack.miner_names),
            ):
                console.print(f"  {name:14} {stack.url(name)}")
            console.print(f"  {'gRPC':14} grpc://127.0.0.1:{stack.ports['grpc']}")
            console.print("docs/clients.md shows how to send relays from here. Stop it with Ctrl-C.")
            await stop.wait()
        return 1 if problems else 0


def summary(accounting: Accounting, problems: list[str], console: Console, options: DemoOptions) -> None:
    """Print the result of the run."""
    paid = accounting.with_acknowledged()
    acknowledged = sum(len(row.acknowledged) for row in paid)
    console.print(
        f"\n{len(accounting.settled)} settlements of {len(paid)} expected, {acknowledged} relays acknowledged, "
        f"{sum(row.settled_relays for row in accounting.settled)} paid: "
        f"{sum(row.earned_upokt for row in accounting.settled)} upokt earned, "
        f"{sum(row.expected_upokt for row in paid)} upokt expected."
    )
    if options.chaos is not None:
        kills = ", ".join(f"{name} {number}" for name, number in sorted(accounting.kills.items()))
        rejected = sum(row.rejected for row in accounting.pairs.values())
        console.print(f"chaos seed {options.chaos}: killed {kills}; {rejected} relays were rejected, none lost.")
    for problem in problems[:20]:
        console.print(f"FAILED: {problem}", style="red")
    if not problems:
        console.print("Every acknowledged relay was claimed, proven where required, and paid.", style="green")
    elif accounting.failures:
        for text, number in accounting.failures.most_common(5):
            console.print(f"  {number} × {text}")


def run_demo(options: DemoOptions, remove: Callable[[Path], None]) -> int:
    """Run the demo.

    Returns exit code 0 only if every acknowledged relay was paid to the upokt.
    """
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    try:
        manifests = load_manifests([options.samples / "relayminer.yaml", options.samples / "suppliers.yaml"])
    except ManifestError as error:
        console.print(str(error), style="red")
        return 78
    genesis = options.samples / "genesis.yaml"
    stack = LocalStack(options.folder, manifests, genesis, options.miners, options.redis, console=True)
    try:
        begun = time.monotonic()
        stack.start()
        miners = "miner" if options.miners == 1 else f"{options.miners} miners"
        console.print(
            f"{_REDIS[options.redis]}, localnet, backend, relayer (2 workers) and {miners} started in "
            f"{time.monotonic() - begun:.1f} s. A block every {stack.block_seconds:.1f} s."
        )
        console.print(f"console: {stack.url('console')}/")
        code = asyncio.run(_run(options, stack, console))
    except (ConfigurationError, KeyboardInterrupt) as error:
        console.print(str(error) or "interrupted", style="red")
        code = 78 if isinstance(error, ConfigurationError) else 130
    finally:
        stack.stop()
    if code == 1:
        console.print(f"logs are kept in {options.folder}")
    else:
        remove(options.folder)
    return code
