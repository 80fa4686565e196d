"""One operator replica: leads or stands by, and ends rather than lead without knowing."""

import asyncio
import itertools
import logging
import os
import random
import secrets as randomness
import signal
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

import kopf
from aiohttp import web
from prometheus_client import generate_latest

from pocket.coordination.leader_lease import LeaseElector
from pocket.errors import ConfigurationError
from pocket.kube.api_client import KubeApi, KubeError, ObjectNotFound, ResourceKind, connect
from pocket_operator.controller import operator_metrics
from pocket_operator.controller.concurrency import for_each
from pocket_operator.controller.events import EventWriter
from pocket_operator.controller.informers import CHILD_SELECTOR, registry, run_watches
from pocket_operator.controller.namespace_guard import NamespaceGuard
from pocket_operator.controller.pod_report_cache import PodReportCache, Poller
from pocket_operator.controller.reconciler import Reconciler
from pocket_operator.controller.secrets import SealingKeys, SecretReader
from pocket_operator.controller.stake_keeper import StakeKeeper
from pocket_operator.controller.watch_heartbeat import WatchHeartbeat
from pocket_operator.controller.work_queue import WorkQueue
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.plan import is_paused
from pocket_operator.decide.schemas import PATH as SCHEMAS_PATH
from pocket_operator.decide.schemas import Schemas
from pocket_operator.decide.snapshot import Settings
from pocket_operator.resources.kinds import OPTIONAL_CHILDREN, PODS, RELAY_MINERS, SUPPLIERS, WATCHED_CHILDREN

_LOG = logging.getLogger("operator")
LEASE = "pocket-operator"
_WORKERS = 4
_LISTS_AT_ONCE = 16
_CANARY_SECONDS = 30.0
_CANARY_DEAD_SECONDS = 120.0
_SEALING_SECONDS = 10.0
_DISCOVERY_SECONDS = 300.0
_STAKING_SECONDS = 5.0
_GUARD_SECONDS = 5.0
_RELIST_SECONDS = (1.0, 4.0, 10.0, 60.0)
"""Pauses between whole listings, the last one for ever. A watch tells nothing of what vanished before it began or while
it was broken, so early listings close the gap between the first one and the watches, later ones all others."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the operator is started; no namespaces: the whole cluster."""

    settings: Settings
    namespaces: Collection[str] = ()
    health_host: str = "0.0.0.0"
    health_port: int = 8080
    identity: str = field(default_factory=lambda: f"{os.environ.get('POD_NAME', 'operator')}_{randomness.token_hex(4)}")


class LostLeadership(Exception):
    """Another replica leads, or this one cannot know: the process ends and is started again as a follower."""


