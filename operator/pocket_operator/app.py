"""Run one operator replica.

It waits for the Lease, leads, and exits once it may have lost the Lease.
"""

import asyncio
import itertools
import os
import random
import secrets as randomness
import signal
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

import kopf
import structlog
from aiohttp import web
from prometheus_client import generate_latest
from structlog.contextvars import bind_contextvars
from structlog.typing import FilteringBoundLogger

from pocket.coordination.leader_lease import LeaseElector
from pocket.errors import ConfigurationError
from pocket.kube.api_client import KubeApi, KubeError, ResourceKind, connect
from pocket.runtime.backoff import Backoff
from pocket.runtime.concurrency import map_bounded
from pocket.runtime.version import build_labels
from pocket_operator.controller import operator_metrics
from pocket_operator.controller.books_keeper import BooksKeeper
from pocket_operator.controller.discovery import Discovery
from pocket_operator.controller.events import EventWriter
from pocket_operator.controller.informers import CHILD_SELECTOR, registry, run_watches
from pocket_operator.controller.lease_thread import LeaseThread
from pocket_operator.controller.namespace_guard import NamespaceGuard
from pocket_operator.controller.operator_claim import LEASE
from pocket_operator.controller.pod_report_cache import PodReportCache, Poller
from pocket_operator.controller.reconciler import Reconciler
from pocket_operator.controller.secrets import SealingKeys, SecretReader
from pocket_operator.controller.stake_keeper import StakeKeeper
from pocket_operator.controller.update_queue import UpdateQueue
from pocket_operator.controller.watch_heartbeat import WatchHeartbeat
from pocket_operator.controller.watch_thread import run_in_thread
from pocket_operator.controller.work_queue import WorkQueue
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.plan import is_paused
from pocket_operator.decide.snapshot import Settings
from pocket_operator.resources.kinds import PODS, RELAY_MINERS, SUPPLIERS, WATCHED_CHILDREN

_LOG: FilteringBoundLogger = structlog.get_logger()

_WORKERS = 4
_BACKOFF = Backoff(0.5, 15.0)
_LIST_CONCURRENCY = 16
_HEARTBEAT_SECONDS = 30.0
_HEARTBEAT_DEAD_SECONDS = 120.0
_SEALING_SECONDS = 10.0
_DISCOVERY_SECONDS = 300.0
_SCHEMA_SECONDS = 10.0
_STAKING_SECONDS = 5.0
_GUARD_SECONDS = 5.0
_RELIST_SECONDS = (1.0, 4.0, 10.0, 60.0)
"""Pauses between complete listings, the last one repeated. A watch does not report what vanished before it started or
while it was broken. Early listings close the gap between the first listing and the watches, later ones all others."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the process. Without namespaces it watches the whole cluster."""

    settings: Settings
    namespaces: Collection[str] = ()
    health_host: str = "0.0.0.0"
    health_port: int = 8080
    identity: str = field(default_factory=lambda: f"{os.environ.get('POD_NAME', 'operator')}_{randomness.token_hex(4)}")


class LostLeadership(Exception):
    """Another replica leads, or may: the process exits and restarts as a follower."""


