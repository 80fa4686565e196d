"""One worker process: wiring, readiness, drain."""

import asyncio
import functools
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
import structlog
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from pocket.api.problems import Problem, ProblemCode
from pocket.api.relayminer import Recording
from pocket.api.workload import RelayerConfig
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain.fallback_blocks import FallbackBlocks
from pocket.chain.node_health import NodeHealthTable
from pocket.chain.node_monitor import NodeMonitor
from pocket.chain_cache.cached_client import CachedChain
from pocket.chain_cache.dependencies import await_dependencies
from pocket.chain_cache.invalidation import InvalidationSubscriber
from pocket.chain_cache.shared_heights import LatestBlockWatcher
from pocket.coordination.rendezvous import shard_of
from pocket.errors import PocketError
from pocket.keys.keyring import Keyring
from pocket.keys.remote_signer import remote_signer
from pocket.protocol.transactions.batches import largest_leaf
from pocket.redis_store.budgets import Budgets, RateLimiter
from pocket.redis_store.notifications import RelayNotifier
from pocket.redis_store.prefix_owner import PrefixOwner
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket.runtime.debug_server import Debug
from pocket.runtime.logs import set_level
from pocket.runtime.process_stats import LoopLagMonitor
from pocket.runtime.supervise import supervise
from pocket.runtime.ticks import sleep_to_tick
from pocket_relayer import relayer_metrics
from pocket_relayer.backends.credentials import Credentials
from pocket_relayer.backends.service_registry import ServiceRegistry
from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.metric_batches import write_due
from pocket_relayer.pipeline.admission import Admission
from pocket_relayer.pipeline.metering import Meter
from pocket_relayer.pipeline.pipeline import RelayPipeline
from pocket_relayer.pipeline.recording import RelayRecording
from pocket_relayer.pipeline.simulated_relays import SimulatedRelayAdmission
from pocket_relayer.pipeline.tracing import tracing_from
from pocket_relayer.process.liveness import REPORT_SECONDS
from pocket_relayer.process.open_files import raise_limit, within_open_files
from pocket_relayer.process.relayer_platform import RelayerPlatform
from pocket_relayer.process.reloading import ReloadedConfig
from pocket_relayer.process.reports import ReportWriter, WorkerReport
from pocket_relayer.process.resting_pace import RestingPace
from pocket_relayer.process.worker_metrics import show_metrics
from pocket_relayer.process.worker_problems import OF_ALL_PODS, ServingState, worker_problem
from pocket_relayer.transports.client_connections import Connections
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.first_requests import FirstRequests
from pocket_relayer.transports.http1 import Http1
from pocket_relayer.transports.http2 import Http2Server
from pocket_relayer.transports.listener import Sniffer
from pocket_relayer.transports.request_bodies import GzipRequestDecoder
from pocket_relayer.transports.request_router import Probes, RequestRouter
from pocket_relayer.transports.websocket import WebSockets

_LOG: FilteringBoundLogger = structlog.get_logger()
_RELOAD_SECONDS = 2.0
_ORPHAN_SECONDS = 1.0
_POLL_SECONDS = 1.0
_MIN_REDIS_DRAIN_SECONDS = 5.0


def redis_drain_timeout(drain_seconds: float, spent_seconds: float) -> float:
    """Return the seconds for which an ending worker waits for Redis.

    The write-ahead log of a pod is lost with the pod, so recording gets all the time that requests left. The
    supervisor waits ten seconds longer than `drain_seconds`.
    """
    return max(_MIN_REDIS_DRAIN_SECONDS, drain_seconds - spent_seconds)


def service_state(registry: ServiceRegistry, name: str, height: int) -> Mapping[str, object] | None:
    """Return the body of /ready/<service>, or None for an unknown service."""
    backends = registry.get(name)
    if backends is None:
        return None
    state = backends.state()
    return {"service_id": name, "ready": state["healthy"] > 0, "block_height": height, "backends": state}


