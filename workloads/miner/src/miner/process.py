"""One miner process: wiring, block feed, tail loops, health."""

import asyncio
import contextlib
import logging
import signal
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError

from coordination.file_lock import FileLock, OwnedElsewhere
from ledger.chain_cache import CachedChain
from ledger.connection import await_safe_redis, connect, inspect
from ledger.errors import Fenced, LedgerError
from ledger.heights import BlockPublisher
from ledger.keys import Keys
from miner import metrics
from miner.admin import serve_admin
from miner.audit import Audit
from miner.mirror import Mirror
from miner.ownership import Ownership, ownership
from miner.report import Reports
from miner.supplier_miner import SupplierMiner
from miner.suppliers import Suppliers
from miner.trie_pool import TriePool
from pocket_api.workload import MinerConfig
from shannon.chain.comet import CometClient
from shannon.chain.feed import BlockFeed
from shannon.chain.identity import require_chain_id
from shannon.chain.model import Block
from shannon.chain.nodes import NodeAddress
from shannon.errors import ConfigurationError, PocketError

_LOG = logging.getLogger("miner")
_TAIL_IDLE_SECONDS = 0.1
_REDIS_SETTLES_SECONDS = 5.0
_KEYS_SECONDS = 1.0
_STAKES_SECONDS = 5.0
_STALE_SECONDS = 10.0
_STALE_BLOCKS = 5


class RedisWatch:
    """Notices restarts of Redis; `settled` once relayers had time to append their logs again."""

    def __init__(self, redis: "Redis", settle_seconds: float) -> None:
        self._redis = redis
        self._settle = settle_seconds
        self._run_id = ""
        self._started_at: float | None = None

    def settled(self) -> bool:
        """Whether Redis has been up long enough; False before the first look."""
        return self._started_at is not None and time.monotonic() - self._started_at > self._settle

    async def look(self) -> bool:
        """Whether Redis is another process than at the last look; raises LedgerUnavailable."""
        info = await inspect(self._redis)
        if info.run_id == self._run_id:
            return False
        self._run_id = info.run_id
        self._started_at = time.monotonic() - info.uptime_seconds
        return True