class Operator:
    """Everything of one replica."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stop = asyncio.Event()
        self._synced = False
        self._capabilities: frozenset[str] = frozenset()
        self._schemas = Schemas()
        self._store = ObjectCache()
        self._queue: WorkQueue[ReconcileKey] = WorkQueue(time.monotonic)
        self._canary: WatchHeartbeat | None = None
        self._leads: Callable[[], bool] = lambda: False

    async def run(self) -> None:
        """Until SIGTERM; raises LostLeadership, ConfigurationError."""
        self._listen_to_signals()
        health = await self._serve_health()
        try:
            async with connect() as api:
                elector = LeaseElector(api, self._options.settings.namespace, LEASE, self._options.identity)
                self._leads = lambda: elector.leads
                try:
                    if await elector.acquire(self._stop):
                        await self._lead(api, elector)
                finally:
                    # At once: the other replica need not wait for the lease to run out.
                    await elector.release()
                    operator_metrics.LEADS.set(0)
        except KubeError as error:
            raise ConfigurationError(f"operator: {error}") from error
        finally:
            await health.cleanup()

    async def _lead(self, api: KubeApi, elector: LeaseElector) -> None:
        """Until stopped; raises LostLeadership. The Lease is renewed from the first moment: listing may take longer."""
        operator_metrics.LEADS.set(1)
        async with asyncio.TaskGroup() as group:
            holding = group.create_task(self._hold(elector))
            await self._act(api)
            holding.cancel()

    async def _act(self, api: KubeApi) -> None:
        settings, clock = self._options.settings, time.monotonic
        sealing = SealingKeys(api, settings.namespace)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._insist(sealing.refresh, "sealing keys"))
            group.create_task(self._insist(lambda: self._discover(api), "discovery"))
            # A RelayMiner seen before its Suppliers would lose its keys: nothing is decided before all is listed.
            group.create_task(self._insist(lambda: self._relist(api), "listing"))
        if self._stop.is_set():
            return
        self._canary = WatchHeartbeat(api, settings.namespace, self._options.identity, clock)
        guard = NamespaceGuard(api, self._store, settings.namespace)
        book = PodReportCache(clock)
        reconciler = Reconciler(
            api=api,
            store=self._store,
            settings=settings,
            secrets=SecretReader(api, clock),
            sealing=sealing,
            guard=guard,
            reports=book,
            events=EventWriter(api, clock, _now, self._options.identity),
            capabilities=lambda: self._capabilities,
            schemas=lambda: self._schemas,
            clock=clock,
            now=_now,
        )
        keeper = StakeKeeper(api, self._store, _now, clock)
        poller = Poller(self._store, book, self._queue.add)
        watches = registry(self._store, self._queue.add, self._canary.hear)
        self._synced = True
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._watch(watches)),
                group.create_task(poller.run()),
                group.create_task(self._every(_CANARY_SECONDS, self._canary.beat, "canary", at_once=True)),
                group.create_task(self._every(_SEALING_SECONDS, sealing.refresh, "sealing keys")),
                group.create_task(self._every(_GUARD_SECONDS, guard.refresh, "namespaces", at_once=True)),
                group.create_task(self._every(_DISCOVERY_SECONDS, lambda: self._discover(api), "discovery")),
                group.create_task(self._every(_STAKING_SECONDS, keeper.once, "staking", at_once=True)),
                group.create_task(self._relist_for_ever(api)),
                *(group.create_task(self._work(reconciler)) for _ in range(_WORKERS)),
            ]
            await self._stop.wait()
            for task in tasks:
                task.cancel()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)

    async def _watch(self, watches: kopf.OperatorRegistry) -> None:
        """The watches; they never end by themselves while this replica leads."""
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(run_watches(watches, self._options.namespaces, self._stop, ready))
            await ready.wait()
            self._listen_to_signals()  # kopf takes the signals for itself when it starts
            await running
        self._stop.set()

    async def _hold(self, elector: LeaseElector) -> None:
        reason = await elector.hold(self._stop)
        if reason:
            raise LostLeadership(reason)

    async def _insist(self, step: Callable[[], Awaitable[None]], name: str) -> None:
        """Until it works or the replica is stopped."""
        pause = 0.5
        while not self._stop.is_set():
            try:
                await step()
                return
            except KubeError as error:
                _LOG.warning("%s: %s", name, error)
            await self._sleep(pause)
            pause = min(15.0, pause * 2)

    async def _every(
        self, seconds: float, step: Callable[[], Awaitable[None]], name: str, *, at_once: bool = False
    ) -> None:
        if not at_once:
            await self._sleep(seconds)
        while not self._stop.is_set():
            try:
                await step()
            except KubeError as error:
                _LOG.warning("%s: %s", name, error)
            await self._sleep(seconds * random.uniform(0.9, 1.1))  # noqa: S311 - jitter

    async def _relist_for_ever(self, api: KubeApi) -> None:
        for pause in itertools.chain(_RELIST_SECONDS, itertools.repeat(_RELIST_SECONDS[-1])):
            await self._sleep(pause)
            if self._stop.is_set():
                return
            await self._insist(lambda: self._relist(api), "listing")

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _discover(self, api: KubeApi) -> None:
        """Which optional kinds this cluster knows; a change concerns every RelayMiner."""
        found: set[str] = set()
        for version in {kind.api_version for kind in OPTIONAL_CHILDREN}:
            try:
                known = {row["kind"] for row in (await api.call("GET", f"/apis/{version}"))["resources"]}
            except ObjectNotFound:
                continue
            found |= {kind.name for kind in OPTIONAL_CHILDREN if kind.api_version == version and kind.name in known}
        await self._compare_schemas(api)
        if frozenset(found) != self._capabilities:
            self._capabilities = frozenset(found)
            _LOG.info("optional kinds: %s", ", ".join(sorted(found)) or "none")
            for key in self._store.everything():
                self._queue.add(key)

    async def _compare_schemas(self, api: KubeApi) -> None:
        """How the installed definitions of our kinds differ from those of this release."""
        try:
            self._schemas = Schemas.of(await api.call("GET", SCHEMAS_PATH))
        except KubeError as error:
            if error.status == 0:
                raise
            _LOG.warning("the API server does not tell the schemas of our kinds: %s", error)
            self._schemas = Schemas()
        for kind in (RELAY_MINERS.name, SUPPLIERS.name):
            found = self._schemas.difference(kind)
            for what, paths in (("missing", found.missing), ("unknown", found.unknown)):
                operator_metrics.SCHEMA.labels(kind, what).set(len(paths))
                if paths:
                    _LOG.warning("the installed definition of %s: %s fields: %s", kind, what, ", ".join(paths[:10]))

    async def _relist(self, api: KubeApi) -> None:
        """Everything, afresh, all kinds at once: heals whatever a watch may have missed."""

        async def list_one(place: tuple[ResourceKind, str]) -> None:
            kind, namespace = place
            selector = "" if kind in (SUPPLIERS, RELAY_MINERS) else CHILD_SELECTOR
            known = self._store.places(kind.name, namespace)
            listed = await api.list(kind, namespace, selector)
            for key in self._store.replace(kind.name, listed, known):
                self._queue.add(key)

        kinds = (SUPPLIERS, RELAY_MINERS, PODS, *WATCHED_CHILDREN)
        places = [(kind, namespace) for kind in kinds for namespace in self._options.namespaces or ("",)]
        await for_each(list_one, places, _LISTS_AT_ONCE)
        for key in self._store.everything():
            self._queue.add(key)

    async def _work(self, reconciler: Reconciler) -> None:
        while True:
            key = await self._queue.take()
            operator_metrics.QUEUE.set(len(self._queue))
            try:
                with operator_metrics.SECONDS.time():
                    again = await reconciler.reconcile(key)
            except KubeError as error:
                pause = self._queue.failed(key, error.retry_after)
                operator_metrics.RECONCILES.labels("failed").inc()
                _LOG.warning("%s/%s: %s; again in %.1f s", *key, error, pause)
            except Exception:  # noqa: BLE001 - a defect must not end the operator
                # One RelayMiner that trips a defect must not stop the others; it is tried again, later and later.
                pause = self._queue.failed(key)
                operator_metrics.RECONCILES.labels("defect").inc()
                _LOG.exception("%s/%s: a defect of the operator; again in %.1f s", *key, pause)
            else:
                self._queue.done(key, again)
                operator_metrics.RECONCILES.labels("done").inc()
            self._count()

    def _count(self) -> None:
        keys = self._store.everything()
        miners = [m for m in (self._store.get(RELAY_MINERS.name, *key) for key in keys) if m is not None]
        operator_metrics.RELAY_MINERS.set(len(miners))
        operator_metrics.PAUSED.set(sum(is_paused(m) for m in miners))
        operator_metrics.SUPPLIERS.set(sum(len(self._store.suppliers(key)) for key in keys))

    def problem(self) -> str | None:
        """Why this replica should be started again."""
        if self._canary is not None and self._canary.age > _CANARY_DEAD_SECONDS:
            return f"no heartbeat came back through the watches for {self._canary.age:.0f} s"
        return None

    async def _serve_health(self) -> web.AppRunner:
        async def show_health(_: web.Request) -> web.Response:
            operator_metrics.WATCH_AGE.set(self._canary.age if self._canary else 0.0)
            found = self.problem()
            return web.json_response({"status": found or "ok", "leads": self._leads()}, status=503 if found else 200)

        async def show_ready(_: web.Request) -> web.Response:
            ready = self._synced or not self._leads()
            return web.json_response({"ready": ready, "leads": self._leads()}, status=200 if ready else 503)

        async def show_metrics(_: web.Request) -> web.Response:
            operator_metrics.WATCH_AGE.set(self._canary.age if self._canary else 0.0)
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
