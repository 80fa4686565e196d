"""Report the metrics of a whole miner process."""

import asyncio
from typing import Final

from redis.asyncio import Redis

from pocket.chain_cache.cached_client import CachedChain
from pocket.redis_store.connection import pool_usage
from pocket.runtime.process_stats import LoopLagMonitor
from pocket.runtime.ticks import sleep_to_tick
from pocket.runtime.version import build_labels
from pocket_miner import miner_metrics
from pocket_miner.sessions.stages import Stage
from pocket_miner.storage.outcomes import SessionOutcome
from pocket_miner.suppliers.fleet import SupplierManager

_SECONDS: Final = 5.0


async def report_metrics(chain: CachedChain, fleet: SupplierManager, pulse: LoopLagMonitor, redis: "Redis") -> None:
    """Update the metrics every five seconds."""
    miner_metrics.BUILD.labels(*await asyncio.to_thread(build_labels)).set(1)
    miner_metrics.start_at_zero(SessionOutcome)
    written = 0
    while True:
        stages = fleet.stages()
        for stage in Stage:
            miner_metrics.SESSIONS.labels(stage.value).set(stages.get(stage.value, 0))
        sessions = [s for running in fleet.running.values() for s in running.supplier.sessions.values()]
        miner_metrics.BEHIND.set(sum(session.behind for session in sessions))
        vitals = pulse.reset()
        miner_metrics.LOOP_LAG.set(vitals.loop_lag_seconds)
        miner_metrics.TASKS.set(vitals.tasks)
        miner_metrics.show_connections(pool_usage(redis))
        miner_metrics.LAG.set(len(sessions))
        for source, number in chain.counters.taken():
            miner_metrics.CACHE.labels(source).inc(number)
        miner_metrics.LEASE_WRITES.inc(fleet.keeper.writes - written)
        written = fleet.keeper.writes
        await sleep_to_tick(_SECONDS)
