"""A relayer in the test's own process: real sockets, real Redis, a localnet and a scripted backend."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import aiohttp
from aiohttp import web

from pocket.api.relayminer import ConnectionLimits, Recording, ResponseCompression
from pocket.api.services import ServiceSpec
from pocket.api.simulation import Simulation
from pocket.chain.failover import NodeAddress
from pocket.chain_cache.cached_client import CachedChain
from pocket.redis_store.budgets import BudgetLimits, Budgets, RateLimiter
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.stream_reader import StreamReader
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_localnet.hydration import hydrate
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from pocket_relayer.backends.service_registry import ServiceRegistry
from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.pipeline.admission import Admission
from pocket_relayer.pipeline.metering import Meter
from pocket_relayer.pipeline.pipeline import RelayPipeline
from pocket_relayer.pipeline.recording import RelayRecording
from pocket_relayer.pipeline.simulated_relays import SimulatedRelayAdmission
from pocket_relayer.pipeline.tracing import NO_TRACING
from pocket_relayer.process.worker import service_state
from pocket_relayer.transports.client_connections import Connections
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http1 import Http1
from pocket_relayer.transports.http2 import Http2Server
from pocket_relayer.transports.listener import Sniffer
from pocket_relayer.transports.request_router import Probes, RequestRouter
from pocket_relayer.transports.websocket import WebSockets
from world import World, address, key

KEYS = RedisKeys("relayer-test")
NOW = 1_800_000_000.0
NO_COMPRESSION = ResponseCompression()
LONG = ClientTimeouts(idle_seconds=60.0)
MANY = ConnectionLimits()


@dataclass
class Backend:
    """A scripted backend that remembers what it was asked."""

    answer: tuple[int, dict, bytes] = (200, {"Content-Type": "application/json"}, b'{"ok":true}')
    requests: list = field(default_factory=list)
    gate: asyncio.Event | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        status, headers, body = self.answer
        # The server's own Date would make equal answers of two seconds different relays.
        return web.Response(status=status, headers={"Date": "Thu, 01 Jan 2026 00:00:00 GMT", **headers}, body=body)


@contextlib.asynccontextmanager
async def listening(handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with running(app) as url:
        yield url


@contextlib.asynccontextmanager
async def running(app) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass
class Relaying:
    world: World
    chain: LocalChain
    backend: Backend
    http: aiohttp.ClientSession
    url: str
    redis: object
    recorder: RelayRecorder
    height: list
    keys: dict
    problem: list
    node: tuple
    registry: ServiceRegistry
    budgets: Budgets
    sockets: WebSockets
    connections: Connections
    memory: MemoryBudget
    simulation: list
    cache: CachedChain
    pipeline: RelayPipeline
    http2: Http2Server
    nodes: contextlib.AsyncExitStack
    """Closed, it takes the chain's node away."""

    def header(self, service="eth", height=0):
        return hydrate(self.chain.state, self.chain.block_hash, self.world.application(service), service, height).header

    def request(self, **changes):
        header = changes.pop("header", None) or self.header()
        supplier = changes.pop("supplier", address("alice"))
        body = changes.pop("body", b'{"jsonrpc":"2.0","id":1,"method":"m"}')
        url = changes.pop("url", "http://gateway/")
        return replace(self.world.request(header, supplier, body, url), **changes)

    async def send(self, data, headers=None):
        body = data if isinstance(data, bytes) else data.encode()
        async with self.http.post(self.url, data=body, headers=headers or {}) as answer:
            return answer.status, dict(answer.headers), await answer.read()

    async def leaves(self, header=None, supplier=None):
        header = header or self.header()
        read = await StreamReader(self.redis, KEYS, supplier or address("alice")).read({header.session_id: "0-0"}, 1000)
        return [entry.relay for entry in read.get(header.session_id, [])]


