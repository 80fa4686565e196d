"""Metrics that a worker reads from its parts."""

from typing import Final

from redis.asyncio import Redis

from pocket.chain_cache.cached_client import CachedChain
from pocket.chain_cache.shared_heights import LatestBlockWatcher
from pocket.redis_store.connection import pool_usage
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket.runtime.process_stats import LoopLagMonitor
from pocket.runtime.ticks import sleep_to_tick
from pocket.runtime.version import build_labels
from pocket_relayer import relayer_metrics
from pocket_relayer.backends.service_registry import ServiceRegistry
from pocket_relayer.limits.memory_trimming import MemoryTrimmer, system_trim
from pocket_relayer.process.resting_pace import RestingPace
from pocket_relayer.transports.client_connections import Connections

_OBSERVE_SECONDS: Final = 1.0


async def show_metrics(
    recorder: RelayRecorder, latest_block: LatestBlockWatcher, log: WriteAheadLog, chain: CachedChain,
    registry: ServiceRegistry, loop_lag: LoopLagMonitor, connections: Connections, redis: Redis,
) -> None:  # fmt: skip
    """Set the metrics of a worker once a second.

    While it serves nothing, they are set every few seconds.
    """
    trimming = MemoryTrimmer(system_trim())
    relayer_metrics.BUILD.labels(*build_labels()).set(1)
    pace = RestingPace()
    while True:
        await trimming.observe(connections.memory.used)
        if not pace.is_due((
            connections.open, connections.memory.used, registry.in_flight, recorder.waiting, recorder.counters.appended,
        )):  # fmt: skip
            await sleep_to_tick(_OBSERVE_SECONDS)
            continue
        relayer_metrics.HEIGHT.set(latest_block.height)
        relayer_metrics.WAITING.set(recorder.waiting)
        relayer_metrics.IN_FLIGHT.set(registry.in_flight)
        for (service, kind), number in registry.unhealthy().items():
            relayer_metrics.UNHEALTHY.labels(service, kind).set(number)
        relayer_metrics.show_connections(registry.connections(), pool_usage(redis))
        vitals = loop_lag.reset()
        relayer_metrics.LOOP_LAG.set(vitals.loop_lag_seconds)
        relayer_metrics.RESIDENT.set(vitals.resident_bytes)
        relayer_metrics.TASKS.set(vitals.tasks)
        relayer_metrics.OPEN.set(connections.open)
        relayer_metrics.HELD.set(connections.memory.used)
        relayer_metrics.LOG_BYTES.set(log.size)
        relayer_metrics.LOG_DAMAGED.set(log.damaged)
        relayer_metrics.LOG_DAMAGED_RECORDS.set(log.damaged_records)
        for source, number in chain.counters.taken():
            relayer_metrics.CACHE.labels(source).inc(number)
        await sleep_to_tick(_OBSERVE_SECONDS)