class Operator:
    """One replica of the operator with its watches, queue and health server."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stop = asyncio.Event()
        self._synced = False
        self._definitions_changed = asyncio.Event()
        self._cache = ObjectCache()
        self._queue: WorkQueue[ReconcileKey] = WorkQueue(time.monotonic)
        self._heartbeat: WatchHeartbeat | None = None
        self._lease = LeaseThread(
            connect, lambda api: LeaseElector(api, options.settings.namespace, LEASE, options.identity)
        )

    async def run(self) -> None:
        """Run until SIGTERM.

        Raises LostLeadership, ConfigurationError.
        """
        operator_metrics.BUILD.labels(*build_labels()).set(1)
        operator_metrics.start_at_zero()
        self._listen_to_signals()
        health = await self._serve_health()
        try:
            # The Lease is released last, so that the other replica need not wait until it expires.
            async with self._lease:
                if await self._lease.acquire(self._stop):
                    async with connect() as api:
                        api.observe = operator_metrics.observe_request
                        api.may_write = lambda: self._lease.leads
                        await self._lead(api)
        except KubeError as error:
            raise ConfigurationError(f"operator: {error}") from error
        finally:
            operator_metrics.LEADS.set(0)
            await health.cleanup()

    async def _lead(self, api: KubeApi) -> None:
        """Lead until stopped.

        The Lease is renewed from the start, because listing may outlast it. Raises LostLeadership.
        """
        operator_metrics.LEADS.set(1)
        async with asyncio.TaskGroup() as group:
            holding = group.create_task(self._hold())
            await self._act(api)
            holding.cancel()

    async def _act(self, api: KubeApi) -> None:
        settings, clock = self._options.settings, time.monotonic
        sealing, discovery = SealingKeys(api, settings.namespace), Discovery(api)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._retry_until_success(sealing.refresh, "sealing keys"))
            group.create_task(self._retry_until_success(lambda: self._discover(discovery), "discovery"))
            group.create_task(self._retry_until_success(lambda: self._check_definitions(discovery), "schemas"))
            # A RelayMiner listed before its Suppliers would lose its keys, so no decision precedes a complete listing.
            group.create_task(self._retry_until_success(lambda: self._relist(api), "listing"))
        if self._stop.is_set():
            return
        self._heartbeat = WatchHeartbeat(api, settings.namespace, self._options.identity, clock)
        guard = NamespaceGuard(api, self._cache, settings.namespace)
        reports, books = PodReportCache(clock), BooksKeeper(self._cache)
        events = EventWriter(api, clock, _now, self._options.identity)
        reconciler = Reconciler(
            api=api,
            cache=self._cache,
            settings=settings,
            secrets=SecretReader(api, clock),
            sealing=sealing,
            guard=guard,
            reports=reports,
            books=books,
            events=events,
            capabilities=lambda: discovery.optional_kinds,
            schemas=lambda: discovery.schemas,
            updates=UpdateQueue(self._cache, settings, clock),
            clock=clock,
            now=_now,
        )
        keeper = StakeKeeper(api, self._cache, settings.namespace, _now, clock, events, lambda: discovery.schemas)
        poller = Poller(self._cache, reports, books, self._queue.add)
        loop = asyncio.get_running_loop()
        watches = registry(self._cache, self._queue.add, self._heartbeat.receive, loop)

        async def relist() -> None:
            await self._relist(api, discovery.missing_kinds)

        self._synced = True
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._watch(watches, relist)),
                group.create_task(poller.run()),
                group.create_task(events.run()),
                group.create_task(
                    self._run_periodically(_HEARTBEAT_SECONDS, self._heartbeat.send, "heartbeat", immediately=True)
                ),
                group.create_task(self._run_periodically(_SEALING_SECONDS, sealing.refresh, "sealing keys")),
                group.create_task(
                    self._run_periodically(_GUARD_SECONDS, guard.refresh, "namespaces", immediately=True)
                ),
                group.create_task(
                    self._run_periodically(_DISCOVERY_SECONDS, lambda: self._discover(discovery), "discovery")
                ),
                group.create_task(
                    self._run_periodically(_SCHEMA_SECONDS, lambda: self._check_definitions(discovery), "schemas")
                ),
                group.create_task(self._run_periodically(_STAKING_SECONDS, keeper.once, "staking", immediately=True)),
                *(group.create_task(self._work(reconciler)) for _ in range(_WORKERS)),
            ]
            await self._stop.wait()
            for task in tasks:
                task.cancel()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)

    async def _watch(self, watches: kopf.OperatorRegistry, relist: Callable[[], Awaitable[None]]) -> None:
        """Run the watches until the replica stops, and listings that find what they miss.

        A watch that ends, as that of a deleted definition does, ends nothing else: all watches are started again. The
        liveness probe ends a process whose watches do not come back.
        """
        rng = random.Random()  # noqa: S311 - jitter
        failures = 0
        while not self._stop.is_set():
            self._definitions_changed.clear()
            begun = time.monotonic()
            try:
                async with asyncio.TaskGroup() as group:
                    resync = group.create_task(self._resync_loop(relist))
                    await run_in_thread(
                        lambda end: run_watches(watches, self._options.namespaces, end), self._definitions_changed
                    )
                    resync.cancel()
            except* Exception as errors:  # noqa: BLE001 - kopf passes on whatever ended a watch
                _LOG.warning("the watches ended, starting them again", error=errors.exceptions[0])
            failures = 1 if time.monotonic() - begun > _HEARTBEAT_DEAD_SECONDS else failures + 1
            await self._sleep(_BACKOFF.pause(failures, rng))
            operator_metrics.WATCH_RESTARTS.inc()

    async def _check_definitions(self, discovery: Discovery) -> None:
        """Find missing definitions, and have the watches start again after a change.

        Raises KubeError.
        """
        if await discovery.find_missing_kinds():
            self._definitions_changed.set()
        if not discovery.missing_kinds:
            await discovery.compare_schemas()

    async def _hold(self) -> None:
        if reason := await self._lease.lost():
            raise LostLeadership(reason)

    async def _retry_until_success(self, step: Callable[[], Awaitable[None]], name: str) -> None:
        """Repeat a step with growing pauses until it succeeds or the replica stops."""
        rng = random.Random()  # noqa: S311 - jitter
        for failures in itertools.count(1):
            if self._stop.is_set():
                return
            try:
                await step()
                return
            except KubeError as error:
                _LOG.warning("step failed, retrying", step=name, error=error)
            await self._sleep(_BACKOFF.pause(failures, rng))

    async def _run_periodically(
        self, seconds: float, step: Callable[[], Awaitable[None]], name: str, *, immediately: bool = False
    ) -> None:
        if not immediately:
            await self._sleep(seconds)
        while not self._stop.is_set():
            try:
                await step()
            except KubeError as error:
                _LOG.warning("step failed, retrying", step=name, error=error)
            await self._sleep(seconds * random.uniform(0.9, 1.1))  # noqa: S311 - jitter

    async def _resync_loop(self, relist: Callable[[], Awaitable[None]]) -> None:
        for pause in itertools.chain(_RELIST_SECONDS, itertools.repeat(_RELIST_SECONDS[-1])):
            await self._sleep(pause)
            if self._stop.is_set():
                return
            await self._retry_until_success(relist, "listing")

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _discover(self, discovery: Discovery) -> None:
        """Find the optional kinds of this cluster.

        Every RelayMiner is queued again after a change.
        """
        if await discovery.find_optional_kinds():
            for key in self._cache.everything():
                self._queue.add(key)

    async def _relist(self, api: KubeApi, missing: Collection[ResourceKind] = ()) -> None:
        """List every kind and requeue every RelayMiner, which heals what a watch missed.

        Of a kind that is missing nothing is concluded.
        """

        async def list_one(target: tuple[ResourceKind, str]) -> None:
            kind, namespace = target
            selector = "" if kind in (SUPPLIERS, RELAY_MINERS) else CHILD_SELECTOR
            known = self._cache.identities(kind.name, namespace)
            listed = await api.list(kind, namespace, selector)
            for key in self._cache.replace(kind.name, listed, known):
                self._queue.add(key)

        kinds = [kind for kind in (SUPPLIERS, RELAY_MINERS, PODS, *WATCHED_CHILDREN) if kind not in missing]
        lists = [(kind, namespace) for kind in kinds for namespace in self._options.namespaces or ("",)]
        await map_bounded(list_one, lists, _LIST_CONCURRENCY, stop_on=KubeError)
        for key in self._cache.everything():
            self._queue.add(key)

    async def _work(self, reconciler: Reconciler) -> None:
        while True:
            key = await self._queue.take()
            bind_contextvars(namespace=key.namespace, relay_miner=key.name)  # of this task
            operator_metrics.QUEUE.set(len(self._queue))
            try:
                with operator_metrics.SECONDS.time():
                    again = await reconciler.reconcile(key)
            except KubeError as error:
                pause = self._queue.failed(key, error.retry_after)
                operator_metrics.RECONCILES.labels("failed").inc()
                _LOG.warning("reconcile failed, retrying", retry_seconds=round(pause, 1), error=error)
            except Exception:  # noqa: BLE001 - a defect must not end the operator
                # A defect that one RelayMiner triggers must not stop the others. It is retried with growing pauses.
                pause = self._queue.failed(key)
                operator_metrics.RECONCILES.labels("defect").inc()
                _LOG.exception("reconcile failed unexpectedly, retrying", retry_seconds=round(pause, 1))
            else:
                self._queue.done(key, again)
                operator_metrics.RECONCILES.labels("done").inc()
            self._count()

    def _count(self) -> None:
        keys = self._cache.everything()
        miners = [m for m in (self._cache.get(RELAY_MINERS.name, *key) for key in keys) if m is not None]
        operator_metrics.RELAY_MINERS.set(len(miners))
        operator_metrics.PAUSED.set(sum(is_paused(m) for m in miners))
        operator_metrics.SUPPLIERS.set(sum(len(self._cache.suppliers(key)) for key in keys))

    def problem(self) -> str | None:
        """Return why this replica should be restarted, or None."""
        if self._heartbeat is not None and self._heartbeat.overdue_seconds > _HEARTBEAT_DEAD_SECONDS:
            return f"no heartbeat came back through the watches for {self._heartbeat.overdue_seconds:.0f} s"
        return None

    async def _serve_health(self) -> web.AppRunner:
        async def show_health(_: web.Request) -> web.Response:
            operator_metrics.WATCH_AGE.set(self._heartbeat.age if self._heartbeat else 0.0)
            problem = self.problem()
            return web.json_response(
                {"status": problem or "ok", "leads": self._lease.leads}, status=503 if problem else 200
            )

        async def show_ready(_: web.Request) -> web.Response:
            ready = self._synced or not self._lease.leads
            return web.json_response({"ready": ready, "leads": self._lease.leads}, status=200 if ready else 503)

        async def show_metrics(_: web.Request) -> web.Response:
            operator_metrics.WATCH_AGE.set(self._heartbeat.age if self._heartbeat else 0.0)
            return web.Response(body=generate_latest(), content_type="text/plain", charset="utf-8")

        app = web.Application()
        app.add_routes(
            [web.get("/healthz", show_health), web.get("/readyz", show_ready), web.get("/metrics", show_metrics)]
        )
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._options.health_host, self._options.health_port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigurationError(
                f"operator: port {self._options.health_port} is taken: {error.strerror}; see --health-port"
            ) from error
        return runner


def _now() -> datetime:
    return datetime.now(UTC)
