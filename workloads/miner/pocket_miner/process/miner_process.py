"""Run one miner process: its phases, its background loops and its reports."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from pocket.api.workload import MinerConfig
from pocket.chain.block_feed import BlockFeed
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain.fallback_blocks import FallbackBlocks
from pocket.chain.model import Block
from pocket.chain.node_health import NodeHealthTable
from pocket.chain.node_monitor import NodeMonitor
from pocket.chain_cache.cached_client import CachedChain
from pocket.chain_cache.dependencies import await_dependencies
from pocket.chain_cache.invalidation import CacheRefresher, InvalidationSubscriber
from pocket.chain_cache.shared_heights import LatestBlockPublisher
from pocket.coordination.elector import timing_for_blocks
from pocket.errors import ConfigurationError
from pocket.protocol.transactions.build import GasPrice
from pocket.redis_store.notifications import NotificationReader
from pocket.redis_store.prefix_owner import PrefixOwner
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisStoreError, RedisUnavailable
from pocket.runtime.debug_server import Debug
from pocket.runtime.process_stats import LoopLagMonitor
from pocket.runtime.public_urls import PublicUrlChecker
from pocket.runtime.ticks import sleep_to_tick
from pocket_miner import miner_metrics
from pocket_miner.ingest import peers
from pocket_miner.ownership.ownership import peer_urls, serves_peers, shard_keeper
from pocket_miner.ownership.redis_watch import RedisWatch
from pocket_miner.process.miner_platform import MinerPlatform
from pocket_miner.process.process_metrics import report_metrics
from pocket_miner.process.process_status import MinedParts, ProcessStatus
from pocket_miner.process.retention import delete_old_outcomes
from pocket_miner.process.supervise import running_loops, supervise
from pocket_miner.settlement.event_reader import SettlementReader
from pocket_miner.status.chain_diagnostics import ChainDiagnostics
from pocket_miner.status.readiness import Phase, Readiness
from pocket_miner.status.report import Reports
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import quarantine, quarantine_corrupted
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.storage.volume import Volume, opened, owned
from pocket_miner.storage.volume_probe import VolumeProbe
from pocket_miner.suppliers.factory import SupplierFactory
from pocket_miner.suppliers.fleet import SupplierManager
from pocket_miner.suppliers.latest_block import LatestBlock, longest_wait
from pocket_miner.suppliers.read_only_volume import until_writable
from pocket_miner.suppliers.reported_stakes import StakePace, refresh_stakes
from pocket_miner.suppliers.sealed_work import SealedWork
from pocket_miner.suppliers.unknown_claims import UnknownClaims

_LOG: FilteringBoundLogger = structlog.get_logger()
_REDIS_BLOCKS = 2  # the time between two inspections of Redis
_REDIS_SECONDS = (0.5, 3.0)  # its bounds
_REPLAY_SECONDS = 60.0  # for which a relayer may be stopped that has relays which Redis lost
_STAKES_SECONDS = 5.0
_FUNDS_SECONDS = 300.0
_BROKEN_SECONDS = 30.0
_REFRESH_SECONDS = 30.0
_VOLUME_SECONDS = 5.0
_REFRESH_PAUSE_SECONDS = 0.5  # with blocks of a second, the next one is then waited for
_SLOW = 1.5


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a miner. None of them waits for anything while it is built."""

    redis: "Redis"
    keys: RedisKeys
    chain: CachedChain
    comet: CometClient
    nodes: NodeMonitor
    settlements: SettlementReader
    redis_watch: RedisWatch
    suppliers: SupplierFactory
    fleet: SupplierManager
    probe: VolumeProbe
    owner: PrefixOwner


