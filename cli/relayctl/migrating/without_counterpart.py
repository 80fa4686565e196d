"""Settings of the Go relay miner without a counterpart, each with the reason."""

from collections.abc import Mapping
from typing import Final

_STREAMS: Final = "there are no consumer groups: streams are read directly (docs/architecture.md)"
_LEASES: Final = "Leases are used, with durations that fit spec.chain.blockSeconds"
_INCLUSION: Final = "inclusion is read from the chain at every block, and what is missing is sent again"
_LIFETIME: Final = "the lifetime of a transaction follows the measured block time"
_UNTIL_SETTLED: Final = "a session's data lives until it is settled"
_AUTOMATIC: Final = "sized automatically"
_TRANSPORT: Final = "connections to backends have dialTimeoutSeconds, timeoutSeconds and maxConnections, nothing else"
_LOGS: Final = "logs are JSON lines on standard error"
_BALANCE: Final = "balances and runways are metrics, and the alerts in the PrometheusRule have the thresholds"

REASONS: Final[Mapping[str, str]] = {
    "redis.namespace": "keys have one prefix, <namespace>-<name>; let the Go miner finish its sessions before it stops",
    "redis.consumer_name": _STREAMS,
    "redis.claim_idle_timeout_ms": _STREAMS,
    "redis.pool_size": "connections are bounded by what a process needs",
    "redis.min_idle_conns": "connections are opened when they are needed",
    "redis.pool_timeout_seconds": "every Redis command has a deadline of its own",
    "redis.conn_max_idle_time_seconds": "idle connections stay open",
    "metrics": "metrics are on the admin port 9090 of every pod, always on",
    "health_check": "health and readiness are on the admin port 9090 of every pod, always on",
    "ping": "health and readiness are on the admin port 9090 of every pod, always on",
    "pprof.addr": "profiles are on localhost of the pods, from port 6060",
    "logging.format": _LOGS,
    "logging.output": _LOGS,
    "logging.async": "logs are written as they come",
    "logging.async_buffer_size": "logs are written as they come",
    "logging.async_poll_interval": "logs are written as they come",
    "logging.sampling": "nothing is sampled: a line is written for what happens seldom, not for each relay",
    "logging.sampling_initial": "nothing is sampled",
    "logging.sampling_thereafter": "nothing is sampled",
    "logging.enable_caller": "each line has its logger's name",
    "simulation": "its identities pin other data: declare them under spec.relayer.simulation (docs/relaying.md)",
    "cache_warmup": "caches fill on demand, with one query per key at a time",
    "known_applications": "caches fill on demand, with one query per key at a time",
    "http_transport": _TRANSPORT,
    "timeout_profiles": _TRANSPORT,
    "pool_profiles": _TRANSPORT,
    "relay_meter.redis_key_prefix": "keys have one prefix, <namespace>-<name>",
    "relay_meter.cache_ttl": "a session's budget is deleted with the session",
    "transaction.gas_limit": "gas is simulated for every transaction, times gasAdjustment",
    "transaction.disable_claim_batching": "claims are always batched, and split where a batch is refused",
    "transaction.disable_proof_batching": "proofs are always batched, and split where a batch is refused",
    "transaction.batching": "claims and proofs are always batched, and split where a batch is refused",
    "transaction.disable_pre_proof_claim_verification": "the claim on chain is always compared before a proof",
    "transaction.disable_inclusion_reconciler": _INCLUSION,
    "transaction.inclusion_reconciler_max_concurrent": _INCLUSION,
    "transaction.inclusion_reconciler_per_group_timeout_ms": _INCLUSION,
    "transaction.max_rebroadcasts": "it is sent again until its window closes",
    "transaction.rebroadcast_safety_blocks": _INCLUSION,
    "transaction.tx_timeout_min_seconds": _LIFETIME,
    "transaction.tx_timeout_max_seconds": _LIFETIME,
    "transaction.tx_timeout_default_seconds": _LIFETIME,
    "leader_election": _LEASES,
    "supplier_claiming": "suppliers are divided into shards (spec.miner.shards), one Lease each",
    "session_lifecycle": "sessions are decided at every block, without a queue",
    "worker_pools": _AUTOMATIC,
    "smst_live_root_checkpoint_interval": "no trie node is stored, so there is no checkpoint",
    "smt_store_path": "no trie node is stored: relays are on the miner's volume (spec.miner.storage)",
    "submission_tracking_ttl": "the audit trail keeps every outcome for spec.miner.retentionDays",
    "deduplication_ttl_blocks": "a relay read twice is one leaf: nothing is deduplicated",
    "supplier_reconcile_interval_seconds": "stakes are refreshed continuously",
    "balance_monitor": _BALANCE,
    "settlement_monitor": "settlements are always monitored",
    "block_health_monitor": "the age of the last block is part of readiness and has an alert",
    "hot_reload_enabled": "keys, services and backends are always reloaded without restart",
    "session_ttl": _UNTIL_SETTLED,
    "cache_ttl": _UNTIL_SETTLED,
    "batch_size": _AUTOMATIC,
    "ack_batch_size": "nothing is acknowledged",
    "suppliers": "the Go relayer ignores it, too",
    "services.*.backends.*.health_check.headers": "probes have the headers of the backend itself and no others",
    "services.*.backends.*.health_check.content_type": "a body that begins with { or [ is sent as JSON",
    "services.*.backends.*.health_check": "the check is not enabled there",
    "services.*.backends.*.base_path": "gRPC and WebSocket relays have a path of their own",
    "services.*.backends.*.max_retries": "a WebSocket is not opened twice",
}


def reason_of(path: str) -> str:
    """Return why a setting has no counterpart, by the longest path that covers it.

    The result is empty if it is not known.
    """
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        if reason := REASONS.get(_general(parts[:length])):
            return reason
    return ""


def _general(parts: list[str]) -> str:
    """Return a path with `*` for the names of services and transports."""
    if parts[0] == "services":
        parts = ["*" if number in (1, 3) else part for number, part in enumerate(parts)]
    return ".".join(parts)
