"""Metric families of the miner.

The processes of tries load them, too, so no client is imported here.
"""

import contextlib
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from pocket.redis_store.connection import PoolUsage


class RefusedEntry(StrEnum):
    """Why a recorded relay is not mined, as metrics and dead letters name it."""

    NO_RELAY = "not a relay"
    """The entry cannot be decoded."""
    NOT_CANONICAL = "not the canonical encoding of a relay"
    """Its bytes are not those that the chain would hash."""
    OTHER_HEADER = "the session header differs from the chain's"
    """The chain states another session for its application, service and height."""
    OTHER_SUPPLIER = "the request is addressed to another supplier"
    """Its stream is of another supplier."""
    WITH_PAYLOAD = "the response payload was not removed"
    """A leaf has the response without its payload."""
    NOT_SIGNED = "a signature is missing"
    """The request or the response has none."""
    TOO_EASY = "the relay does not meet the difficulty"
    """Its hash is not below the target of its service."""
    PEER_SIGNATURE = "a signature of a peer's relay is invalid"
    """Another miner offered a relay that the gateway or the supplier did not sign."""
    SEALED = "the session is sealed"
    """It came after the seal of its session."""
    DAMAGED_HEADER = "the session header is damaged"
    """The header of the session in Redis cannot be decoded."""