class Miner:
    """All suppliers of one data folder."""

    def __init__(self, config: MinerConfig) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._block: Block | None = None
        self._news = asyncio.Event()
        self._block_at = time.monotonic()
        self._redis_problem = ""
        self._suppliers: dict[str, SupplierMiner] = {}

    async def run(self) -> None:
        """Mines until SIGTERM or SIGINT."""
        config = self._config
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        try:
            lock = FileLock(config.data_dir / "miner.lock")
            lock.acquire()
        except OwnedElsewhere as error:
            raise ConfigurationError(f"miner: {error}") from error
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(lock.release)
            redis = connect(config.redis_url)
            stack.push_async_callback(redis.aclose)
            await await_safe_redis(redis, config.redis_url, self._stop)
            nodes = [NodeAddress.parse(node.grpc, node.rpc) for node in config.chain.nodes]
            keys = Keys(config.prefix)
            chain = CachedChain(nodes, redis, keys, timeout_seconds=config.chain.query_timeout_seconds)
            stack.push_async_callback(chain.close)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            comet = CometClient(nodes, http, config.chain.query_timeout_seconds, config.chain.block_seconds)
            await require_chain_id(chain, config.chain.id, self._stop)
            mirror = stack.enter_context(Mirror(config.data_dir / "mirror"))
            audit = Audit(config.data_dir / "audit.sqlite")
            stack.callback(audit.close)
            pool = TriePool()
            stack.callback(pool.close)
            watch = RedisWatch(redis, min(_REDIS_SETTLES_SECONDS, 3 * config.chain.block_seconds))
            reports = Reports(audit)
            suppliers = Suppliers(config, redis, chain, comet, mirror, audit, pool, watch.settled, reports)
            owner = await stack.enter_async_context(
                ownership(config.namespace, config.lease, config.chain.block_seconds)
            )
            admin = await serve_admin(
                config.admin_host, config.admin_port,
                health=lambda: {"status": "ok", "height": self._height, "role": owner.role},
                report=lambda: self._report(suppliers, owner), status=lambda: self._status(audit),
                problem=lambda: self._problem(suppliers),
            )  # fmt: skip
            stack.push_async_callback(admin.cleanup)
            publisher = BlockPublisher(redis, keys)

            async def on_block(block: Block) -> None:
                self._block = block
                self._block_at = time.monotonic()
                metrics.HEIGHT.set(block.height)
                self._news.set()
                await publisher.publish(block)

            feed = BlockFeed(
                comet, on_block, poll_seconds=min(1.0, config.chain.block_seconds / 2),
                on_error=lambda error: _LOG.warning("block feed: %s", error),
            )  # fmt: skip
            async with asyncio.TaskGroup() as group:
                tasks = {group.create_task(feed.run()), group.create_task(self._watch_redis(watch))}
                if await owner.acquire(self._stop):
                    await self._take_over(suppliers)
                    tasks |= {
                        group.create_task(owner.hold(self._stop)),
                        group.create_task(self._decide_for_ever(chain)),
                        group.create_task(self._look_at_stakes(suppliers)),
                        *(group.create_task(self._tail_for_ever(s)) for s in self._suppliers.values()),
                    }
                    tasks.add(group.create_task(self._watch_keys(suppliers, group, tasks)))
                await self._stop.wait()
                for task in list(tasks):
                    task.cancel()

    async def _take_over(self, suppliers: Suppliers) -> None:
        """The first set of keys; raises ConfigurationError where one is required and none is there."""
        await suppliers.refresh()
        self._suppliers = suppliers.mining
        if self._suppliers:
            return
        text = f"no supplier key is loaded from {self._config.keys_dir}"
        if self._config.keys_required:
            raise ConfigurationError(f"miner: {text}. Put one file per supplier there.")
        _LOG.warning("%s: waiting for one", text)

    async def _look_at_stakes(self, suppliers: Suppliers) -> None:
        while True:
            await suppliers.look_at_stakes()
            await asyncio.sleep(_STAKES_SECONDS)

    async def _watch_keys(self, suppliers: Suppliers, group: asyncio.TaskGroup, tasks: set[asyncio.Task[None]]) -> None:
        """Suppliers come and go with their keys, without restart."""
        while True:
            await asyncio.sleep(_KEYS_SECONDS)
            try:
                added = await suppliers.refresh()
            except (PocketError, RedisError, OSError, TimeoutError, sqlite3.Error) as error:
                metrics.ERRORS.labels("keys").inc()
                _LOG.warning("keys: %s", error)
                continue
            for supplier in added:
                task = group.create_task(self._tail_for_ever(supplier))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def _watch_redis(self, watch: RedisWatch) -> None:
        while True:
            try:
                restarted = await watch.look()
                self._redis_problem = ""
                if restarted:
                    for supplier in self._suppliers.values():
                        supplier.tailer.reread()
            except (LedgerError, RedisError, OSError, TimeoutError) as error:
                self._redis_problem = str(error) or type(error).__name__
                metrics.ERRORS.labels("redis").inc()
                _LOG.warning("Redis: %s", error)
            await asyncio.sleep(0.5)

    async def _tail_for_ever(self, supplier: SupplierMiner) -> None:
        failures = 0
        while not (supplier.retiring and not supplier.sessions):
            try:
                read = await supplier.tail()
                failures = 0
                metrics.LAG.set(sum(len(s.sessions) for s in self._suppliers.values()))
            except Fenced as error:
                self._lost_ownership(error)
                return
            except (PocketError, RedisError, OSError, TimeoutError, sqlite3.Error) as error:
                # A full volume stops mirroring, never claims: what is not mirrored is still in the streams.
                metrics.ERRORS.labels("tail").inc()
                failures += 1
                if failures == 1:
                    _LOG.warning("tailing: %s", error, extra={"fields": {"supplier": supplier.supplier}})
                await asyncio.sleep(min(2.0, 0.1 * 2 ** min(failures, 5)))
                continue
            if not read:
                await asyncio.sleep(_TAIL_IDLE_SECONDS)

    async def _decide_for_ever(self, chain: CachedChain) -> None:
        """At every new block, and again after a while without one, every supplier decides; bursts collapse."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(1.0, self._config.chain.block_seconds)):
                    await self._news.wait()
            self._news.clear()
            block = self._block
            if block is None:
                continue
            stages: dict[str, int] = {}
            for supplier in list(self._suppliers.values()):
                # One supplier's trouble must not keep the others from their windows.
                try:
                    for stage, number in (await supplier.on_block(block, await chain.proof_params())).items():
                        stages[stage] = stages.get(stage, 0) + number
                except Fenced as error:
                    self._lost_ownership(error)
                    return
                except (PocketError, RedisError, OSError, TimeoutError, sqlite3.Error) as error:
                    metrics.ERRORS.labels("decide").inc()
                    _LOG.warning("deciding: %s", error, extra={"fields": {"supplier": supplier.supplier}})
            for stage in ("ACTIVE", "GRACE", "CLAIMABLE", "SEALED", "CLAIMED", "PROOFABLE", "PROVED", "SETTLED"):
                metrics.SESSIONS.labels(stage).set(stages.get(stage, 0))
            for source, number in chain.counters.taken():
                metrics.CACHE.labels(source).inc(number)

    def _lost_ownership(self, error: Fenced) -> None:
        _LOG.error("%s: this miner stops", error)
        self._stop.set()

    def _status(self, audit: Audit) -> Mapping[str, Any]:
        sessions = {
            address: [
                {"session_id": i, "end": s.end, "sealed": s.seal is not None, "service": s.header.service_id}
                for i, s in supplier.sessions.items()
            ]
            for address, supplier in self._suppliers.items()
        }
        return {"height": self._height, "sessions": sessions, "outcomes": audit.outcomes()}

    def _report(self, suppliers: Suppliers, owner: Ownership) -> Mapping[str, Any]:
        problem = self._problem(suppliers)
        return {
            "component": "miner", "role": owner.role, "keys": suppliers.digest, "addresses": suppliers.addresses,
            "height": self._height, "problems": [problem] if problem else [],
            "redis": self._redis_problem, "suppliers": suppliers.reports.rows(),
        }  # fmt: skip

    @property
    def _height(self) -> int:
        return self._block.height if self._block else 0

    def _problem(self, suppliers: Suppliers) -> str | None:
        """Why this miner is not ready."""
        if self._redis_problem:
            return f"Redis: {self._redis_problem}"
        patience = max(_STALE_SECONDS, _STALE_BLOCKS * self._config.chain.block_seconds)
        if time.monotonic() - self._block_at > patience:
            return "no new block for too long: check the chain nodes"
        if not suppliers.addresses:
            return None if not self._config.keys_required else "no supplier key is loaded"
        return None
