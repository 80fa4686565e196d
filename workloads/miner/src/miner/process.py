"""One miner process: wiring, block feed, health."""

import asyncio
import contextlib
import logging
import os
import platform
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError

from coordination.file_lock import FileLock, OwnedElsewhere
from ledger.cache_news import CacheFollower, CacheRefresher
from ledger.chain_cache import CachedChain
from ledger.connection import RedisInfo, await_safe_redis, connect, inspect
from ledger.errors import LedgerError, LedgerUnavailable
from ledger.heights import BlockPublisher
from ledger.keys import Keys
from ledger.wakes import WakeReader
from miner import metrics, peers
from miner.admin import serve_admin
from miner.audit import Audit
from miner.beside import kept_up
from miner.board import BlockBoard
from miner.chain_notes import ChainNotes
from miner.damage import set_aside, set_damaged_aside
from miner.dead_letters import DeadLetters
from miner.endpoints import Endpoints
from miner.fleet import Fleet
from miner.mirror import Mirror
from miner.ownership import peer_urls, shard_keeper
from miner.report import Reports
from miner.settlements import Settlements
from miner.stages import Stage
from miner.suppliers import Suppliers
from miner.trie_pool import TriePool
from pocket_api.workload import MinerConfig
from shannon.chain.comet import CometClient
from shannon.chain.feed import BlockFeed
from shannon.chain.identity import require_chain_id
from shannon.chain.model import Block
from shannon.chain.nodes import NodeAddress
from shannon.chain.standing import Standings
from shannon.chain.watch import NodeWatch
from shannon.debug import Debug
from shannon.errors import ConfigurationError
from shannon.program import require_writable
from shannon.transactions.build import GasPrice
from shannon.vitals import VERSION, Pulse

_LOG = logging.getLogger("miner")
_REDIS_SETTLES_SECONDS = 5.0
_STAKES_SECONDS = 5.0
_STAKE_PAUSE_SECONDS = 0.1  # for each supplier: a thousand of them are ten questions a second, not hundreds
_FUNDS_SECONDS = 300.0
_BROKEN_SECONDS = 30.0
_STALE_SECONDS = 10.0
_REFRESH_SECONDS = 30.0
_SHOWN_OUTCOMES = 1000
_RETENTION_SECONDS = 600.0
_DAY_SECONDS = 86_400.0
_REFRESH_PAUSE_SECONDS = 1.0
_STALE_BLOCKS = 5
_SLOW = 1.5


