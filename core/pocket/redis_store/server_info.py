"""The state of a Redis that decides whether it can be trusted with relays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocket.redis_store.store_errors import RedisTrouble, RedisUnavailable


@dataclass(frozen=True, slots=True)
class RedisInfo:
    """The state that decides whether a Redis can be trusted. Memory in bytes, limit 0 = none.

    history_id changes whenever the data may be different or older: restart, fail-over, promotion of a replica.
    """

    history_id: str
    append_only: bool
    eviction_policy: str
    used_memory: int
    max_memory: int
    uptime_seconds: int = 0
    server_time_microseconds: int = 0
    """The server's own clock, which also names stream entries. 0 if the server does not report it."""

    def problem(self) -> str | None:
        """Return what must be changed before Redis may hold relays, or None."""
        if self.eviction_policy != "noeviction":
            return (
                f"Redis evicts keys (maxmemory-policy {self.eviction_policy}): relays would be lost silently. "
                "Set maxmemory-policy noeviction."
            )
        if not self.append_only:
            return "Redis has no append-only file: a restart loses every relay. Set appendonly yes."
        return None

    def memory_ratio(self) -> float:
        """Return the share of the memory limit in use, 0 without a limit."""
        return self.used_memory / self.max_memory if self.max_memory else 0.0


def read_info(info: Mapping[str, Any]) -> RedisInfo:
    """Read an answer to INFO.

    A server that loads its data file reports `aof_enabled:0` whatever its configuration is, and a replica reports its
    own settings, not those of its primary.

    Raises RedisUnavailable if the answer cannot be relied on yet.
    """
    if int(info.get("loading", 0)):
        raise RedisUnavailable("Redis is loading its data file", RedisTrouble.LOADING)
    if info.get("role") == "slave":
        primary = f"{info.get('master_host', 'unknown')}:{info.get('master_port', '?')}"
        raise RedisUnavailable(
            f"this Redis is a replica (role:slave) of {primary}: point spec.redis at the primary", RedisTrouble.REPLICA
        )
    if "aof_enabled" not in info or "run_id" not in info:
        raise RedisUnavailable(
            "INFO does not report whether Redis keeps an append-only file: allow INFO to its user",
            RedisTrouble.REJECTED,
        )
    return RedisInfo(
        f"{info['run_id']}/{info.get('master_replid', '')}",
        bool(int(info["aof_enabled"])),
        str(info.get("maxmemory_policy", "")) or "noeviction",
        int(info.get("used_memory", 0)),
        int(info.get("maxmemory", 0)),
        int(info.get("uptime_in_seconds", 0)),
        int(info.get("server_time_usec", 0)),
    )


def combine(rows: Sequence[RedisInfo]) -> RedisInfo:
    """Return the state of a Cluster from those of its primaries: of each fact the worst.

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
    )
