"""Measure the delay that the relayer adds to the first event of a stream, in milliseconds.

Usage: `python -m benchmarks.first_byte`. A backend sends an event at once and the next one 5 ms later. The same stream
is requested directly and through a relayer in turns, on open connections.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

from benchmarks.load import RPC_TYPE, SAMPLES, signing_for
from pocket.api.manifests import Manifests, load_manifests
from pocket.api.services import ServiceSpec
from relayctl.local_stack import LocalStack

_ROUNDS = 200


async def _events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: first\n\n")
    await asyncio.sleep(0.005)
    await response.write(b"data: second\n\n")
    return response


@asynccontextmanager
async def _backend() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _events)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _with_backend(service: ServiceSpec, url: str) -> ServiceSpec:
    backend = service.backends.json_rpc
    if backend is None:
        raise RuntimeError(f"{service.id} has no JSON-RPC backend")
    backends = service.backends.model_copy(update={"json_rpc": backend.model_copy(update={"urls": (url,)})})
    return service.model_copy(update={"backends": backends})


def _manifests(url: str) -> Manifests:
    manifests = load_manifests([SAMPLES / "relayminer.yaml", SAMPLES / "suppliers.yaml"])
    (relay_miner,) = manifests.relay_miners
    services = tuple(
        _with_backend(service, url) if service.id == "eth" else service for service in relay_miner.spec.services
    )
    spec = relay_miner.spec.model_copy(update={"services": services})
    return Manifests((relay_miner.model_copy(update={"spec": spec}),), manifests.suppliers, manifests.secrets)


async def _first_event(http: aiohttp.ClientSession, url: str, body: bytes) -> float:
    started = time.perf_counter()
    async with http.post(url, data=body, headers=RPC_TYPE) as answer:
        await answer.content.readany()
        seconds = time.perf_counter() - started
        await answer.read()
        if answer.status != web.HTTPOk.status_code:
            raise SystemExit(f"a stream was answered with {answer.status}")
    return seconds * 1000


async def measure() -> dict[str, float]:
    """Return milliseconds to the first event: medians of both ways and of the difference.

    The fastest tenth of the differences shows the relayer's own time on a machine with other load.
    """
    async with _backend() as url, aiohttp.ClientSession() as http:
        with tempfile.TemporaryDirectory() as folder:
            stack = LocalStack(Path(folder) / "stack", _manifests(url), SAMPLES / "genesis.yaml")
            try:
                await asyncio.to_thread(stack.start)
                direct, relayed = [], []
                for _ in range(_ROUNDS):
                    (body,) = await signing_for(stack).bodies(http, 1)
                    direct.append(await _first_event(http, url, body))
                    relayed.append(await _first_event(http, stack.url("relayer"), body))
            finally:
                await asyncio.to_thread(stack.stop)
    added = [one - other for one, other in zip(relayed, direct, strict=True)]
    return {
        "direct": statistics.median(direct),
        "relayed": statistics.median(relayed),
        "added": statistics.median(added),
        "added, fastest tenth": statistics.quantiles(added, n=10)[0],
    }


def main() -> None:
    """Print the measurements."""
    for name, milliseconds in uvloop.run(measure()).items():
        print(f"{name}: {milliseconds:.2f} ms")


if __name__ == "__main__":
    main()
