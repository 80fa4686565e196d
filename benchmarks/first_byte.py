"""Measure the delay that the relayer adds to the first event of a stream.

All times are in milliseconds.

Usage: `python -m benchmarks.first_byte`. A backend sends an event at once and the next one 5 ms later, each with the
time at which it was sent. The same stream is requested directly and through a relayer in turns, on open connections,
and so is an answer that is no stream.

From the request to the first event a stream takes what any relay takes: its signature is verified and its budget is
charged before the backend is asked. The rows of the ordinary answer show how much that is, with the answer's recording,
which a stream does at its end. The rows of the second event show what a stream takes in addition: an event is signed
and passed on.
"""

import asyncio
import re
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
_ORDINARY = b'"id": 1'
"""In the body of the second relay of a round, which is not answered by a stream."""
_EVENT = re.compile(rb"data: ([0-9.]+)\n")


def _event() -> bytes:
    return b"data: %.6f\n\n" % time.perf_counter()


async def _events(request: web.Request) -> web.StreamResponse:
    if _ORDINARY in await request.read():
        return web.json_response({})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(_event())
    await asyncio.sleep(0.005)
    await response.write(_event())
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


async def _delays(http: aiohttp.ClientSession, url: str, body: bytes) -> tuple[float, float]:
    """Return the delays of the first bytes and of the second event.

    The first is counted from the request, the second from its sending. Both are in milliseconds.
    """
    started, second = time.perf_counter(), 0.0
    async with http.post(url, data=body, headers=RPC_TYPE) as answer:
        await answer.content.readany()
        first = time.perf_counter() - started
        while part := await answer.content.readany():
            if found := _EVENT.search(part):
                second = time.perf_counter() - float(found[1])
        if answer.status != web.HTTPOk.status_code:
            raise SystemExit(f"a stream was answered with {answer.status}")
    return first * 1000, second * 1000


async def measure() -> dict[str, float]:
    """Return the medians of both ways in milliseconds.

    They are the times to the first event, of the second one, and to an answer. The differences are what the relayer
    added. Their fastest tenth shows the relayer's own time on a machine with other load.
    """
    rounds: list[list[tuple[float, float, float]]] = []
    async with _backend() as url, aiohttp.ClientSession() as http:
        with tempfile.TemporaryDirectory() as folder:
            stack = LocalStack(Path(folder) / "stack", _manifests(url), SAMPLES / "genesis.yaml")
            try:
                await asyncio.to_thread(stack.start)
                for _ in range(_ROUNDS):
                    stream, ordinary = await signing_for(stack).bodies(http, 2)
                    row = []
                    for where in (url, stack.url("relayer")):
                        answered, _ = await _delays(http, where, ordinary)
                        row.append((*await _delays(http, where, stream), answered))
                    rounds.append(row)
            finally:
                await asyncio.to_thread(stack.stop)
    found: dict[str, float] = {}
    for which, name in enumerate(("to the first event", "of the second event", "to an ordinary answer")):
        direct_ms, relayed_ms = ([row[way][which] for row in rounds] for way in (0, 1))
        added = [one - other for one, other in zip(relayed_ms, direct_ms, strict=True)]
        found |= {
            f"{name}, direct": statistics.median(direct_ms),
            f"{name}, relayed": statistics.median(relayed_ms),
            f"{name}, added": statistics.median(added),
            f"{name}, added, fastest tenth": statistics.quantiles(added, n=10)[0],
        }
    return found


def main() -> None:
    """Print the measurements."""
    for name, milliseconds in uvloop.run(measure()).items():
        print(f"{name}: {milliseconds:.2f} ms")


if __name__ == "__main__":
    main()
