"""Connections to Redis, and the check that it cannot lose relays."""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from structlog.typing import FilteringBoundLogger

from pocket.api.redis import RedisAccess
from pocket.errors import ConfigurationError
from pocket.redis_store.access import AccessFiles
from pocket.redis_store.closed_transports import TranslatedTransport
from pocket.redis_store.cluster import ClusterClient
from pocket.redis_store.cluster_slots import ClusterUrl
from pocket.redis_store.connection_generation import Generation
from pocket.redis_store.node_addresses import Address
from pocket.redis_store.node_backoff import NodeBackoff
from pocket.redis_store.packing import HiredisPacking
from pocket.redis_store.redis_errors import NATIVE_ERRORS, code_of, translate, translated
from pocket.redis_store.script_connection import LONGEST_WAIT_SECONDS, ScriptConnection
from pocket.redis_store.sentinel import PrimaryResolver, SentinelUrl
from pocket.redis_store.server_info import UNREPORTED, PrimaryStates, RedisInfo, read_info
from pocket.redis_store.store_client import StoreClient, StoreClusterClient
from pocket.redis_store.store_errors import CommandRejected, RedisNotDurable, RedisTrouble, RedisUnavailable
from pocket.runtime.own_authorities import redis_options

_LOG: FilteringBoundLogger = structlog.get_logger()
_PLAIN = frozenset(
    {"db", "username", "password", "client_name", "max_connections", "health_check_interval", "socket_timeout",
     "socket_connect_timeout"}
)  # fmt: skip
_OPTIONS = (
    _PLAIN,
    _PLAIN | {f"ssl_{name}" for name in ("cert_reqs", "check_hostname", "ca_certs", "ca_path", "certfile", "keyfile")},
)
"""Options of a URL without and with TLS. The others are the client's own or unknown to it."""
_NO_URL = (
    "the Redis URL cannot be read. Write redis://user:password@host:port/0, "
    "redis+sentinel://user:password@host:port,host:port/service/0 or redis+cluster://user:password@host:port,host:port "
    "(rediss with TLS), and percent-encode what is special in the password: %2F for /, %23 for #, %3F for ?, %40 for @."
    " Options are db, username, password, client_name, max_connections, health_check_interval, socket_timeout and "
    "socket_connect_timeout, with TLS also ssl_cert_reqs, ssl_check_hostname, ssl_ca_certs, ssl_ca_path, ssl_certfile "
    "and ssl_keyfile."
)
_TWO_LOGINS = (
    "the Redis URL holds a login, and spec.redis.credentialsSecretRef names another one: remove it from the URL."
)
_NO_TLS = "spec.redis.caBundle needs TLS: write rediss:// in the URL, or set tls."
_OWN_CONNECTIONS = 3


class _Demoted(ReadOnlyError):
    """A replica rejected a write on an old connection.

    A new connection may lead to the primary.
    """


class _RetryDemoted(Retry):
    """Retries only a write that a demoted instance rejected.

    It does so once, on a new connection.
    """

    async def call_with_retry(self, *args: Any, **options: Any) -> Any:
        """Call as redis-py does, and once more after a demotion."""
        try:
            return await super().call_with_retry(*args, **options)
        except _Demoted:
            return await super().call_with_retry(*args, **options)


class _CancelSafeConnection:
    """A connection that never swallows a cancellation and leaves a demoted instance.

    redis-py sends within `asyncio.wait_for`, which on CPython 3.11 returns its result or raises its error although its
    task was cancelled, when both meet. Then a supplier that is handed over, or a process that ends, would never end.
    """

    def __init__(self, *, generation: Generation, primary: PrimaryResolver | None = None, **options: Any) -> None:
        self._generations = generation
        self._generation = generation.number
        self._primary = primary
        self._was_open = False
        super().__init__(**options)

    async def _connect(self) -> None:
        if self._generation != self._generations.number and isinstance(self, SSLConnection):
            self.ssl_context.context = None  # the certificate authorities may be others, too
        if self._was_open:
            self._generations.lost(self._generation)
        self._generation = self._generations.number
        self._was_open = False
        if self._primary is not None:
            self.host, self.port = await self._primary.address()
        parent: Any = super()
        await parent._connect()  # noqa: SLF001 - the one hook of redis-py before anything is sent
        self._was_open = True

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send as redis-py does.

        Raises CancelledError if the task was cancelled meanwhile.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        parent: Any = super()
        connection: Any = self
        if connection.is_connected and self._generation != self._generations.number:
            self._was_open = False
            await connection.disconnect(nowait=True)  # sending connects again
        try:
            await parent.send_packed_command(command, check_health)
        finally:
            if task and task.cancelling() > before:
                self._was_open = False
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
        except ValueError as error:  # such as a redirection without its parts; the connection is closed
            raise InvalidResponse(f"the server's reply cannot be read: {error}") from error