@contextlib.asynccontextmanager
async def relaying(
    redis, folder, *, recording=Recording.STRICT, service=None, backends=None, metering=True,
    open_when_unavailable=True, enforce_handshake=False, budget_patience=30.0, record_patience=30.0,
    timeout_seconds=30.0, memory_bytes=64_000_000, simulation=None, wall_clock=lambda: NOW, tracing=NO_TRACING,
    compression=NO_COMPRESSION, timeouts=LONG, limits=MANY, is_below=None, **genesis,
) -> AsyncIterator[Relaying]:  # fmt: skip
    world, backend = World(), Backend()
    chain = LocalChain(world.genesis(**genesis))
    async with contextlib.AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(contextlib.AsyncExitStack())
        localnet = await nodes.enter_async_context(serve(chain))
        backend.url = await stack.enter_async_context(listening(backend.handle))
        fields = {"id": "eth", "maxBodyBytes": 100_000}
        fields["backends"] = {
            "jsonRpc": {"urls": [backend.url + "/base"], "timeoutSeconds": timeout_seconds, "headers": {"X-Set": "1"}}
        }
        fields["backends"]["rest"] = {"urls": [backend.url]}
        fields["backends"] |= backends or {}
        fields |= service or {}
        model = ServiceSpec.model_validate(fields)
        node = NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)
        client = CachedChain([node], redis, KEYS, timeout_seconds=10)
        stack.push_async_callback(client.close)
        log = WriteAheadLog(folder / "log", "w")
        stack.callback(log.close)
        recorder = RelayRecorder(
            redis, KEYS, log, RecorderLimits(linger_seconds=0, append_timeout_seconds=record_patience)
        )
        registry = ServiceRegistry([model], time.monotonic)
        stack.push_async_callback(registry.close)
        simulation = [simulation or Simulation()]
        height, keys, problem = [1], {address("alice"): key("alice")}, [None]
        budgets = Budgets(redis, KEYS, BudgetLimits(timeout_seconds=budget_patience))
        meter = Meter(
            client, budgets, RateLimiter(redis, KEYS, lambda: 1_000.0), lambda: height[0],
            enabled=metering, open_when_unavailable=open_when_unavailable,
        )  # fmt: skip
        pipeline = RelayPipeline(
            registry=registry,
            admission=Admission(client, lambda: height[0], time.monotonic, generation=lambda: client.generation),
            meter=meter,
            recording=RelayRecording(recorder, meter.refund, recording, is_below=is_below),
            simulations=SimulatedRelayAdmission(
                redis, KEYS, lambda: simulation[0], wall_clock=wall_clock, clock=time.monotonic
            ),
            keys=lambda: keys,
            height=lambda: height[0],
            clock=time.monotonic,
            tracing=tracing,
        )
        probes = Probes(
            health=lambda: {"status": "ok"},
            ready_problem=lambda: problem[0],
            service_ready=lambda name: service_state(registry, name, height[0]),
            draining=lambda: False,
        )
        endpoints = RequestRouter(pipeline, probes, lambda: compression)
        sockets = WebSockets(
            pipeline, lambda: False, enforce_handshake=enforce_handshake, poll_seconds=0.05, timeouts=timeouts
        )
        memory = MemoryBudget(time.monotonic, memory_bytes)
        connections = Connections(limits, memory)
        stack.callback(connections.abort_lingering)
        http1 = Http1(endpoints, sockets, lambda: registry.max_body_bytes, timeouts)
        runner = await http1.set_up(1)
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(http1.drain, 1.0)
        http2 = Http2Server(endpoints, lambda: registry.max_body_bytes, timeouts)
        stack.push_async_callback(http2.drain, 1.0)
        server = await asyncio.get_running_loop().create_server(
            lambda: Sniffer(http1, http2, connections, http2.turns, timeouts), "127.0.0.1", 0
        )
        stack.callback(server.close)
        url = "http://{}:{}".format(*server.sockets[0].getsockname())
        http = await stack.enter_async_context(aiohttp.ClientSession())
        tasks = [
            asyncio.create_task(work.run()) for work in (recorder, budgets, registry, pipeline.admission.background)
        ]
        try:
            yield Relaying(
                world,
                chain,
                backend,
                http,
                url,
                redis,
                recorder,
                height,
                keys,
                problem,
                (localnet.grpc_url, localnet.rpc_url),
                registry,
                budgets,
                sockets,
                connections,
                memory,
                simulation,
                client,
                pipeline,
                http2,
                nodes,
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
