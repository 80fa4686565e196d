"""What the relayer adds to the first event of a stream: `python -m benchmarks.first_byte`, milliseconds.

A backend sends an event at once and the next one a second later; the same stream is asked of it directly and through a
relayer in turns, on connections that are open.
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

_ROUNDS = 60


async def _events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: first\n\n")
    await asyncio.sleep(0.05)
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


def _asking(service: ServiceSpec, url: str) -> ServiceSpec:
    backend = service.backends.json_rpc
    if backend is None:
        raise RuntimeError(f"{service.id} has no JSON-RPC backend")
    backends = service.backends.model_copy(update={"json_rpc": backend.model_copy(update={"urls": (url,)})})
    return service.model_copy(update={"backends": backends})


def _manifests(url: str) -> Manifests:
    found = load_manifests([SAMPLES / "relayminer.yaml", SAMPLES / "suppliers.yaml"])
    (relay_miner,) = found.relay_miners
    services = tuple(_asking(service, url) if service.id == "eth" else service for service in relay_miner.spec.services)
    spec = relay_miner.spec.model_copy(update={"services": services})
    return Manifests((relay_miner.model_copy(update={"spec": spec}),), found.suppliers, found.secrets)


async def _first(http: aiohttp.ClientSession, url: str, body: bytes) -> float:
    begun = time.perf_counter()
    async with http.post(url, data=body, headers=RPC_TYPE) as answer:
        await answer.content.readany()
        seconds = time.perf_counter() - begun
        await answer.read()
        if answer.status != web.HTTPOk.status_code:
            raise SystemExit(f"a stream was answered with {answer.status}")
    return seconds * 1000


async def measure() -> dict[str, float]:
    """Milliseconds to the first event: medians of both ways, and what the relayer adds."""
    async with _backend() as url, aiohttp.ClientSession() as http:
        with tempfile.TemporaryDirectory() as folder:
            stack = LocalStack(Path(folder) / "stack", _manifests(url), SAMPLES / "genesis.yaml")
            try:
                await asyncio.to_thread(stack.start)
                direct, relayed = [], []
                for _ in range(_ROUNDS):
                    (body,) = await signing_for(stack).bodies(http, 1)
                    direct.append(await _first(http, url, body))
                    relayed.append(await _first(http, stack.url("relayer"), body))
            finally:
                await asyncio.to_thread(stack.stop)
    added = statistics.median(one - other for one, other in zip(relayed, direct, strict=True))
    return {"direct": statistics.median(direct), "relayed": statistics.median(relayed), "added": added}


def main() -> None:
    """Prints the figures."""
    for name, figure in uvloop.run(measure()).items():
        print(f"{name}: {figure:.2f} ms")


if __name__ == "__main__":
    main()