async def _supervised(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop and restart it after an unexpected error.

    It must not end the requests in progress.
    """
    await supervise(name, loop, relayer_metrics.RESTARTS.labels(name).inc)


def _moment(clock: Callable[[], float], latest_block: LatestBlockWatcher, chain: CachedChain) -> tuple[int, int, int]:
    """Return what decides on a session's relays.

    It is second, block and generation of the chain's records.
    """
    return int(clock()), latest_block.height, chain.generation


class Worker:
    """Everything that one event loop runs."""

    def __init__(
        self, config: RelayerConfig, number: int, writer: ReportWriter, platform: RelayerPlatform | None = None,
        kept_config: Path | None = None,
    ) -> None:  # fmt: skip
        self._config = config
        self._kept_config = kept_config
        self._platform = platform or RelayerPlatform()
        self._number = number
        self._writer = writer
        self._draining = False
        self._stop = asyncio.Event()
        self._waits: dict[ProblemCode, str] = {}
        self.pipeline: RelayPipeline | None = None
        self._report: Callable[[], WorkerReport] = self._starting_report
        self._is_report_due: Callable[[], bool] = lambda: True

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. The worker reports from the start."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        await self._writer.open()
        reporting = asyncio.create_task(self._keep_reporting())
        try:
            async with self._platform.http() as http:
                await self._serve(http)
        finally:
            reporting.cancel()
            self._writer.close()

    async def _keep_reporting(self) -> None:
        """Report every second that this event loop runs, and what it has loaded."""
        while True:
            try:
                if self._is_report_due():
                    self._writer.write(self._report())
                else:
                    self._writer.beat()
            except Exception:  # noqa: BLE001 - a worker that cannot describe itself still serves
                _LOG.exception("building the report failed")
                self._writer.write(self._starting_report())
            await sleep_to_tick(REPORT_SECONDS)

    def _starting_report(self) -> WorkerReport:
        waits = [Problem(code=code, message=text) for code, text in self._waits.items() if text]
        problems = waits or [Problem(code=ProblemCode.STARTING, message="starting")]
        return WorkerReport(self._number, os.getpid(), "", 0, 0, tuple(problems), starting=True)

    async def _await_dependencies(self, redis: "Redis", owner: PrefixOwner, chain: CachedChain) -> bool:
        """Wait for Redis and a node of the right chain.

        Returns False if the stop came first.
        """

        def redis_waits(error: RedisUnavailable | None) -> None:
            self._waits[ProblemCode.REDIS_UNAVAILABLE] = f"waiting for Redis: {error}" if error else ""

        def chain_waits(reason: str) -> None:
            self._waits[ProblemCode.CHAIN_UNAVAILABLE] = f"waiting for a chain node: {reason}" if reason else ""

        await await_dependencies(
            redis, self._config.redis_url, chain, self._config.chain.id, self._stop, redis_waits, chain_waits,
            self._platform.rng, owner.claim,
        )  # fmt: skip
        return not self._stop.is_set()

    async def _serve(self, http: aiohttp.ClientSession) -> None:  # noqa: PLR0915 - the one place where everything of a worker is put together
        config, platform = self._config, self._platform
        loop, clock = asyncio.get_running_loop(), platform.clock
        keys = RedisKeys(config.prefix)
        redis = platform.connect_redis(config.redis_url, config.redis_access)
        nodes = [NodeAddress.parse(node.grpc, node.rpc) for node in config.chain.nodes]
        node_health, seconds = NodeHealthTable(len(nodes)), config.chain.query_timeout_seconds
        chain = CachedChain(
            nodes,
            redis,
            keys,
            timeout_seconds=seconds,
            node_health=node_health,
            clock=clock,
            wall_clock=platform.wall_seconds,
            channel=platform.channel,
            rng=platform.rng,
            on_query=relayer_metrics.observe_query,
        )
        comet = CometClient(
            nodes, http, seconds, config.chain.block_seconds, node_health, config.chain.id,
            clock=clock, on_query=relayer_metrics.observe_query,
        )  # fmt: skip
        watch = NodeMonitor(
            nodes, http, config.chain.id, node_health, timeout_seconds=seconds,
            on_assessment=relayer_metrics.show_node_health, channel=platform.channel, clock=clock,
        )  # fmt: skip
        owner = PrefixOwner(redis, keys, f"{config.namespace}/{config.name}")
        if not await self._await_dependencies(redis, owner, chain):
            await chain.close()
            await redis.aclose()
            return
        blocks = FallbackBlocks(comet, chain, config.chain.id, block_seconds=config.chain.block_seconds, clock=clock)
        latest_block = LatestBlockWatcher(redis, keys, blocks.block, config.chain.block_seconds, clock)
        chain.latest_height = lambda: latest_block.height
        signer = remote_signer(config.signer, relayer_metrics.observe_signature, platform.rng, clock)
        keyring = Keyring(config.keys_dir, platform.environment, platform.wall_nanoseconds, signer)
        await asyncio.to_thread(keyring.reload)
        relayer_metrics.observe_keys(keyring)
        reloaded = await asyncio.to_thread(ReloadedConfig, config.hot_file, self._kept_config)
        set_level(reloaded.current.log_level)
        limits = reloaded.current.limits()
        registry = ServiceRegistry(
            reloaded.current.services, clock, Credentials(config.secrets_dir), platform.backend_http
        )
        relayer_metrics.start_at_zero(service.id for service in reloaded.current.services)
        # In a thread: it reads the logs of dead workers, which may be gigabytes after an outage of Redis.
        name = f"worker-{self._number}-{os.getpid()}"
        log = await asyncio.to_thread(WriteAheadLog, config.data_dir / "relay-log", name)
        recorder = RelayRecorder(
            redis,
            keys,
            log,
            on_replay=lambda reason: relayer_metrics.REPLAYS.labels(reason).inc(),
            notifier=RelayNotifier(
                redis, keys, functools.lru_cache(4096)(lambda address: shard_of(address, config.shards)), clock
            ),
            cpu=platform.cpu_seconds,
            unique=platform.unique,
            on_server_time=functools.partial(latest_block.compare_clock, "redis"),
        )
        budgets = Budgets(redis, keys)
        moment = functools.partial(_moment, clock, latest_block, chain)
        meter = Meter(
            chain,
            budgets,
            RateLimiter(redis, keys, platform.wall_seconds),
            lambda: latest_block.height,
            enabled=config.metering.enabled,
            open_when_unavailable=config.metering.when_unavailable == "open",
            block_seconds=config.chain.block_seconds,
            moment=moment,
        )
        tracing, loop_lag = tracing_from(os.environ, self._number), LoopLagMonitor(clock)
        self.pipeline = pipeline = RelayPipeline(
            registry=registry,
            admission=Admission(
                chain, lambda: latest_block.height, clock, lambda: limits, lambda: chain.generation, moment
            ),
            meter=meter,
            recording=RelayRecording(
                recorder,
                meter.refund,
                config.recording,
                largest_leaf=largest_leaf(config.chain.max_transaction_bytes),
                is_below=latest_block.is_below,
                seal_after_blocks=config.seal_after_blocks,
            ),
            simulations=SimulatedRelayAdmission(
                redis, keys, lambda: reloaded.current.simulation, wall_clock=platform.wall_seconds, clock=clock
            ),
            keys=keyring.by_address,
            height=lambda: latest_block.height,
            clock=clock,
            tracing=tracing,
        )

        def problem() -> Problem | None:
            return worker_problem(ServingState(
                draining=self._draining, keys=len(keyring.addresses), keys_dir=str(config.keys_dir),
                signer_problem=keyring.signer_problem, log_problem=recorder.log_problem, stale=latest_block.stale,
                redis_full=recorder.redis_full, redis_error=recorder.redis_error,
                strict=config.recording is Recording.STRICT,
            ))  # fmt: skip

        def ready_problem() -> str | None:
            current = problem()
            return None if current is None or current.code in OF_ALL_PODS else str(current.code)

        probes = Probes(
            health=lambda: {"status": "ok", "height": latest_block.height},
            ready_problem=ready_problem,
            service_ready=lambda name: service_state(registry, name, latest_block.height),
            draining=lambda: self._draining,
        )
        router = RequestRouter(pipeline, probes, lambda: reloaded.current.response_compression)
        timeouts = ClientTimeouts(idle_seconds=config.connections.idle_seconds)
        limited = within_open_files(config.connections, raise_limit())
        memory = MemoryBudget(clock, limited.memory_bytes, relayer_metrics.DROPPED.inc)
        connections = Connections(limited, memory, clock)
        sockets = WebSockets(
            pipeline, lambda: self._draining, enforce_handshake=config.web_socket_handshake == "enforce",
            poll_seconds=min(2.0, config.chain.block_seconds / 2), timeouts=timeouts,
        )  # fmt: skip
        decoder = GzipRequestDecoder()
        http2 = Http2Server(router, lambda: registry.max_body_bytes, timeouts, decoder)
        first_requests = FirstRequests(http2.turns, clock)
        http1 = Http1(router, sockets, lambda: registry.max_body_bytes, timeouts, decoder, first_requests)
        runner = await http1.set_up(config.drain_seconds)
        debug = None if config.debug_port is None else await Debug().serve(config.debug_port + self._number)

        async def reload() -> None:
            nonlocal limits
            _, changed = await asyncio.to_thread(lambda: (keyring.reload(), reloaded.reload()))
            relayer_metrics.observe_keys(keyring)
            if changed:
                set_level(reloaded.current.log_level)
                limits = reloaded.current.limits()
                services = registry.update(reloaded.current.services)
                relayer_metrics.start_at_zero(service.id for service in reloaded.current.services)
                _LOG.info("configuration reloaded", services=services)

        try:
            async with watch, asyncio.TaskGroup() as group:
                loops: Mapping[str, Callable[[], Awaitable[None]]] = {
                    "node monitor": lambda: watch.run(max(1.0, config.chain.block_seconds / 2), platform.rng),
                    "recorder": recorder.run,
                    "write-ahead log": recorder.maintain,
                    "latest block": lambda: latest_block.run(min(_POLL_SECONDS, config.chain.block_seconds)),
                    "budgets": budgets.run,
                    "cache invalidation": InvalidationSubscriber(
                        redis, keys, chain, on_block=latest_block.receive, rng=platform.rng.random
                    ).run,
                    "health checks": registry.run,
                    "chain queries": pipeline.admission.background.run,
                    "event loop lag": loop_lag.run,
                    "configuration": lambda: self._reload(reload),
                    "metrics": lambda: show_metrics(
                        recorder, latest_block, log, chain, registry, loop_lag, connections, redis
                    ),
                    "supervisor": self._watch_parent,
                    **({} if signer is None else {"signer": signer.run}),
                }
                tasks = [group.create_task(_supervised(name, loop)) for name, loop in loops.items()]
                tasks.append(group.create_task(owner.run()))
                await latest_block.poll()
                self._report = functools.partial(
                    self._serving_report, keyring, latest_block, recorder, pipeline, problem
                )
                reports = RestingPace()
                self._is_report_due = lambda: reports.is_due((
                    problem(), keyring.digest, recorder.waiting, recorder.counters.appended, connections.open,
                    registry.in_flight,
                ))  # fmt: skip
                server = await loop.create_server(
                    lambda: Sniffer(http1, http2, connections, http2.turns, timeouts),
                    config.host,
                    config.port,
                    reuse_port=True,
                    backlog=1024,
                )
                _LOG.info("serving", port=config.port, worker=self._number)
                await self._stop.wait()
                stopped_at = loop.time()
                self._draining = True
                server.close()
                sockets.close_all()
                await runner.shutdown()
                # At the same time: the supervisor waits for the drain once, and a little longer.
                await asyncio.gather(
                    http1.drain(config.drain_seconds), http2.drain(config.drain_seconds), runner.cleanup()
                )
                connections.abort_lingering()
                await budgets.drain()
                await recorder.drain(redis_drain_timeout(config.drain_seconds, loop.time() - stopped_at))
                for task in tasks:
                    task.cancel()
        finally:
            await runner.cleanup()
            if debug is not None:
                await debug.cleanup()
            write_due()
            await registry.close()
            await asyncio.to_thread(tracing.close)
            await chain.close()
            await redis.aclose()
            log.close()

    def _serving_report(
        self, keyring: Keyring, latest_block: LatestBlockWatcher, recorder: RelayRecorder, pipeline: RelayPipeline,
        problem: Callable[[], Problem | None],
    ) -> WorkerReport:  # fmt: skip
        """Return what is loaded, and whose relays may still be recorded."""
        loaded = set(keyring.addresses)
        current = problem()
        return WorkerReport(
            worker=self._number,
            pid=os.getpid(),
            keys=keyring.digest,
            height=latest_block.height,
            waiting=recorder.waiting,
            problems=() if current is None else (current,),
            addresses=sorted(loaded),
            leaving=sorted((pipeline.in_flight.suppliers | recorder.suppliers_with_unacknowledged) - loaded),
            recent=pipeline.recent.totals(),
            unhealthy=pipeline.registry.unhealthy_endpoints(),
            budgets=pipeline.budgets(),
        )

    async def _reload(self, reload: Callable[[], Awaitable[None]]) -> None:
        while True:
            await sleep_to_tick(_RELOAD_SECONDS)
            try:
                await reload()
            except (PocketError, OSError) as error:
                _LOG.warning("config reload failed, keeping the previous configuration", error=error)

    async def _watch_parent(self) -> None:
        """Drain and end once the supervisor has died.

        An orphan would keep the port.
        """
        parent = os.getppid()
        while os.getppid() == parent:
            await sleep_to_tick(_ORPHAN_SECONDS)
        self._stop.set()