class _Plain(_CancelSafeConnection, TranslatedTransport, HiredisPacking, Connection):
    """A connection over TCP."""


class _Secure(_CancelSafeConnection, TranslatedTransport, HiredisPacking, SSLConnection):
    """A connection over TLS."""


class _Pool(BlockingConnectionPool):
    """A pool whose connections share a generation."""

    def __init__(
        self,
        *,
        transport: type[Connection] | None,
        clock: Callable[[], float],
        primary: PrimaryResolver | None,
        access: AccessFiles,
        connection_class: type = Connection,
        **options: Any,
    ) -> None:
        self.generation = Generation(clock)
        self.backoff = NodeBackoff(clock, options["socket_timeout"])
        self.access = access
        if access.holds_login:
            if options.get("username") or options.get("password"):
                raise ConfigurationError(_TWO_LOGINS)
            options["credential_provider"] = access
        if issubclass(connection_class, SSLConnection):
            options |= redis_options(access.ca_file)
        elif access.ca_file is not None:
            raise ConfigurationError(_NO_TLS)
        self.scripts: ScriptConnection | None = None
        self.inspections: ScriptConnection | None = None
        self.waits: ScriptConnection | None = None
        if transport is not None:
            super().__init__(connection_class=transport, generation=self.generation, **options)
            return
        kind = _Secure if issubclass(connection_class, SSLConnection) else _Plain
        super().__init__(connection_class=kind, generation=self.generation, primary=primary, **options)
        seconds = options["socket_timeout"]
        self.scripts = ScriptConnection(self.make_connection, self.generation, seconds)
        self.inspections = ScriptConnection(self.make_connection, self.generation, seconds)
        self.waits = ScriptConnection(self.make_connection, self.generation, seconds + LONGEST_WAIT_SECONDS)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections."""
        for connection in (self.scripts, self.inspections, self.waits):
            if connection is not None:
                await connection.aclose()
        await super().disconnect(inuse_connections)


def connect(
    url: str, *, timeout_seconds: float = 2.0, connections: int = 32, transport: type[Connection] | None = None,
    clock: Callable[[], float] = time.monotonic, access: RedisAccess | None = None,
) -> "Redis":  # fmt: skip
    """Return a client whose every command has a deadline.

    Retries are the caller's decision. At most `connections` are open to a server, at least four, however many tasks
    there are: a command waits for a free one. One of them carries all scripts, one INFO, and one the reads that wait.
    `transport` is a class of connections to use instead of TCP and TLS. With a URL of Sentinels every new connection
    leads to the primary that they name, and connections to a former primary are replaced once it rejects a write. With
    a URL of a Cluster every command goes to the primary of its keys. `access` names the files of a login and of
    certificate authorities: `inspect` notices changed ones, and every connection is opened again with them.

    Raises ConfigurationError for an invalid URL, without quoting it: any part may hold a password.
    """
    files = AccessFiles(access or RedisAccess())

    def pool_of(url: str, primary: PrimaryResolver | None = None) -> _Pool:
        pool: _Pool = _Pool.from_url(
            url,
            max_connections=connections if transport is not None else max(1, connections - _OWN_CONNECTIONS),
            transport=transport,
            clock=clock,
            primary=primary,
            access=files,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=_RetryDemoted(NoBackoff(), 0, (RedisConnectionError, RedisTimeoutError, _Demoted)),
            protocol=2,
            driver_info=None,  # one command and one right less for each connection
            health_check_interval=0,
        )
        return pool

    try:
        cluster = ClusterUrl.parse(url)
        if cluster is not None:
            return StoreClusterClient(
                cluster.seeds,
                lambda address: pool_of(cluster.url_of(address)),
                timeout_seconds=timeout_seconds,
                clock=clock,
            )
        sentinel = SentinelUrl.parse(url)
        url = sentinel.redis_url if sentinel is not None else url
        parts = urlsplit(url)
        if not _OPTIONS[parts.scheme == "rediss"].issuperset(parse_qs(parts.query, keep_blank_values=True)):
            raise ValueError("redis-py would pass it on to its connections")
        if parts.scheme != "unix" and not re.fullmatch("/?|/[0-9]+", parts.path):
            raise ValueError("redis-py would take database 0")
        primary = PrimaryResolver(sentinel, timeout_seconds, clock, files.ca_file) if sentinel is not None else None
        client: Redis = StoreClient.from_pool(pool_of(url, primary))
        return client
    except ValueError:
        raise ConfigurationError(_NO_URL) from None


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """Used and idle connections of the pools of a client.

    Frequent commands have their own, which are not counted.
    """

    used: int
    idle: int


def pool_usage(redis: "Redis") -> PoolUsage:
    """Return the connections of a client, of a Cluster those to all nodes."""
    nodes = redis.nodes if isinstance(redis, ClusterClient) else [redis]
    pools: list[Any] = [node.connection_pool for node in nodes]
    # redis-py has no public names for them.
    used = sum(len(pool._in_use_connections) for pool in pools)  # noqa: SLF001
    return PoolUsage(used, sum(len(pool._available_connections) for pool in pools))  # noqa: SLF001


def redact_url(url: str) -> str:
    """Return the URL without credentials, for messages."""
    several = SentinelUrl.parse(url) or ClusterUrl.parse(url)
    if several is not None:
        return several.redacted
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"


async def inspect(redis: "Redis") -> RedisInfo:
    """Read the state of a Redis that is ready, or of all primaries of a Cluster.

    Raises RedisUnavailable with the reason, also if a single primary cannot be used.
    """
    state = await inspect_primaries(redis)
    if state.failure is not None:
        raise state.failure
    return state.combined


async def inspect_primaries(redis: "Redis") -> PrimaryStates:
    """Read the state of each primary. In a Cluster one that can be used is enough.

    Connections to a replica are opened again once: they may be left over from before a fail-over. All are opened again
    when the files of the login have changed.

    Raises RedisUnavailable with the reason.
    """
    try:
        if not isinstance(redis, ClusterClient):
            await _renew_changed([redis.connection_pool])
            return PrimaryStates({None: await _inspect_node(redis)})
        slots = await redis.refresh()
        nodes = {address: redis.node(address) for address in slots.primaries}
        await _renew_changed([node.connection_pool for node in redis.nodes])
        answers = await asyncio.gather(*map(_inspect_node, nodes.values()), return_exceptions=True)
    except (*NATIVE_ERRORS, ValueError) as error:
        raise translate(error) from error
    states: dict[Address | None, RedisInfo] = {}
    failure = None if slots.complete else RedisUnavailable("not every slot has a primary", RedisTrouble.BUSY)
    for address, answer in zip(nodes, answers, strict=True):
        if isinstance(answer, RedisInfo):
            states[address] = answer
        elif isinstance(answer, RedisUnavailable):
            failure = answer
        elif isinstance(answer, ValueError):
            failure = RedisUnavailable(f"INFO cannot be read: {answer}")
        else:
            raise answer
    if not states and failure is not None:
        raise failure
    away: set[Address | None] = {address for address in nodes if address not in states}
    return PrimaryStates(states, frozenset(away if slots.complete else {*away, None}), failure)


async def _renew_changed(pools: Sequence[Any]) -> None:
    """Open all connections of the pools again if their access changed.

    The access is in files that they share.
    """
    access = getattr(pools[0], "access", None)
    if access is not None and await access.changed():
        for pool in pools:
            pool.generation.renew()
        _LOG.info("the login or the certificate authorities of Redis changed, all connections are opened again")


async def _inspect_node(redis: "Redis") -> RedisInfo:
    pool: Any = redis.connection_pool
    number = pool.generation.number
    try:
        return await _read(redis)
    except RedisUnavailable as error:
        if error.trouble is not RedisTrouble.REPLICA or not pool.generation.condemn(number):
            raise
    return await _read(redis)


async def _read(redis: "Redis") -> RedisInfo:
    pool: Any = redis.connection_pool
    durability = pool.access.durability
    try:
        with translated():
            info = await redis.info()
    except CommandRejected:
        if durability is None:
            raise
        info = {}
        pool.generation.renew_after_losses()
    return read_info(info, durability, f"{UNREPORTED}{pool.generation.losses}")


async def check_durability(redis: "Redis", url: str) -> RedisInfo:
    """Check that Redis is durable and return its state.

    In a Cluster one primary that can be used is enough. Raises RedisNotDurable or RedisUnavailable with the remedy.
    """
    try:
        state = await inspect_primaries(redis)
    except RedisUnavailable as error:
        raise RedisUnavailable(f"{redact_url(url)}: {error}", error.trouble) from error
    if state.failure is not None:
        _LOG.warning("a primary of Redis cannot be used, its suppliers wait for it", error=state.failure)
    info = state.combined
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
