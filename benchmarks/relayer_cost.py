"""CPU per relay of the relayer's processes at saturation, everything real, on this machine."""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import yaml

from pocket_api.manifests import Manifests, load_manifests
from relayctl.embedded import Stack
from relayctl.gateway import Gateway, json_rpc_envelope
from shannon.chain.client import ChainClient
from shannon.chain.nodes import NodeAddress
from shannon.crypto.ecdsa import PrivateKey

SAMPLES = Path(__file__).resolve().parent.parent / "manifests/samples/trial"
TICKS = os.sysconf("SC_CLK_TCK")


def _descendants(parent: int) -> list[int]:
    found = [parent]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found += _descendants(int(entry.name))
    return found


def cpu_seconds(parent: int) -> float:
    """User and system time of a process and its children so far."""
    total = 0.0
    for pid in _descendants(parent):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def _with_workers(manifests: Manifests, workers: int) -> Manifests:
    (relay_miner,) = manifests.relay_miners
    relayer = relay_miner.spec.relayer.model_copy(update={"workers": workers})
    spec = relay_miner.spec.model_copy(update={"relayer": relayer})
    return Manifests((relay_miner.model_copy(update={"spec": spec}),), manifests.suppliers, manifests.secrets)


async def _load(stack: Stack, count: int, connections: int) -> dict[str, float]:
    file = yaml.safe_load((SAMPLES / "gateway.yaml").read_text())
    node = NodeAddress.parse(f"grpc://127.0.0.1:{stack.ports['grpc']}", stack.url("rpc"))
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as http, ChainClient([node]) as chain:
        gateway = Gateway(chain, http, PrivateKey.from_hex(file["key"]))
        signer = await gateway.signer(file["applications"]["eth"], "eth")
        suppliers = sorted(signer.session.supplier_addresses)
        bodies = []
        for number in range(count):
            call = json.dumps({"jsonrpc": "2.0", "id": number, "method": "m", "params": [number]}).encode()
            request = signer.sign(
                suppliers[number % len(suppliers)], json_rpc_envelope(stack.url("relayer") + "/", call)
            )
            bodies.append(request.encode())
        failed = 0

        async def post(body: bytes) -> float:
            nonlocal failed
            begun = time.perf_counter()
            async with http.post(stack.url("relayer"), data=body, headers={"Rpc-Type": "3"}) as answer:
                await answer.read()
                failed += answer.status != 200
            return time.perf_counter() - begun

        for body in bodies[:200]:
            await post(body)
        bodies_half = bodies[200 : 200 + count // 3]
        pending = iter(bodies[200 + count // 3 :])
        latencies: list[float] = []

        async def sender() -> None:
            for body in pending:
                latencies.append(await post(body))

        process = stack.processes["relayer"].child
        if process is None:
            raise RuntimeError("the relayer is not running")
        before, begun = cpu_seconds(process.pid), time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(connections)))
        seconds, used = time.perf_counter() - begun, cpu_seconds(process.pid) - before
        latencies.sort()
        number = len(latencies)
        half = await _at_rate(post, bodies_half, number / seconds / 2)
        direct = sorted([await _direct(http, stack) for _ in range(300)])
        return {
            "added_p50_ms_at_half_load": (half[len(half) // 2] - direct[150]) * 1000,
            "added_p99_ms_at_half_load": (half[int(len(half) * 0.99)] - direct[150]) * 1000,
            "relays": number,
            "failed": failed,
            "relays_per_second": number / seconds,
            "relayer_cpu_ms_per_relay": used / number * 1000,
            "p50_ms": latencies[number // 2] * 1000,
            "p99_ms": latencies[int(number * 0.99)] * 1000,
        }


async def _direct(http: aiohttp.ClientSession, stack: Stack) -> float:
    """One call of the backend without relayer, seconds."""
    begun = time.perf_counter()
    async with http.post(stack.url("backend"), data=b'{"jsonrpc":"2.0","id":1,"method":"m"}') as answer:
        await answer.read()
    return time.perf_counter() - begun


async def _at_rate(post: Callable[[bytes], Awaitable[float]], bodies: list[bytes], rate: float) -> list[float]:
    """Sorted latencies, seconds, of relays that are sent at a steady rate."""
    begun = time.perf_counter()

    async def one(number: int, body: bytes) -> float:
        await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        return await post(body)

    return sorted(await asyncio.gather(*(one(n, body) for n, body in enumerate(bodies))))


def measure(workers: int, count: int = 4000, connections: int = 64) -> dict[str, float]:
    """Figures at saturation; load generator, backend, localnet and Redis share the machine's cores."""
    manifests = _with_workers(load_manifests([SAMPLES / "relayminer.yaml", SAMPLES / "suppliers.yaml"]), workers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        genesis = yaml.safe_load((SAMPLES / "genesis.yaml").read_text())
        genesis["shared_params"]["num_blocks_per_session"] = 300
        (folder / "genesis.yaml").write_text(yaml.safe_dump(genesis))
        stack = Stack(folder / "stack", manifests, folder / "genesis.yaml")
        try:
            stack.start()
            return asyncio.run(_load(stack, count, connections))
        finally:
            stack.stop()
