"""Measure the CPU per relay of the relayer's processes at saturation.

Everything is real and runs on this machine.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
import yaml

from benchmarks.load import SAMPLES, Sender, signing_for
from benchmarks.machine import cpu_seconds, resident_mib
from benchmarks.parts import wheel_only_ring
from pocket.api.manifests import Manifests, load_manifests
from relayctl.local_stack import LocalStack

CALM = 650.0
"""Half of the rate that the design asks of one worker."""


def _with_workers(manifests: Manifests, workers: int) -> Manifests:
    (relay_miner,) = manifests.relay_miners
    relayer = relay_miner.spec.relayer.model_copy(update={"workers": workers})
    spec = relay_miner.spec.model_copy(update={"relayer": relayer})
    return Manifests((relay_miner.model_copy(update={"spec": spec}),), manifests.suppliers, manifests.secrets)


@contextmanager
def stack_with(
    workers: int, session_blocks: int = 300, change: Callable[[dict[str, Any]], None] = lambda genesis: None
) -> Iterator[LocalStack]:
    """Run the samples' stack with blocks of one second and a changed genesis."""
    manifests = _with_workers(load_manifests([SAMPLES / "relayminer.yaml", SAMPLES / "suppliers.yaml"]), workers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        genesis = yaml.safe_load((SAMPLES / "genesis.yaml").read_text())
        genesis["shared_params"]["num_blocks_per_session"] = session_blocks
        change(genesis)
        (folder / "genesis.yaml").write_text(yaml.safe_dump(genesis))
        stack = LocalStack(folder / "stack", manifests, folder / "genesis.yaml")
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def relayer_pid(stack: LocalStack) -> int:
    """Return the process id of the relayer's supervisor."""
    process = stack.processes["relayer"].child
    if process is None:
        raise RuntimeError("the relayer is not running")
    return process.pid


async def _load(stack: LocalStack, count: int, connections: int) -> dict[str, float]:
    async with aiohttp.ClientSession() as http:
        bodies = await signing_for(stack).bodies(http, 200 + count)
        relayer, backend = Sender(stack.url("relayer")), Sender(stack.url("backend"))
        await relayer.at_once(bodies[:200], 1)
        pid = relayer_pid(stack)
        before = cpu_seconds(pid)
        full = await relayer.at_once(bodies[200 : 200 + count], connections)
        used = cpu_seconds(pid) - before
        added = [await _added(http, stack, relayer, backend) for _ in range(3)]
        return {
            "failed": relayer.failed,
            "relays_per_second": full.per_second,
            "relayer_cpu_ms_per_relay": used / count * 1000,
            "p50_ms": full.ms(0.5),
            "p99_ms": full.ms(0.99),
            "added_p50_ms": statistics.median(p50 for p50, _ in added),
            "added_p99_ms": statistics.median(p99 for _, p99 in added),
            "resident_mib": resident_mib(pid),
        }


async def _added(
    http: aiohttp.ClientSession, stack: LocalStack, relayer: Sender, backend: Sender
) -> tuple[float, float]:
    """Return (p50, p99) in ms that the relayer adds at the calm rate.

    What the backend alone takes at that rate is subtracted.
    """
    bodies = await signing_for(stack).bodies(http, int(CALM * 3))
    await asyncio.sleep(1)
    calm = await relayer.at_rate(bodies, CALM)
    direct = await backend.at_rate([b'{"jsonrpc":"2.0","id":1,"method":"m"}'] * len(bodies), CALM)
    return calm.ms(0.5) - direct.ms(0.5), calm.ms(0.99) - direct.ms(0.99)


def measure(workers: int, count: int = 4000, connections: int = 64) -> dict[str, float]:
    """Measure a relayer at saturation.

    Load generator, backend, localnet and Redis share the machine's cores.
    """
    with stack_with(workers) as stack:
        ring = wheel_only_ring()
        found = uvloop.run(_load(stack, count, connections))
        ring_ms = (ring + wheel_only_ring()) * 500
        return found | {"relayer_cpu_rings_per_relay": found["relayer_cpu_ms_per_relay"] / ring_ms}
