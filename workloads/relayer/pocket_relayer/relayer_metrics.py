"""Metric families of the relayer; labels stay of low cardinality."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from pocket.chain.node_health import NodeAssessment, NodeHealth

RECEIVED = Counter("pocket_relayer_relays_received_total", "Relays received.", ["service", "rpc_type"])
SERVED = Counter(
    "pocket_relayer_relays_served_total", "Relays answered with a signed response.", ["service", "rpc_type"]
)
MINED = Counter("pocket_relayer_relays_mined_total", "Relays recorded in the ledger.", ["service"])
NOT_APPLICABLE = Counter(
    "pocket_relayer_relays_skipped_difficulty_total", "Served relays that do not meet the difficulty.", ["service"]
)
UNPROVABLE = Counter(
    "pocket_relayer_relays_unprovable_total", "Relays served and not mined: no proof could hold them.", ["service"]
)
REJECTED = Counter(
    "pocket_relayer_relays_rejected_total", "Relays refused.", ["service", "transport", "reason"]
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
    "Relays equal to one mined before, request and answer: one leaf, paid once.", ["service"],
)  # fmt: skip
NOT_RECORDED = Counter("pocket_relayer_relays_not_recorded_total", "Relays that could not be recorded.", ["reason"])
REPLAYS = Counter("pocket_relayer_ledger_replays_total", "Times the local log was appended again.", ["reason"])
LATENCY = Histogram(
    "pocket_relayer_relay_seconds", "Whole relay, seconds.", ["service"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
BACKEND_LATENCY = Histogram(
    "pocket_relayer_backend_seconds", "Backend's share of a relay, seconds.", ["service"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
STAGES = Histogram(
    "pocket_relayer_stage_seconds",
    "Parts of a relay beside the backend's: proven (checks, signature, budget), recorded.", ["stage"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
)  # fmt: skip
ANSWERS = Counter(
    "pocket_relayer_backend_answers_total",
    "What came of asking backends, after retries: success, client_error (4xx), or the reason of the refusal.",
    ["service", "outcome"],
)  # fmt: skip
RETRIES = Counter("pocket_relayer_backend_retries_total", "Further endpoints that were asked.", ["service"])
UNHEALTHY = Gauge(
    "pocket_relayer_backend_endpoints_unhealthy", "Endpoints that are not asked: failed checks or an open breaker.",
    ["service", "rpc_type"], multiprocess_mode="livemax",
)  # fmt: skip
CHECKS = Counter(
    "pocket_relayer_health_checks_total", "Active checks of endpoints: passed, failed.", ["service", "result"]
)
LOOP_LAG = Gauge(
    "pocket_relayer_event_loop_lag_seconds", "Worst delay of a timer in the last second, of any worker.",
    multiprocess_mode="livemax",
)  # fmt: skip
HELD = Gauge(
    "pocket_relayer_held_bytes", "Requests, messages and answers that connections make all workers hold.",
    multiprocess_mode="livesum",
)  # fmt: skip
DROPPED = Counter(
    "pocket_relayer_dropped_total",
    "Unfinished requests and unread answers that were dropped because the memory for them was used up.",
)
OPEN = Gauge("pocket_relayer_open_connections", "Connections of all workers.", multiprocess_mode="livesum")
CLOSED = Counter(
    "pocket_relayer_closed_connections_total",
    "Connections that were closed: too_many (without a proven relay), refused (all others have one), not_read "
    "(the client takes nothing), flood (HTTP/2 frames).",
    ["reason"],
)
RESIDENT = Gauge("pocket_relayer_resident_bytes", "Memory of all workers.", multiprocess_mode="livesum")
TASKS = Gauge("pocket_relayer_tasks", "asyncio tasks of all workers.", multiprocess_mode="livesum")
BUILD = Gauge("pocket_relayer_build_info", "1, with the versions.", ["version", "python"], multiprocess_mode="livemax")
SIMULATED = Counter(
    "pocket_relayer_simulated_relays_total",
    "Simulated relays: served, or the reason of the refusal; they count nowhere else.",
    ["service", "transport", "supplier", "result"],
)  # fmt: skip
SIMULATED_LATENCY = Histogram(
    "pocket_relayer_simulated_relay_seconds", "Whole simulated relay, seconds.", ["service", "transport"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
CACHE = Counter(
    "pocket_relayer_chain_cache_requests_total", "Chain answers: memory, redis, chain, divergent.", ["source"]
)
HEIGHT = Gauge("pocket_relayer_block_height", "Latest block height known.", multiprocess_mode="livemax")
IN_FLIGHT = Gauge(
    "pocket_relayer_relays_in_flight", "Relays that wait for a backend's answer.", multiprocess_mode="livesum"
)
NODES = Gauge(
    "pocket_relayer_chain_node_health", "1 for the health of a chain node, where there are several.",
    ["node", "health"], multiprocess_mode="livemax",
)  # fmt: skip
WAITING = Gauge("pocket_relayer_relays_queued", "Relays waiting to be recorded.", multiprocess_mode="livesum")
LOG_BYTES = Gauge("pocket_relayer_local_log_bytes", "Bytes held in local logs.", multiprocess_mode="livesum")
KEYS_LOADED = Gauge("pocket_relayer_supplier_keys", "Supplier keys loaded.", multiprocess_mode="livemin")


def start_at_zero(services: Iterable[str]) -> None:
    """Create the series that alerts watch, so that their first event is an increase from 0."""
    for reason in ("full", "session_closed", "unavailable"):
        NOT_RECORDED.labels(reason)
    for service in services:
        UNPROVABLE.labels(service)
    CACHE.labels("divergent")


def node_told(name: str, verdict: NodeAssessment) -> None:
    """Shows a chain node's health."""
    for health in NodeHealth:
        NODES.labels(name, health.value).set(health is verdict.health)
