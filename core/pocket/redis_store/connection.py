"""Connections to Redis, and the check that it cannot lose relays."""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from structlog.typing import FilteringBoundLogger

from pocket.errors import ConfigurationError
from pocket.redis_store.redis_errors import code_of, translate
from pocket.redis_store.sentinel import PrimaryResolver, SentinelUrl
from pocket.redis_store.store_errors import RedisNotDurable, RedisTrouble, RedisUnavailable

_LOG: FilteringBoundLogger = structlog.get_logger()
_NO_URL = (
    "the Redis URL cannot be read. Write redis://user:password@host:port/0 or "
    "redis+sentinel://user:password@host:port,host:port/service/0 (rediss with TLS), and percent-encode "
    "what is special in the password: %2F for /, %23 for #, %3F for ?, %40 for @."
)
_RENEWAL_SECONDS = 1.0


class _Demoted(ReadOnlyError):
    """A replica rejected a write on an old connection. A new connection may lead to the primary."""


class Generation:
    """The generation of a pool's connections, advanced when they lead to a demoted instance.

    A Service that follows a fail-over routes new connections to the new primary, while open connections stay with the
    former one. That one answers reads, perhaps outdated ones for ever, and rejects writes. So one rejected write
    condemns all connections of the pool, at most once a second: where the address itself is a replica's, new
    connections do not help.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.number = 0
        self._clock = clock
        self._raised_at = float("-inf")

    def condemn(self, number: int) -> bool:
        """Condemn the connections of a generation.

        Returns True if the next connection belongs to a newer generation.
        """
        if number < self.number:
            return True
        now = self._clock()
        if now - self._raised_at < _RENEWAL_SECONDS:
            return False
        self.number, self._raised_at = self.number + 1, now
        return True


class _RetryDemoted(Retry):
    """Retry only a write that a demoted instance rejected, once and on a new connection."""

    async def call_with_retry(self, *args: Any, **options: Any) -> Any:
        """Call as redis-py does, and once more after a demotion."""
        try:
            return await super().call_with_retry(*args, **options)
        except _Demoted:
            return await super().call_with_retry(*args, **options)


class _CancelSafeConnection:
    """A connection that never swallows a cancellation and leaves a demoted instance.

    redis-py sends within `asyncio.wait_for`, which on CPython 3.11 returns its result although its task was cancelled,
    when both meet. Then a supplier that is handed over, or a process that ends, would go on for ever.
    """

    def __init__(self, *, generation: Generation, primary: PrimaryResolver | None = None, **options: Any) -> None:
        self._generations = generation
        self._generation = generation.number
        self._primary = primary
        super().__init__(**options)

    async def _connect(self) -> None:
        self._generation = self._generations.number
        if self._primary is not None:
            self.host, self.port = await self._primary.address()
        parent: Any = super()
        await parent._connect()  # noqa: SLF001 - the one hook of redis-py before anything is sent

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send as redis-py does.

        Raises CancelledError if the task was cancelled meanwhile.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        parent: Any = super()
        connection: Any = self
        if connection.is_connected and self._generation != self._generations.number:
            await connection.disconnect(nowait=True)  # sending connects again
        await parent.send_packed_command(command, check_health)
        if task and task.cancelling() > before:
            await connection.disconnect(nowait=True)  # its reply would be read as that of the next command
            raise asyncio.CancelledError

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read as redis-py does.

        Raises _Demoted for an error that a new connection may not meet.
        """
        parent: Any = super()
        try:
            return await parent.read_response(*args, **options)
        except ResponseError as error:
            if code_of(error) == "READONLY" and self._generations.condemn(self._generation):
                raise _Demoted(*error.args, status_code="READONLY") from None
            raise


class _Plain(_CancelSafeConnection, Connection):
    """A connection over TCP."""


class _Secure(_CancelSafeConnection, SSLConnection):
    """A connection over TLS."""


