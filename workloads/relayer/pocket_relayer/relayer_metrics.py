"""Metric families of the relayer. Labels stay of low cardinality."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import Counter, Gauge, Histogram

from pocket.chain.node_health import NodeAssessment, NodeHealth
from pocket.keys.keyring import Keyring
from pocket.redis_store.connection import PoolUsage


class Unrecorded(StrEnum):
    """Why a relay that a backend answered was not recorded, as the metric names it."""

    FULL = "full"
    """The queue of relays to record was full."""
    SESSION_CLOSED = "session_closed"
    """The session was closed: it was too late to claim the relay."""
    LOG = "log"
    """The write-ahead log could not be written."""
    UNAVAILABLE = "unavailable"
    """Redis did not accept the relay in time."""


RECEIVED = Counter("pocket_relayer_relays_received_total", "Relays received.", ["service", "rpc_type"])
SERVED = Counter(
    "pocket_relayer_relays_served_total", "Relays answered with a signed response.", ["service", "rpc_type"]
)
MINED = Counter("pocket_relayer_relays_mined_total", "Relays recorded in Redis.", ["service"])
NOT_APPLICABLE = Counter(
    "pocket_relayer_relays_skipped_difficulty_total", "Served relays that do not meet the difficulty.", ["service"]
)
UNPROVABLE = Counter(
    "pocket_relayer_relays_unprovable_total",
    "Relays served but not mined because no proof could hold them.",
    ["service"],
)
REJECTED = Counter(
    "pocket_relayer_relays_rejected_total", "Relays rejected.", ["service", "transport", "reason"]
)  # fmt: skip
METERED = Counter(
    "pocket_relayer_relays_metered_total",
    "Charges of session budgets: charged, over_budget, replayed, rate_limited, unavailable.",
    ["service", "outcome"],
)  # fmt: skip
UNDECLARED = Counter(
    "pocket_relayer_undeclared_transport_served_total",
    "Relays over a transport that the supplier's stake does not declare.", ["service", "rpc_type"],
)  # fmt: skip
CONNECTIONS = Gauge("pocket_relayer_websockets", "Open WebSocket bridges.", ["service"], multiprocess_mode="livesum")
DUPLICATES = Counter(
    "pocket_relayer_relays_duplicate_total",
    "Relays whose request and response equal a mined one: one leaf, paid once.", ["service"],
)  # fmt: skip
NOT_RECORDED = Counter("pocket_relayer_relays_not_recorded_total", "Relays that could not be recorded.", ["reason"])
REPLAYS = Counter("pocket_relayer_ledger_replays_total", "Replays of the write-ahead log.", ["reason"])
RESTARTS = Counter(
    "pocket_relayer_background_task_restarts_total", "Restarts of background tasks after an unexpected error.", ["task"]
)
LATENCY = Histogram(
    "pocket_relayer_relay_seconds", "Duration of a relay in seconds.", ["service"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
BACKEND_LATENCY = Histogram(
    "pocket_relayer_backend_seconds", "Backend's share of a relay in seconds.", ["service"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
STAGES = Histogram(
    "pocket_relayer_stage_seconds",
    "Stages of a relay without the backend's share, in seconds: admitted (checks, signature, budget), recorded.",
    ["stage"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
)  # fmt: skip
ANSWERS = Counter(
    "pocket_relayer_backend_answers_total",
    "Results of backend calls after retries: success, client_error (4xx), or the reason of the rejection.",
    ["service", "outcome"],
)  # fmt: skip
QUERIES = Histogram(
    "pocket_relayer_chain_query_seconds",
    "Queries of chain nodes, one observation for each node: answered, or the class of the failure.", ["result"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)  # fmt: skip
RETRIES = Counter("pocket_relayer_backend_retries_total", "Retries at another endpoint.", ["service"])
UNHEALTHY = Gauge(
    "pocket_relayer_backend_endpoints_unhealthy",
    "Endpoints without requests because of failed checks or an open circuit breaker.",
    ["service", "rpc_type"], multiprocess_mode="livemax",
)  # fmt: skip
CHECKS = Counter(
    "pocket_relayer_health_checks_total", "Active health checks of endpoints: passed, failed.", ["service", "result"]
)
BACKEND_CONNECTIONS = Gauge(
    "pocket_relayer_backend_connections",
    "Connections to the backends of a service, of all workers: used by a relay, or idle (plain HTTP only).",
    ["service", "state"], multiprocess_mode="livesum",
)  # fmt: skip
BACKEND_AWAITED = Gauge(
    "pocket_relayer_backend_connections_awaited", "Relays that wait for a connection to a backend, of all workers.",
    ["service"], multiprocess_mode="livesum",
)  # fmt: skip
REDIS_CONNECTIONS = Gauge(
    "pocket_relayer_redis_connections", "Connections to Redis in the pools of all workers: used or idle.", ["state"],
    multiprocess_mode="livesum",
)  # fmt: skip
LOOP_LAG = Gauge(
    "pocket_relayer_event_loop_lag_seconds", "Worst delay of a timer in the last second, of any worker.",
    multiprocess_mode="livemax",
)  # fmt: skip
HELD = Gauge(
    "pocket_relayer_held_bytes", "Memory of requests, messages and responses of connections, of all workers.",
    multiprocess_mode="livesum",
)  # fmt: skip
DROPPED = Counter(
    "pocket_relayer_dropped_total",
    "Unfinished requests and unread responses that were dropped because memory was used up.",
)
OPEN = Gauge("pocket_relayer_open_connections", "Open connections of all workers.", multiprocess_mode="livesum")
CLOSED = Counter(
    "pocket_relayer_closed_connections_total",
    "Closed connections: too_many (without a served relay), refused (no place left), not_read "
    "(the client reads nothing), flood (HTTP/2 frames).",
    ["reason"],
)
RESIDENT = Gauge("pocket_relayer_resident_bytes", "Memory of all workers.", multiprocess_mode="livesum")
TASKS = Gauge("pocket_relayer_tasks", "asyncio tasks of all workers.", multiprocess_mode="livesum")
BUILD = Gauge(
    "pocket_relayer_build_info", "1, with the versions.", ["version", "commit", "python"], multiprocess_mode="livemax"
)
SIMULATED = Counter(
    "pocket_relayer_simulated_relays_total",
    "Simulated relays: served, or the reason of the rejection. No other metric counts them.",
    ["service", "transport", "supplier", "result"],
)  # fmt: skip
SIMULATED_LATENCY = Histogram(
    "pocket_relayer_simulated_relay_seconds", "Duration of a simulated relay in seconds.", ["service", "transport"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
CACHE = Counter(
    "pocket_relayer_chain_cache_requests_total",
    "Chain requests by source: memory, redis, chain, divergent.",
    ["source"],
)
HEIGHT = Gauge("pocket_relayer_block_height", "Latest known block height.", multiprocess_mode="livemax")
IN_FLIGHT = Gauge(
    "pocket_relayer_relays_in_flight",
    "Relays in progress, from their admission to the backend's response, and open WebSockets.",
    multiprocess_mode="livesum",
)
NODES = Gauge(
    "pocket_relayer_chain_node_health", "1 for the current health of a chain node, if there are several.",
    ["node", "health"], multiprocess_mode="livemax",
)  # fmt: skip
WAITING = Gauge("pocket_relayer_relays_queued", "Relays waiting to be recorded.", multiprocess_mode="livesum")
LOG_BYTES = Gauge("pocket_relayer_local_log_bytes", "Bytes in write-ahead logs.", multiprocess_mode="livesum")
LOG_DAMAGED = Gauge(
    "pocket_relayer_local_log_damaged_segments", "Segments of write-ahead logs that could not be read since the start.",
    multiprocess_mode="livesum",
)  # fmt: skip
LOG_DAMAGED_RECORDS = Gauge(
    "pocket_relayer_local_log_damaged_records",
    "Places in write-ahead logs where one or more records have another checksum, found since the start.",
    multiprocess_mode="livesum",
)
SIGNATURES = Histogram(
    "pocket_relayer_signer_seconds", "Signatures of the remote signer: signed, refused, unavailable, invalid.",
    ["result"], buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)  # fmt: skip
SIGNER_DOWN = Gauge(
    "pocket_relayer_signer_down", "1 while the remote signer does not answer.", multiprocess_mode="livemax"
)
SIGNER_MISSING = Gauge(
    "pocket_relayer_signer_missing_keys", "Remote keys that the signer does not list.", multiprocess_mode="livemax"
)
KEYS_LOADED = Gauge("pocket_relayer_supplier_keys", "Supplier keys loaded.", multiprocess_mode="livemin")


@dataclass(frozen=True, slots=True)
class BackendConnections:
    """Connections to backends that are used, idle, and awaited by relays."""

    used: int
    idle: int
    awaited: int


def start_at_zero(services: Iterable[str]) -> None:
    """Create the series of alerts, so that their first event is an increase from 0."""
    for reason in Unrecorded:
        NOT_RECORDED.labels(reason)
    for service in services:
        UNPROVABLE.labels(service)
    CACHE.labels("divergent")


def show_node_health(name: str, assessment: NodeAssessment) -> None:
    """Show a chain node's health."""
    for health in NodeHealth:
        NODES.labels(name, health.value).set(health is assessment.health)


def observe_keys(keyring: Keyring) -> None:
    """Show the loaded keys, and whether the signer of the remote ones can be used."""
    KEYS_LOADED.set(len(keyring.addresses))
    SIGNER_DOWN.set(keyring.signer_answers is False)
    SIGNER_MISSING.set(len(keyring.unlisted()))


def observe_signature(result: str, seconds: float) -> None:
    """Record a signature of the remote signer."""
    SIGNATURES.labels(result).observe(seconds)


def show_connections(backends: Mapping[str, BackendConnections], redis: PoolUsage) -> None:
    """Show the connections of this worker."""
    for service, row in backends.items():
        BACKEND_CONNECTIONS.labels(service, "used").set(row.used)
        BACKEND_CONNECTIONS.labels(service, "idle").set(row.idle)
        BACKEND_AWAITED.labels(service).set(row.awaited)
    REDIS_CONNECTIONS.labels("used").set(redis.used)
    REDIS_CONNECTIONS.labels("idle").set(redis.idle)


def observe_query(result: str, seconds: float) -> None:
    """Record a query of one chain node."""
    QUERIES.labels(result).observe(seconds)
