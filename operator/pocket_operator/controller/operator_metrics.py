"""The operator's Prometheus metrics."""

from contextlib import suppress

from prometheus_client import Counter, Gauge, Histogram

from pocket_operator.resources.kinds import BY_KIND

BUILD = Gauge("pocket_operator_build_info", "1, with the versions.", ["version", "commit", "python"])
RECONCILES = Counter("pocket_operator_reconciles_total", "Reconciliations by result.", ["result"])
SECONDS = Histogram(
    "pocket_operator_reconcile_seconds", "One reconciliation, seconds.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
QUEUE = Gauge("pocket_operator_queue_keys", "RelayMiners waiting to be reconciled.")
REQUESTS = Histogram(
    "pocket_operator_api_seconds",
    "Requests to the API server without watches, by method and result: 2xx, 4xx and so on, none without an answer.",
    ["method", "result"], buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)  # fmt: skip
WRITES = Counter("pocket_operator_api_writes_total", "Writes to the API server by kind.", ["kind"])
REFUSALS = Counter(
    "pocket_operator_api_refusals_total", "Requests that the API server rejected, by status.", ["status"]
)
CONTESTED = Counter(
    "pocket_operator_contested_writes_total",
    "Repairs of children that another client had changed or deleted for at least the third time in ten minutes.",
    ["kind"],
)
EVENTS_DROPPED = Counter(
    "pocket_operator_events_dropped_total",
    "Events that were not written: too many waited, or the API server rejected them.",
)
SCHEMA = Gauge(
    "pocket_operator_schema_fields",
    "Fields that the installed definitions lack (missing) or that this release does not know (unknown).",
    ["kind", "state"],
)
DEFINITIONS_MISSING = Gauge(
    "pocket_operator_definitions_missing",
    "1 while the API server does not serve a kind, because its CustomResourceDefinition was deleted.", ["kind"],
)  # fmt: skip
WATCH_RESTARTS = Counter(
    "pocket_operator_watch_restarts_total", "Restarts of all watches, because one failed or a definition came or went."
)
SUPPLIERS_DECLARED = Gauge(
    "pocket_operator_suppliers_declared", "Suppliers of a RelayMiner that are not being deleted.",
    ["relay_miner_namespace", "relay_miner"],
)  # fmt: skip
SUPPLIERS_SERVED = Gauge(
    "pocket_operator_suppliers_served", "Declared Suppliers that a relayer serves and a miner mines for.",
    ["relay_miner_namespace", "relay_miner"],
)  # fmt: skip
STAKES = Gauge(
    "pocket_operator_stakes",
    "Suppliers with a declared stake, by the reason of the condition StakeAsDeclared.",
    ["reason"],
)
SEALING_KEYS = Gauge("pocket_operator_sealing_keys", "Valid sealing keys in the operator's Secret.")
LEADS = Gauge("pocket_operator_leader", "1 while this replica leads.")
WATCH_AGE = Gauge(
    "pocket_operator_watch_age_seconds", "Seconds since the latest heartbeat that came back through the watch was sent."
)
RELAY_MINERS = Gauge("pocket_operator_relay_miners", "RelayMiners known.")
SUPPLIERS = Gauge("pocket_operator_suppliers", "Suppliers known.")
PAUSED = Gauge("pocket_operator_relay_miners_paused", "RelayMiners that are paused.")


def start_at_zero() -> None:
    """Create the series at 0, so that the first failure is an increase."""
    for kind in BY_KIND:
        CONTESTED.labels(kind)
    for status in (400, 403, 404, 409, 413, 422, 500):
        REFUSALS.labels(str(status))
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        for result in ("2xx", "4xx", "5xx", "none"):
            REQUESTS.labels(method, result)


def observe_request(method: str, status: int, seconds: float) -> None:
    """Record a request to the API server, with status 0 for no answer."""
    REQUESTS.labels(method, f"{status // 100}xx" if status else "none").observe(seconds)


def forget(relay_miner: tuple[str, str]) -> None:
    """Remove the metrics of a RelayMiner that is gone, named by namespace and name."""
    for family in (SUPPLIERS_SERVED, SUPPLIERS_DECLARED):
        with suppress(KeyError):
            family.remove(*relay_miner)