class MinerProcess:
    """The miner of one data folder.

    It starts in phases, so that /health is answered whatever it waits for: lock the folder, serve, open the volume,
    wait for Redis and a chain node, mine.
    """

    def __init__(self, config: MinerConfig, platform: MinerPlatform | None = None) -> None:
        self._config = config
        self._platform = platform or MinerPlatform()
        self._stop = asyncio.Event()
        self._board = LatestBlock()
        self._readiness = Readiness(config.chain.block_seconds, self._platform.clock)
        self._volume: Volume | None = None
        self._parts: _Parts | None = None
        self._blocks: BlockFeed | None = None
        gas_price = GasPrice.parse(config.chain.gas_price)
        self._diagnostics = ChainDiagnostics(gas_price, config.chain.block_seconds, self._platform.wall_nanoseconds)
        self._status = ProcessStatus(
            config, self._board, self._readiness, self._diagnostics, self._mined_parts, lambda: self._volume,
            self._platform.clock,
        )  # fmt: skip

    async def run(self) -> None:
        """Mine until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(owned(self._config.data_dir))
            await self._serve(stack)
            files = opened(self._config.data_dir, self._platform.unique, self._readiness.volume_away, self._stop)
            self._volume = await stack.enter_async_context(files)
            self._parts = parts = await self._assemble(stack, self._volume)
            await self._first_keys(parts.suppliers)
            async with running_loops(self._without_redis(parts)):
                if self._volume.read_only:
                    folder, keeper = self._config.data_dir, parts.fleet.keeper
                    await until_writable(folder, keeper, self._readiness, self._stop)
                    return
                await self._await_dependencies(parts)
                if not self._stop.is_set():
                    await self._mine(parts)

    async def _serve(self, stack: contextlib.AsyncExitStack) -> None:
        """Serve the admin port and any debug port until the stack is closed."""
        to_peers = peers.routes(self._stores) if serves_peers(self._config) else []
        admin = await self._platform.serve_admin(
            self._config.admin_host, self._config.admin_port,
            health=self._status.health, report=self._status.report, status=self._status.status,
            problems=self._status.problems, routes=[*to_peers, *self._status.routes()],
        )  # fmt: skip
        stack.push_async_callback(admin.cleanup)
        if self._config.debug_port is not None:
            stack.push_async_callback((await Debug().serve(self._config.debug_port)).cleanup)

    def _stores(self) -> tuple[RelayStore, Audit] | None:
        return (self._volume.relay_store, self._volume.audit) if self._volume is not None else None

    def _mined_parts(self) -> MinedParts | None:
        parts = self._parts
        return None if parts is None else MinedParts(parts.suppliers, parts.fleet, parts.redis_watch)

    async def _assemble(self, stack: contextlib.AsyncExitStack, volume: Volume) -> _Parts:
        """Build the parts.

        Raises ConfigurationError.
        """
        config, platform = self._config, self._platform
        redis = platform.connect_redis(config.redis_url, config.redis_access)
        stack.push_async_callback(redis.aclose)
        addresses = [NodeAddress.parse(node.grpc, node.rpc) for node in config.chain.nodes]
        keys = RedisKeys(config.prefix)
        node_health, seconds = NodeHealthTable(len(addresses)), config.chain.query_timeout_seconds
        chain = CachedChain(
            addresses, redis, keys, timeout_seconds=seconds, node_health=node_health, clock=platform.clock,
            wall_clock=platform.wall_seconds, channel=platform.channel, rng=platform.rng,
            on_query=miner_metrics.observe_query,
        )  # fmt: skip
        chain.latest_height = lambda: self._board.height
        stack.push_async_callback(chain.close)
        http = await stack.enter_async_context(platform.http())
        comet = CometClient(
            addresses, http, seconds, config.chain.block_seconds, node_health, config.chain.id, clock=platform.clock,
            on_query=miner_metrics.observe_query,
        )  # fmt: skip
        nodes = await stack.enter_async_context(
            NodeMonitor(
                addresses, http, config.chain.id, node_health, timeout_seconds=seconds,
                on_assessment=self._diagnostics.on_node_health, channel=platform.channel, clock=platform.clock,
            )
        )  # fmt: skip
        pool = platform.tries()
        stack.callback(pool.close)
        settlements = SettlementReader(comet, lambda: suppliers.addresses)
        watch = RedisWatch(redis, platform.clock)

        async def redis_settled(blocks: int) -> bool:
            return await watch.still_settled(min(_REPLAY_SECONDS, blocks * self._measured_block_seconds()))

        reports = await asyncio.to_thread(Reports, volume.audit)
        suppliers = SupplierFactory(
            config, redis, keys, chain, comet, settlements, volume.relay_store, volume.audit, pool, redis_settled,
            reports, peers.Peers(http, lambda: peer_urls(config, fleet.keeper)),
            PublicUrlChecker(platform.wall_seconds), volume.dead_letters, watch.server_milliseconds,
            watch.history_of, lambda: self._board.height, lambda: volume.reserve.full,
            self._measured_block_seconds, platform,
        )  # fmt: skip
        fleet = SupplierManager(suppliers, self._board, config.chain.block_seconds, platform.rng)
        lease_seconds = timing_for_blocks(config.chain.block_seconds).lease
        probe = VolumeProbe(config.data_dir, volume.audit, lease_seconds, platform.clock)
        self._readiness.volume_hangs = lambda: probe.problem
        keeper = shard_keeper(
            config, volume.member, redis, keys, fleet, platform, platform.connect_kube, lambda: not probe.hangs
        )
        fleet.keeper = await stack.enter_async_context(keeper)
        owner = PrefixOwner(redis, keys, f"{config.namespace}/{config.name}")
        return _Parts(redis, keys, chain, comet, nodes, settlements, watch, suppliers, fleet, probe, owner)

    async def _await_dependencies(self, parts: _Parts) -> None:
        """Wait until Redis is usable and a node of the right chain answers.

        The wait ends when the miner is stopped. Raises RedisNotDurable and ConfigurationError, which only a change of
        the configuration fixes.
        """
        self._readiness.enter(Phase.WAITING)

        def redis_waits(error: RedisUnavailable | None) -> None:
            self._readiness.redis = str(error or "")
            if error is not None:
                parts.redis_watch.missed()

        await await_dependencies(
            parts.redis, self._config.redis_url, parts.chain, self._config.chain.id, self._stop, redis_waits,
            self._readiness.chain_away, self._platform.rng,
            parts.owner.claim,
        )  # fmt: skip

    async def _mine(self, parts: _Parts) -> None:
        """Run all loops until the stop, then release the shards.

        Raises VolumeCorrupted.
        """
        self._readiness.enter(Phase.MINING)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in (*self._background_loops(parts), *self._loops(parts))]
            await parts.fleet.keeper.run(self._stop)
            self._readiness.enter(Phase.STOPPING)
            await parts.fleet.stop()
            for task in tasks:
                task.cancel()
        await self._status.hand_over()

    def _without_redis(self, parts: _Parts) -> list[Coroutine[Any, Any, None]]:
        """Return the loops that need neither Redis nor a Lease."""
        fleet = parts.fleet
        feed = self._feed(parts, LatestBlockPublisher(parts.redis, parts.keys))
        parts.comet.block_seconds = self._measured_block_seconds
        self._blocks = feed
        sealed = SealedWork(
            parts.suppliers, self._board, fleet.params, self._config.chain.block_seconds,
            lambda: self._owners_known(fleet), lambda: fleet.running, max(2.0, self._config.chain.block_seconds),
            fleet.unowned,
        )  # fmt: skip
        loops = [supervise("block feed", feed.run), supervise("sealed sessions", sealed.run)]
        signer = parts.suppliers.signer
        return loops if signer is None else [*loops, supervise("signer", signer.run)]

    def _measured_block_seconds(self) -> float:
        """Return the measured seconds between blocks, or else the expected ones."""
        return self._config.chain.block_seconds if self._blocks is None else self._blocks.block_seconds

    def _owners_known(self, fleet: SupplierManager) -> bool:
        """Return True if the owners of shards are known.

        On a read-only volume, another miner must have taken the shards as well.
        """
        keeper = fleet.keeper
        if self._volume is not None and self._volume.read_only:
            return keeper.is_recent and keeper.taken_elsewhere
        return keeper.is_recent

    def _loops(self, parts: _Parts) -> list[Coroutine[Any, Any, None]]:
        """Return the loops that mining cannot do without.

        One that fails is restarted as well: its defect must not end the claims and proofs of all suppliers.
        """
        fleet = parts.fleet
        loops: Mapping[str, Callable[[], Awaitable[None]]] = {
            "settlements": parts.settlements.run,
            "Redis": lambda: self._watch_redis(parts.redis_watch, fleet),
            "keys": fleet.watch_keys,
            "notifications": lambda: fleet.listen(NotificationReader(parts.redis, parts.keys)),
            "standbys": fleet.follow,
            "volume probe": parts.probe.run,
        }
        supervised = [supervise(name, loop) for name, loop in loops.items()]
        return [self._stop_on_corruption(fleet), parts.owner.run(), *supervised]

    def _background_loops(self, parts: _Parts) -> list[Coroutine[Any, Any, None]]:
        """Return the supervised background loops: one that fails is restarted."""
        platform = self._platform
        pulse = LoopLagMonitor(platform.clock)
        refresher = CacheRefresher(parts.redis, parts.keys, parts.chain, platform.wall_seconds, _refreshed)
        loops: Mapping[str, Callable[[], Awaitable[None]]] = {
            "node monitor": lambda: parts.nodes.run(max(1.0, self._config.chain.block_seconds / 2), platform.rng),
            "stakes": lambda: self._refresh_stakes(parts.suppliers, parts.fleet),
            "public URLs": lambda: self._check_public_urls(parts.suppliers, parts.fleet),
            "metrics": lambda: report_metrics(parts.chain, parts.fleet, pulse, parts.redis),
            "volume": lambda: self._watch_volume(self._volume),
            "retention": lambda: delete_old_outcomes(
                parts.suppliers.audit, parts.suppliers.reports, self._config, lambda: self._board.height
            ),
            "cache invalidation": InvalidationSubscriber(
                parts.redis, parts.keys, parts.chain, rng=platform.rng.random
            ).run,
            "cache refresh": lambda: self._refresh(refresher, parts.fleet),
            "unknown claims": lambda: UnknownClaims(parts.chain).run(
                self._board,
                lambda: [worker.supplier for worker in parts.fleet.running.values()],
                longest_wait(self._config.chain.block_seconds),
            ),
            "event loop lag": pulse.run,
        }
        return [supervise(name, loop) for name, loop in loops.items()]

    async def _stop_on_corruption(self, fleet: SupplierManager) -> None:
        """Stop the miner when a file of its volume is corrupt.

        The file is quarantined first.
        """
        corruption = await fleet.corruption
        if corruption.path:
            await asyncio.to_thread(quarantine, Path(corruption.path))
        await asyncio.to_thread(quarantine_corrupted, self._config.data_dir)
        raise corruption

    async def _first_keys(self, suppliers: SupplierFactory) -> None:
        """Load the keys.

        Raises ConfigurationError if one is required and none is there.
        """
        await asyncio.to_thread(suppliers.keyring.reload)
        if suppliers.addresses:
            return
        text = f"no supplier key is loaded from {self._config.keys_dir}"
        if self._config.keys_required:
            raise ConfigurationError(f"miner: {text}. Put one file per supplier there.")
        _LOG.warning("waiting for a key", problem=text)

    def _feed(self, parts: _Parts, publisher: LatestBlockPublisher) -> BlockFeed:
        async def on_block(block: Block) -> None:
            if self._board.height and self._readiness.since_block > _SLOW * self._config.chain.block_seconds:
                miner_metrics.SLOW_BLOCKS.inc()
            self._readiness.block()
            miner_metrics.HEIGHT.set(block.height)
            self._diagnostics.block(block)
            self._board.publish(block)
            if parts.fleet.keeper.leads:
                await publisher.publish(block)

        chain, clock = self._config.chain, self._platform.clock
        blocks = FallbackBlocks(parts.comet, parts.chain, chain.id, block_seconds=chain.block_seconds, clock=clock)
        return BlockFeed(
            blocks, on_block, poll_seconds=min(1.0, chain.block_seconds / 2), clock=clock,
            on_error=lambda error: _LOG.warning("block feed failed, retrying", error=error), rng=self._platform.rng,
        )  # fmt: skip

    async def _refresh_stakes(self, suppliers: SupplierFactory, fleet: SupplierManager) -> None:
        funds_at, clock, pace = float("-inf"), self._platform.clock, StakePace(self._config.chain.block_seconds)
        while True:
            mine = list(fleet.running)
            if pace.is_due(mine, clock(), busy=any(one.supplier.sessions for one in fleet.running.values())):
                steady = await refresh_stakes(suppliers.reports, suppliers.chain.direct.supplier, mine)
                pace.queried(mine, clock(), steady=steady)
            if mine and clock() - funds_at > _FUNDS_SECONDS:
                funds_at = clock()
                await suppliers.refresh_funds(mine)
                await self._diagnostics.refresh(suppliers.chain)
            await sleep_to_tick(_STAKES_SECONDS if mine else 1.0)

    async def _check_public_urls(self, suppliers: SupplierFactory, fleet: SupplierManager) -> None:
        """Check the public URLs of mined suppliers, more often while one has a problem."""
        while self._config.check_endpoints:
            mine = list(fleet.running)
            broken = await suppliers.check_public_urls(mine)
            await asyncio.sleep(_BROKEN_SECONDS if broken or not mine else _FUNDS_SECONDS)

    async def _refresh(self, refresher: CacheRefresher, fleet: SupplierManager) -> None:
        """Refresh the shared chain cache once per block while this miner is the leader."""
        seen = 0
        while True:
            await self._board.wait_newer(seen, longest_wait(self._config.chain.block_seconds))
            seen = self._board.height
            if fleet.keeper.leads:
                try:
                    async with asyncio.timeout(_REFRESH_SECONDS):
                        await refresher.refresh()
                except (RedisStoreError, TimeoutError, ExceptionGroup) as error:
                    miner_metrics.ERRORS.labels("cache refresh").inc()
                    _LOG.warning("cache refresh failed, retrying", error=error)
            await asyncio.sleep(_REFRESH_PAUSE_SECONDS)

    async def _watch_redis(self, watch: RedisWatch, fleet: SupplierManager) -> None:
        while True:
            try:
                changed = await watch.poll()
                self._readiness.redis = watch.problem
                if changed:
                    fleet.reread(changed)
            except RedisStoreError as error:
                self._readiness.redis = str(error) or type(error).__name__
                miner_metrics.ERRORS.labels("redis").inc()
                _LOG.warning("Redis unavailable, retrying", error=error)
            shortest, longest = _REDIS_SECONDS
            await sleep_to_tick(max(shortest, min(longest, _REDIS_BLOCKS * self._config.chain.block_seconds)))

    async def _watch_volume(self, volume: Volume | None) -> None:
        """Measure the volume, warn long before it is full and manage its reserve."""
        while volume is not None:
            space = await asyncio.to_thread(volume.reserve.maintain)
            if space is not None:
                for kind, size in (("total", space.total), ("free", space.free), ("reserved", space.reserved)):
                    miner_metrics.VOLUME.labels(kind).set(size)
                if space.problem and space.problem != self._readiness.volume:
                    _LOG.warning("volume is filling up", problem=space.problem)
                self._readiness.volume, self._readiness.space = space.problem, space
            if ends := await asyncio.to_thread(volume.relay_store.reopened):
                _LOG.warning("relays can be read from the volume again, restarting the miner", session_ends=ends)
                self._stop.set()
            await sleep_to_tick(_VOLUME_SECONDS)


def _refreshed(result: str) -> None:
    miner_metrics.REFRESHED.labels(result).inc()