class _Pool(BlockingConnectionPool):
    """A pool whose connections share a generation."""

    def __init__(
        self,
        *,
        transport: type[Connection] | None,
        clock: Callable[[], float],
        primary: PrimaryResolver | None,
        connection_class: type = Connection,
        **options: Any,
    ) -> None:
        self.generation = Generation(clock)
        if transport is not None:
            super().__init__(connection_class=transport, generation=self.generation, **options)
            return
        kind = _Secure if issubclass(connection_class, SSLConnection) else _Plain
        super().__init__(connection_class=kind, generation=self.generation, primary=primary, **options)


def connect(
    url: str, *, timeout_seconds: float = 2.0, connections: int = 32, transport: type[Connection] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> "Redis":  # fmt: skip
    """Return a client whose every command has a deadline. Retries are the caller's decision.

    At most `connections` are open, however many tasks there are: a command waits for a free one. `transport` is a class
    of connections to use instead of TCP and TLS. With a URL of Sentinels every new connection leads to the primary that
    they name, and connections to a former primary are replaced once it rejects a write.

    Raises ConfigurationError for an invalid URL, without quoting it: any part may hold a password.
    """
    try:
        sentinel = SentinelUrl.parse(url)
        url = sentinel.redis_url if sentinel is not None else url
        parts = urlsplit(url)
        if parts.scheme != "unix" and not re.fullmatch("/?|/[0-9]+", parts.path):
            raise ValueError("redis-py would take database 0")
        pool = _Pool.from_url(
            url,
            max_connections=connections,
            transport=transport,
            clock=clock,
            primary=PrimaryResolver(sentinel, timeout_seconds, clock) if sentinel is not None else None,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=_RetryDemoted(NoBackoff(), 0, (RedisConnectionError, RedisTimeoutError, _Demoted)),
            protocol=2,
            health_check_interval=0,
        )
    except ValueError:
        raise ConfigurationError(_NO_URL) from None
    return Redis.from_pool(pool)


def redact_url(url: str) -> str:
    """Return the URL without credentials, for messages."""
    sentinel = SentinelUrl.parse(url)
    if sentinel is not None:
        return sentinel.redacted
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"


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


async def inspect(redis: "Redis") -> RedisInfo:
    """Read the state of a Redis that is ready.

    Connections to a replica are opened again once: they may be left over from before a fail-over.

    Raises RedisUnavailable with the reason.
    """
    generation = getattr(redis.connection_pool, "generation", None)
    number = generation.number if generation is not None else 0
    try:
        try:
            return read_info(await redis.info())
        except RedisUnavailable as error:
            if error.trouble is not RedisTrouble.REPLICA or generation is None or not generation.condemn(number):
                raise
        return read_info(await redis.info())
    except (RedisError, OSError, ValueError) as error:
        raise translate(error) from error


async def check_durability(redis: "Redis", url: str) -> RedisInfo:
    """Check that Redis is durable and return its state.

    Raises RedisNotDurable or RedisUnavailable with the remedy.
    """
    try:
        info = await inspect(redis)
    except RedisUnavailable as error:
        raise RedisUnavailable(f"{redact_url(url)}: {error}", error.trouble) from error
    if problem := info.problem():
        raise RedisNotDurable(f"{redact_url(url)}: {problem}")
    return info


async def await_durable_redis(
    redis: "Redis", url: str, stop: asyncio.Event, on_wait: Callable[[RedisUnavailable], None] = lambda error: None,
    rng: random.Random | None = None, claim: Callable[[], Awaitable[None]] | None = None,
) -> None:  # fmt: skip
    """Wait until Redis is ready, or until `stop` is set.

    Each reason is logged once, and `on_wait` is called with it at every attempt. `claim` runs once Redis
    is ready. Raises RedisNotDurable for a Redis that can lose relays.
    """
    rng = rng or random.Random()  # noqa: S311 - jitter
    logged = ""
    while not stop.is_set():
        try:
            await check_durability(redis, url)
            if claim is not None:
                await claim()
        except RedisUnavailable as error:
            on_wait(error)
            if str(error) != logged:
                _LOG.warning("waiting for Redis", error=error)
            logged = str(error)
            await asyncio.sleep(rng.uniform(0.2, 0.5))
        else:
            return
