"""The state of a Redis that decides whether it can be trusted with relays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pocket.api.redis import Durability
from pocket.redis_store.node_addresses import Address
from pocket.redis_store.store_errors import RedisTrouble, RedisUnavailable

UNREPORTED: Final = "connections/"
"""Begins the history of a Redis that does not report its own: how many connections were lost or demoted."""


@dataclass(frozen=True, slots=True)
class RedisInfo:
    """The state that decides whether a Redis can be trusted.

    Memory in bytes, limit 0 = none. history_id changes whenever the data may be different or older: restart, fail-over,
    promotion of a replica.
    """

    history_id: str
    append_only: bool
    eviction_policy: str
    used_memory: int
    max_memory: int
    uptime_seconds: int = 0
    server_time_microseconds: int = 0
    """The server's own clock, which also names stream entries. 0 if the server does not report it."""
    durability: Durability | None = None
    """What the owner states."""

    def problem(self) -> str | None:
        """Return what must be changed before Redis may hold relays, or None."""
        if self.eviction_policy != "noeviction":
            return (
                f"Redis evicts keys (maxmemory-policy {self.eviction_policy}): relays would be lost silently. "
                "Set maxmemory-policy noeviction."
            )
        if not self.append_only and self.durability not in (Durability.MANAGED, Durability.NONE):
            return (
                "Redis has no append-only file: a restart loses every relay. Set appendonly yes, or state "
                "spec.redis.durability."
            )
        return None

    def memory_ratio(self) -> float:
        """Return the share of the memory limit in use, 0 without a limit."""
        return self.used_memory / self.max_memory if self.max_memory else 0.0


@dataclass(frozen=True, slots=True)
class PrimaryStates:
    """The state of each primary that answers.

    Without a Cluster there is one, under the address None.

    `away` are the other primaries of a Cluster, with None for slots without one, and `failure` is the reason of one of
    them.
    """

    primaries: Mapping[Address | None, RedisInfo]
    away: frozenset[Address | None] = frozenset()
    failure: RedisUnavailable | None = None

    @property
    def histories(self) -> dict[Address | None, str]:
        """Return the history of each primary."""
        return {address: info.history_id for address, info in self.primaries.items()}

    @property
    def combined(self) -> RedisInfo:
        """Return of each fact the worst."""
        return combine(list(self.primaries.values()))


def read_info(info: Mapping[str, Any], durability: Durability | None = None, unreported: str = "") -> RedisInfo:
    """Read an answer to INFO.

    `durability` is what the owner states where the server does not report it, and `unreported` the history of a server
    that does not report its own. A server that loads its data file reports `aof_enabled:0` whatever its configuration
    is, and a replica reports its own settings, not those of its primary.

    Raises RedisUnavailable if the answer cannot be relied on yet.
    """
    if int(info.get("loading", 0)):
        raise RedisUnavailable("Redis is loading its data file", RedisTrouble.LOADING)
    if info.get("role") == "slave":
        primary = f"{info.get('master_host', 'unknown')}:{info.get('master_port', '?')}"
        raise RedisUnavailable(
            f"this Redis is a replica (role:slave) of {primary}: point spec.redis at the primary", RedisTrouble.REPLICA
        )
    if durability is None and ("aof_enabled" not in info or "run_id" not in info):
        raise RedisUnavailable(
            "INFO does not report whether Redis keeps an append-only file: allow INFO to its user, or state "
            "spec.redis.durability",
            RedisTrouble.REJECTED,
        )
    return RedisInfo(
        f"{info['run_id']}/{info.get('master_replid', '')}" if "run_id" in info else unreported,
        bool(int(info.get("aof_enabled", durability is Durability.AOF))),
        str(info.get("maxmemory_policy", "")) or "noeviction",
        int(info.get("used_memory", 0)),
        int(info.get("maxmemory", 0)),
        int(info.get("uptime_in_seconds", 0)),
        int(info.get("server_time_usec", 0)),
        durability,
    )


def combine(rows: Sequence[RedisInfo]) -> RedisInfo:
    """Return the worst of each fact of a Cluster's primaries.

    The history changes with that of any primary, and when slots are served by others than before.
    """
    fullest = max(rows, key=RedisInfo.memory_ratio)
    evicting = [row.eviction_policy for row in rows if row.eviction_policy != "noeviction"]
    return RedisInfo(
        ",".join(sorted(row.history_id for row in rows)),
        all(row.append_only for row in rows),
        evicting[0] if evicting else "noeviction",
        fullest.used_memory,
        fullest.max_memory,
        min(row.uptime_seconds for row in rows),
        max(row.server_time_microseconds for row in rows),
        rows[0].durability,
    )