class RedisWatch:
    """Notices restarts and fail-overs of Redis; `settled` once relayers had time to append their logs again."""

    def __init__(
        self, redis: "Redis", settle_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = redis
        self._settle = settle_seconds
        self._clock = clock
        self._history = ""
        self._usable_since: float | None = None
        self._missed = False
        self._ahead: float | None = None

    def server_milliseconds(self) -> float | None:
        """The time by Redis's clock; None before the first look."""
        return None if self._ahead is None else self._clock() * 1000 + self._ahead

    def settled(self) -> bool:
        """Whether relayers have met this Redis for long enough; False before the first look."""
        return self._usable_since is not None and self._clock() - self._usable_since > self._settle

    def missed(self) -> None:
        """Note that Redis could not be used: what comes next counts from then, not from the server's start."""
        self._missed = True

    async def look(self) -> bool:
        """Whether Redis may hold other data than at the last look; raises LedgerUnavailable."""
        try:
            info = await inspect(self._redis)
        except LedgerUnavailable:
            self.missed()
            raise
        return self.take(info)

    def take(self, info: RedisInfo) -> bool:
        """Take in a state of Redis; return whether it may hold other data than the last one."""
        now = self._clock()
        if info.server_time_microseconds:
            self._ahead = info.server_time_microseconds / 1000 - now * 1000
        metrics.REDIS_MEMORY.labels("used").set(info.used_memory)
        metrics.REDIS_MEMORY.labels("max").set(info.max_memory)
        if info.history_id == self._history:
            self._missed = False
            return False
        met_running = not self._history and not self._missed
        self._usable_since = now - info.uptime_seconds if met_running else now
        self._history, self._missed = info.history_id, False
        return True


class Miner:
    """The miner of one data folder."""

    def __init__(self, config: MinerConfig) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._board = BlockBoard()
        self._block_at = time.monotonic()
        self._redis_problem = ""
        gas_price = GasPrice.parse(config.chain.gas_price)
        self._notes = ChainNotes(gas_price, config.chain.block_seconds, time.time_ns)

    async def run(self) -> None:
        """Mines until SIGTERM or SIGINT."""
        config = self._config
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        require_writable("miner", config.data_dir)
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
            standings, seconds = Standings(len(nodes)), config.chain.query_timeout_seconds
            chain = CachedChain(nodes, redis, keys, timeout_seconds=seconds, standings=standings)
            stack.push_async_callback(chain.close)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            comet = CometClient(nodes, http, seconds, config.chain.block_seconds, standings, config.chain.id)
            await require_chain_id(chain, config.chain.id, self._stop)
            watch_nodes = await stack.enter_async_context(
                NodeWatch(nodes, http, config.chain.id, standings, timeout_seconds=seconds, told=self._notes.tell)
            )
            for path in set_damaged_aside(config.data_dir):
                metrics.ERRORS.labels("volume").inc()
                _LOG.error("a file was damaged and is %s now: what is needed of it is read again", path)
            mirror = stack.enter_context(Mirror(config.data_dir / "mirror"))
            audit = Audit(config.data_dir / "audit.sqlite")
            stack.callback(audit.close)
            pool = TriePool()
            stack.callback(pool.close)
            settlements = Settlements(comet, lambda: suppliers.addresses)
            watch = RedisWatch(redis, min(_REDIS_SETTLES_SECONDS, 3 * config.chain.block_seconds))
            suppliers = Suppliers(
                config, redis, keys, chain, comet, settlements, mirror, audit, pool, watch.settled, Reports(audit),
                peers.Peers(http, lambda: peer_urls(config, fleet.keeper)), Endpoints(time.time),
                DeadLetters(config.data_dir / "refused.sqlite"), watch.server_milliseconds,
                lambda: self._board.height,
            )  # fmt: skip
            fleet = Fleet(suppliers, self._board, config.chain.block_seconds)
            fleet.keeper = await stack.enter_async_context(shard_keeper(config, redis, keys, fleet))
            self._first_keys(suppliers)
            pulse = Pulse()
            admin = await serve_admin(
                config.admin_host, config.admin_port,
                health=lambda: {"status": "ok", "height": self._board.height, "role": _role(fleet)},
                report=lambda: self._report(suppliers, fleet), status=lambda: self._status(fleet, audit),
                problem=lambda: self._problem(suppliers), routes=peers.routes(mirror, audit),
            )  # fmt: skip
            stack.push_async_callback(admin.cleanup)
            if config.debug_port is not None:
                stack.push_async_callback((await Debug().serve(config.debug_port)).cleanup)
            refresher = CacheRefresher(redis, keys, chain, time.time, _refreshed)
            beside: Mapping[str, Callable[[], Awaitable[None]]] = {
                "comparing nodes": lambda: watch_nodes.run(max(1.0, config.chain.block_seconds / 2)),
                "looking at stakes": lambda: self._look_at_stakes(suppliers, fleet),
                "looking at endpoints": lambda: self._look_at_endpoints(suppliers, fleet),
                "figures": lambda: self._observe(chain, fleet, pulse),
                "retention": lambda: self._retain(audit, suppliers.reports),
                "cache news": CacheFollower(redis, keys, chain).run,
                "cache refresh": lambda: self._refresh(refresher, fleet),
            }
            async with asyncio.TaskGroup() as group:
                tasks = [
                    *(group.create_task(kept_up(name, loop)) for name, loop in beside.items()),
                    group.create_task(self._feed(comet, BlockPublisher(redis, keys), fleet).run()),
                    group.create_task(settlements.run()),
                    group.create_task(self._watch_redis(watch, fleet)),
                    group.create_task(self._end_of_damage(fleet)),
                    group.create_task(fleet.watch_keys()),
                    group.create_task(fleet.listen(WakeReader(redis, keys))),
                    group.create_task(fleet.follow()),
                    group.create_task(pulse.run()),
                ]
                await fleet.keeper.run(self._stop)
                await fleet.stop()
                for task in tasks:
                    task.cancel()

    async def _end_of_damage(self, fleet: Fleet) -> None:
        """Ends the miner when a file of its volume turns out to be damaged: the next start finds it set aside."""
        found = await fleet.damage
        if found.path:
            set_aside(Path(found.path))
        set_damaged_aside(self._config.data_dir)
        raise found

    def _first_keys(self, suppliers: Suppliers) -> None:
        """Raises ConfigurationError where a key is required and none is there."""
        suppliers.reload()
        if suppliers.addresses:
            return
        text = f"no supplier key is loaded from {self._config.keys_dir}"
        if self._config.keys_required:
            raise ConfigurationError(f"miner: {text}. Put one file per supplier there.")
        _LOG.warning("%s: waiting for one", text)

    def _feed(self, comet: CometClient, publisher: BlockPublisher, fleet: Fleet) -> BlockFeed:
        async def on_block(block: Block) -> None:
            now = time.monotonic()
            if self._board.height and now - self._block_at > _SLOW * self._config.chain.block_seconds:
                metrics.SLOW_BLOCKS.inc()
            self._block_at = now
            metrics.HEIGHT.set(block.height)
            self._notes.block(block)
            self._board.post(block)
            if fleet.keeper.leads:
                await publisher.publish(block)

        return BlockFeed(
            comet, on_block, poll_seconds=min(1.0, self._config.chain.block_seconds / 2),
            on_error=lambda error: _LOG.warning("block feed: %s", error),
        )  # fmt: skip

    async def _look_at_stakes(self, suppliers: Suppliers, fleet: Fleet) -> None:
        funds_at = float("-inf")
        while True:
            mine = list(fleet.running)
            await suppliers.look_at_stakes(mine)
            if mine and time.monotonic() - funds_at > _FUNDS_SECONDS:
                funds_at = time.monotonic()
                await suppliers.look_at_funds(mine)
                await self._notes.look(suppliers.chain, len(mine), os.cpu_count() or 1)
            await asyncio.sleep(max(_STAKES_SECONDS if mine else 1.0, _STAKE_PAUSE_SECONDS * len(mine)))

    async def _look_at_endpoints(self, suppliers: Suppliers, fleet: Fleet) -> None:
        """Of the suppliers that this miner mines for; sooner again while something is wrong."""
        while self._config.check_endpoints:
            mine = list(fleet.running)
            broken = await suppliers.look_at_endpoints(mine)
            await asyncio.sleep(_BROKEN_SECONDS if broken or not mine else _FUNDS_SECONDS)

    async def _refresh(self, refresher: CacheRefresher, fleet: Fleet) -> None:
        """The leader looks once a block whether what everybody caches has changed."""
        seen = 0
        while True:
            await self._board.wait(seen, max(1.0, self._config.chain.block_seconds))
            seen = self._board.height
            if fleet.keeper.leads:
                try:
                    async with asyncio.timeout(_REFRESH_SECONDS):
                        await refresher.refresh()
                except (RedisError, OSError, TimeoutError, ExceptionGroup) as error:
                    metrics.ERRORS.labels("cache refresh").inc()
                    _LOG.warning("cache refresh: %s", error)
            await asyncio.sleep(_REFRESH_PAUSE_SECONDS)

    async def _watch_redis(self, watch: RedisWatch, fleet: Fleet) -> None:
        while True:
            try:
                restarted = await watch.look()
                self._redis_problem = ""
                if restarted:
                    fleet.reread()
            except (LedgerError, RedisError, OSError, TimeoutError) as error:
                self._redis_problem = str(error) or type(error).__name__
                metrics.ERRORS.labels("redis").inc()
                _LOG.warning("Redis: %s", error)
            await asyncio.sleep(0.5)

    async def _observe(self, chain: CachedChain, fleet: Fleet, pulse: Pulse) -> None:
        """Figures of the whole process."""
        metrics.BUILD.labels(VERSION, platform.python_version()).set(1)
        seen = written = 0
        while True:
            await self._board.wait(seen, max(1.0, self._config.chain.block_seconds))
            seen = self._board.height
            stages = fleet.stages()
            for stage in Stage:
                metrics.SESSIONS.labels(stage.value).set(stages.get(stage.value, 0))
            sessions = [s for running in fleet.running.values() for s in running.supplier.sessions.values()]
            metrics.BEHIND.set(sum(session.behind for session in sessions))
            vitals = pulse.take()
            metrics.LOOP_LAG.set(vitals.loop_lag_seconds)
            metrics.TASKS.set(vitals.tasks)
            metrics.LAG.set(len(sessions))
            for source, number in chain.counters.taken():
                metrics.CACHE.labels(source).inc(number)
            metrics.LEASE_WRITES.inc(fleet.keeper.writes - written)
            written = fleet.keeper.writes

    async def _retain(self, audit: Audit, reports: Reports) -> None:
        """Forgets what is older than the policy says."""
        days = self._config.retention_days
        blocks = int(days * _DAY_SECONDS / self._config.chain.block_seconds)
        while True:
            try:
                reports.keep()
                more = self._board.height > blocks
                while more:  # a thousand at a time: others go on meanwhile
                    more = bool(audit.prune(self._board.height - blocks))
                    await asyncio.sleep(0.1)
            except sqlite3.Error as error:
                metrics.ERRORS.labels("retention").inc()
                _LOG.warning("retention: %s", error)
            await asyncio.sleep(_RETENTION_SECONDS)

    def _status(self, fleet: Fleet, audit: Audit) -> Mapping[str, Any]:
        sessions = {
            address: [
                {"session_id": i, "end": s.end, "sealed": s.seal is not None, "service": s.header.service_id}
                for i, s in running.supplier.sessions.items()
            ]
            for address, running in fleet.running.items()
        }
        shards = {str(shard): epoch for shard, epoch in fleet.epochs.items()}
        return {
            "height": self._board.height, "sessions": sessions, "outcomes": audit.recent(_SHOWN_OUTCOMES),
            "shards": shards, "leader": fleet.keeper.leads, "members": sorted(fleet.keeper.members),
            "nodes": self._notes.nodes(),
        }  # fmt: skip

    def _report(self, suppliers: Suppliers, fleet: Fleet) -> Mapping[str, Any]:
        problem = self._problem(suppliers)
        return {
            "component": "miner", "role": _role(fleet), "keys": suppliers.digest, "addresses": suppliers.addresses,
            "owned": sorted(fleet.running), "shards": len(fleet.epochs), "leader": fleet.keeper.leads,
            "height": self._board.height, "problems": [problem] if problem else [],
            "redis": self._redis_problem, "chain": self._notes.rows(), "suppliers": suppliers.reports.rows(),
            "looked": fleet.looked(),
        }  # fmt: skip

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


def _refreshed(result: str) -> None:
    metrics.REFRESHED.labels(result).inc()


def _role(fleet: Fleet) -> str:
    return "active" if fleet.epochs else "standby"
