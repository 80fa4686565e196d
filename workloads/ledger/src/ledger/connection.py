"""Connecting to Redis, and refusing one that can lose relays."""

import asyncio
import logging
import random
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from ledger.errors import LedgerUnavailable, UnsafeRedis
from shannon.errors import ConfigurationError

_LOG = logging.getLogger("ledger.connection")
_NO_URL = (
    "the Redis URL cannot be read. Write redis://user:password@host:port/0 (rediss:// with TLS), and percent-encode "
    "what is special in the password: %2F for /, %23 for #, %3F for ?, %40 for @."
)


class _Cancellable:
    """A connection that never swallows a cancellation.

    redis-py sends within `asyncio.wait_for`, which on CPython 3.11 returns its result although its task was cancelled,
    when both meet. Then a supplier that is handed over, or a process that ends, would go on for ever.
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """As redis-py; raises CancelledError where the task was cancelled meanwhile."""
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        parent: Any = super()
        await parent.send_packed_command(command, check_health)
        if task and task.cancelling() > before:
            connection: Any = self
            await connection.disconnect(nowait=True)  # a reply comes that nobody reads
            raise asyncio.CancelledError


class _Plain(_Cancellable, Connection):
    """Over TCP."""


class _Secure(_Cancellable, SSLConnection):
    """Over TLS."""


def connect(url: str, *, timeout_seconds: float = 2.0, connections: int = 32) -> "Redis":
    """A client whose every command has a deadline; retries are the caller's decision.

    At most `connections` are open, however many tasks there are: a command waits for a free one. Raises
    ConfigurationError for what is no URL of a Redis; it quotes nothing of it, as there may be a password in any part.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and not re.fullmatch("/?|/[0-9]+", parts.path):
            raise ValueError("redis-py would take database 0")
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            health_check_interval=0,
        )
    except ValueError:
        raise ConfigurationError(_NO_URL) from None
    pool.connection_class = _Secure if issubclass(pool.connection_class, SSLConnection) else _Plain
    return Redis.from_pool(pool)


def shown(url: str) -> str:
    """The URL without credentials, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"


@dataclass(frozen=True, slots=True)
class RedisInfo:
    """What decides whether a Redis can be trusted; memory in bytes, limit 0 = none."""

    run_id: str
    append_only: bool
    eviction_policy: str
    used_memory: int
    max_memory: int
    uptime_seconds: int = 0
    server_time_microseconds: int = 0
    """By the server's own clock, by which entries of streams are named; 0 where it does not tell."""

    def problem(self) -> str | None:
        """What must be changed before money is entrusted to it."""
        if self.eviction_policy != "noeviction":
            return (
                f"Redis evicts keys (maxmemory-policy {self.eviction_policy}): relays would vanish unseen. "
                "Set maxmemory-policy noeviction."
            )
        if not self.append_only:
            return "Redis has no append-only file: a restart loses every relay. Set appendonly yes."
        return None

    def pressure(self) -> float:
        """Share of the memory limit in use; 0 without limit."""
        return self.used_memory / self.max_memory if self.max_memory else 0.0


async def inspect(redis: "Redis") -> RedisInfo:
    """Reads INFO and CONFIG; raises LedgerUnavailable."""
    try:
        info: dict[str, Any] = await redis.info()
        policy = str(info.get("maxmemory_policy", ""))
        append_only = bool(int(info.get("aof_enabled", 0)))
    except ResponseError as error:
        raise LedgerUnavailable(f"Redis refused INFO: {error}") from error
    except (RedisError, OSError) as error:
        raise LedgerUnavailable(f"Redis does not answer: {error}") from error
    return RedisInfo(
        str(info.get("run_id", "")),
        append_only,
        policy or "noeviction",
        int(info.get("used_memory", 0)),
        int(info.get("maxmemory", 0)),
        int(info.get("uptime_in_seconds", 0)),
        int(info.get("server_time_usec", 0)),
    )


async def require_safe(redis: "Redis", url: str) -> RedisInfo:
    """The Redis's state; raises UnsafeRedis or LedgerUnavailable with what to do."""
    try:
        info = await inspect(redis)
    except LedgerUnavailable as error:
        raise LedgerUnavailable(f"{shown(url)}: {error}. Check spec.redis and that the server runs.") from error
    if problem := info.problem():
        raise UnsafeRedis(f"{shown(url)}: {problem}")
    return info


async def await_safe_redis(redis: "Redis", url: str, stop: asyncio.Event) -> None:
    """Waits for a Redis that is away, until `stop`; raises UnsafeRedis for one that can lose relays."""
    chance = random.Random()  # noqa: S311 - jitter
    while not stop.is_set():
        try:
            await require_safe(redis, url)
        except LedgerUnavailable as error:
            _LOG.warning("%s", error)
            await asyncio.sleep(chance.uniform(0.2, 0.5))
        else:
            return