RELAYS = Counter("pocket_miner_relays_stored_total", "Relays that became leaves.", ["supplier"])
FOLLOWED = Counter("pocket_miner_standby_relays_total", "Relays stored as the standby.", ["supplier"])
REFUSED = Counter(
    "pocket_miner_relays_refused_total", "Stream entries that were rejected and did not become leaves.", ["reason"]
)
SESSIONS = Gauge("pocket_miner_sessions", "Sessions by stage.", ["stage"])
CLAIMS = Counter("pocket_miner_claims_total", "Claim messages by result.", ["result"])
PROOFS = Counter("pocket_miner_proofs_total", "Proof messages by result.", ["result"])
OUTCOMES = Counter("pocket_miner_session_outcomes_total", "Finished sessions.", ["outcome"])
CLAIMED = Counter("pocket_miner_claimed_upokt_total", "Claimed upokt of finished sessions.", ["supplier", "service"])
SETTLED = Counter(
    "pocket_miner_settled_upokt_total", "Upokt that applications paid for settled claims, to all recipients.",
    ["supplier", "service"],
)  # fmt: skip
EARNED = Counter(
    "pocket_miner_earned_upokt_total",
    "Upokt of settled claims that reached the supplier's operator, owner and shareholders, by address.",
    ["supplier", "service", "recipient"],
)  # fmt: skip
LOST = Counter("pocket_miner_lost_upokt_total", "Claimed upokt that applications did not pay.", ["reason"])
FEES = Counter(
    "pocket_miner_fees_upokt_total",
    "Fees that finished sessions paid, submission fees of proofs included.",
    ["message"],
)
BROADCASTS = Histogram(
    "pocket_miner_broadcast_seconds",
    "Broadcasts of transactions: accepted, known (a node had it already), or the kind of the refusal.", ["result"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
TRANSACTION_BYTES = Histogram(
    "pocket_miner_transaction_bytes", "Size of the transactions broadcast.",
    buckets=(512, 1024, 4096, 16384, 65536, 262144, 524288, 1048576, 4194304),
)  # fmt: skip
REDIS_CONNECTIONS = Gauge(
    "pocket_miner_redis_connections", "Connections to Redis in the pools: used or idle.", ["state"]
)
QUERIES = Histogram(
    "pocket_miner_chain_query_seconds",
    "Queries of chain nodes, one observation for each node: answered, or the class of the failure.", ["result"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)  # fmt: skip
HEIGHT = Gauge("pocket_miner_block_height", "Latest block height seen.")
NODES = Gauge(
    "pocket_miner_chain_nodes",
    "Chain nodes by health: healthy, disputed, lagging, unreachable, forked, wrong_chain.",
    ["health"],
)
BEHIND = Gauge("pocket_miner_tail_behind_sessions", "Sessions with more recorded relays than the last read took.")
REQUIREMENTS = Counter("pocket_miner_proof_requirements_total", "Claims by whether they need a proof.", ["required"])
LOOP_LAG = Gauge("pocket_miner_event_loop_lag_seconds", "Largest delay of a timer since the previous measurement.")
TASKS = Gauge("pocket_miner_tasks", "asyncio tasks.")
BUILD = Gauge("pocket_miner_build_info", "1, with the versions.", ["version", "commit", "python"])
NODE_LAG = Gauge("pocket_miner_chain_node_lag_blocks", "Blocks that a chain node is behind the best one.", ["node"])
BLOCK_AGE = Gauge(
    "pocket_miner_block_age_seconds",
    "Age of the newest block by this machine's clock when it arrived; negative: slow clock.",
)
ERRORS = Counter("pocket_miner_errors_total", "Failed steps that are retried.", ["step"])
CACHE = Counter(
    "pocket_miner_chain_cache_requests_total", "Chain answers: memory, redis, chain, divergent.", ["source"]
)
REFRESHED = Counter(
    "pocket_miner_cache_refreshes_total",
    "Cached records that the leader refreshed: same, changed, evicted, failed.", ["result"],
)  # fmt: skip
TAIL_AGE = Histogram(
    "pocket_miner_tail_seconds", "Seconds from recording to storing the oldest relay of each read on the volume.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)  # fmt: skip
REDIS_MEMORY = Gauge("pocket_miner_redis_memory_bytes", "Memory of Redis: used, and its limit (0: none).", ["type"])
VOLUME = Gauge("pocket_miner_volume_bytes", "The volume: total, free, and reserved for seals and outcomes.", ["type"])
READ_ONLY = Gauge("pocket_miner_volume_read_only", "1 while the volume is read-only.")
VOLUME_HANGS = Gauge("pocket_miner_volume_hangs", "1 while the volume answers neither reads nor writes.")
SLOW_BLOCKS = Counter(
    "pocket_miner_slow_blocks_total", "Blocks that arrived more than 1.5 times blockSeconds after the previous one."
)
LAG = Gauge("pocket_miner_tail_sessions", "Open sessions whose relays are consumed.")
FOREIGN = Counter("pocket_miner_conflicting_claims_total", "Claims on chain with a root that is not ours.")
UNKNOWN_CLAIMS = Counter(
    "pocket_miner_unknown_claims_total", "Claims on chain of sessions that neither this miner nor Redis knows."
)
SHARDS = Gauge("pocket_miner_shards", "Shards that this miner owns.")
LEADER = Gauge("pocket_miner_leader", "1 if this miner is the leader.")
SUPPLIERS = Gauge(
    "pocket_miner_suppliers", "Suppliers that this miner mines as the owner, or follows as the standby.", ["role"]
)
LEASE_WRITES = Counter("pocket_miner_lease_writes_total", "Writes to Leases.")
MERGED = Counter("pocket_miner_relays_merged_total", "Relays copied from a peer's volume after Redis had lost them.")
SIGNATURES = Histogram(
    "pocket_miner_signer_seconds", "Signatures of the remote signer: signed, refused, unavailable, invalid.",
    ["result"], buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)  # fmt: skip
SIGNER_DOWN = Gauge("pocket_miner_signer_down", "1 while the remote signer does not answer.")
SIGNER_MISSING = Gauge("pocket_miner_signer_missing_keys", "Remote keys that the signer does not list.")
BALANCE = Gauge("pocket_miner_balance_upokt", "Balance that pays for claims and proofs.", ["supplier"])
ENDPOINTS = Gauge("pocket_miner_endpoint_problems", "Public URLs of the stake that have a problem.", ["supplier"])
RUNWAY = Gauge(
    "pocket_miner_stake_runway_penalties",
    "Penalties for missing proofs that the stake can pay before it falls below the minimum.", ["supplier"],
)  # fmt: skip
MARGIN = Histogram(
    "pocket_miner_window_margin_blocks", "Blocks left in the window when a claim or proof was seen on chain.",
    ["message"],
    buckets=(0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64),
)  # fmt: skip


def start_at_zero(outcomes: Iterable[str]) -> None:
    """Create the series of alerts at 0, so that the first event is an increase."""
    for outcome in outcomes:
        OUTCOMES.labels(outcome)
    for reason in RefusedEntry:
        REFUSED.labels(reason)
    CACHE.labels("divergent")


def show_connections(redis: "PoolUsage") -> None:
    """Show the connections to Redis."""
    REDIS_CONNECTIONS.labels("used").set(redis.used)
    REDIS_CONNECTIONS.labels("idle").set(redis.idle)


def observe_query(result: str, seconds: float) -> None:
    """Record a query of one chain node."""
    QUERIES.labels(result).observe(seconds)


def observe_signature(result: str, seconds: float) -> None:
    """Record a signature of the remote signer."""
    SIGNATURES.labels(result).observe(seconds)


def forget_funds(supplier: str) -> None:
    """Remove the metrics of a supplier with another owner.

    Stale values would alert forever.
    """
    for gauge in (BALANCE, RUNWAY, ENDPOINTS):
        with contextlib.suppress(KeyError):
            gauge.remove(supplier)
