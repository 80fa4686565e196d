"""Define `relayctl inspect` and `relayctl cache`, which show Redis and the Leases."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from redis.asyncio import Redis

from pocket.api.redis import RedisAccess
from pocket.chain_cache.invalidation import publish_invalidation
from pocket.coordination.stores.kubernetes_leases import KubeLeaseStore
from pocket.coordination.stores.lease_store import LeaseStore, LeaseUnavailable
from pocket.errors import ConfigurationError, DecodingError
from pocket.kube.api_client import KubeError
from pocket.kube.api_client import connect as connect_kubernetes
from pocket.protocol.smst.digest import Root
from pocket.redis_store.connection import connect, redact_url
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.redis_leases import RedisLeaseStore
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_miner.console.places import configuration
from pocket_miner.sessions.tracked_session import header_of

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """The Redis to read and how to print the rows."""

    url: str
    keys: RedisKeys
    as_json: bool
    access: RedisAccess = field(default_factory=RedisAccess)


def _target(url: str | None, prefix: str | None, config: Path | None, *, as_json: bool) -> RedisTarget:
    loaded = None if url and prefix else configuration(config)
    if loaded is not None:
        url, prefix = url or loaded.redis_url, prefix or loaded.prefix
    if not url or not prefix:
        raise click.ClickException("name --redis and --prefix, or --config with a miner's configuration")
    try:
        access = loaded.redis_access if loaded is not None else RedisAccess()
        return RedisTarget(url, RedisKeys(prefix), as_json, access)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None


def _show(target: RedisTarget, rows: Iterable[Row]) -> None:
    """Print rows as a table, or as one JSON object a line."""
    shown = list(rows)
    if target.as_json:
        for row in shown:
            click.echo(json.dumps(row, sort_keys=True))
        return
    if not shown:
        click.echo("nothing")
        return
    names = list(shown[0])
    widths = [max(len(name), *(len(str(row[name])) for row in shown)) for name in names]
    click.echo("  ".join(name.upper().ljust(width) for name, width in zip(names, widths, strict=True)).rstrip())
    for row in shown:
        click.echo("  ".join(str(row[n]).ljust(width) for n, width in zip(names, widths, strict=True)).rstrip())


def _read(target: RedisTarget, work: "Callable[[Redis], Awaitable[list[Row]]]") -> None:
    async def run() -> list[Row]:
        redis = connect(target.url, access=target.access)
        try:
            return await work(redis)
        finally:
            await redis.aclose()

    try:
        _show(target, asyncio.run(run()))
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    except RedisUnavailable as error:
        raise click.ClickException(f"Redis {redact_url(target.url)}: {error}") from None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


async def _suppliers(redis: "Redis", keys: RedisKeys, kind: str) -> list[str]:
    """Return the supplier addresses that have a key of this kind."""
    start = f"{keys.prefix}:{kind}:{{"
    names = [_text(name) async for name in redis.scan_iter(f"{start}*", count=1000)]
    return sorted({name.removeprefix(start).partition("}")[0] for name in names})


def _where(command: click.decorators.FC) -> click.decorators.FC:
    for option in (
        click.option("--redis", "url", help="redis://host:6379/0; port-forward it where it is in a cluster"),
        click.option("--prefix", help="Prefix of the RelayMiner: <namespace>-<name> unless spec.prefix is set"),
        click.option(
            "--config",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="A miner's JSON configuration; in its pod it has a default",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line"),
    ):
        command = option(command)
    return command


Work = Callable[..., Awaitable[list[Row]]]


def _command(group: click.Group, name: str) -> Callable[[Work], Work]:
    """Make a command of a function that returns the rows to show.

    The function gets a Redis client, the key names and its own options.
    """

    def made(work: Work) -> Work:
        @group.command(name, help=work.__doc__)
        @_where
        @click.pass_context
        def command(
            context: click.Context, /, url: str | None, prefix: str | None, config: Path | None, as_json: bool, **_: Any
        ) -> None:
            target = _target(url, prefix, config, as_json=as_json)
            own = {key: value for key, value in context.params.items() if key not in _COMMON}
            _read(target, lambda redis: work(redis, target.keys, **own))

        command.params += getattr(work, "__click_params__", [])
        return work

    return made


_COMMON = ("url", "prefix", "config", "as_json")


@click.group("inspect")
def inspect_group() -> None:
    """Show sessions, streams, seals, budgets and Leases."""


@click.group("cache")
def cache_group() -> None:
    """Manage the chain answers that relayers and miners share."""


@_command(inspect_group, "sessions")
@click.option("--supplier", help="Only this operator address")
async def sessions(redis: "Redis", keys: RedisKeys, supplier: str | None) -> list[Row]:
    """Show the sessions that are not settled.

    Each has its state and its relays in Redis.
    """
    rows = []
    for address in [supplier] if supplier else await _suppliers(redis, keys, "sessions"):
        closed = await redis.hgetall(keys.closed(address))
        sealed = await redis.hkeys(keys.seals(address))
        for session_id, raw in (await redis.hgetall(keys.sessions(address))).items():
            header: Any = None
            try:
                header = header_of(raw if isinstance(raw, bytes) else raw.encode())
            except DecodingError:
                header = None
            state = "sealed" if session_id in sealed else "closed" if session_id in closed else "open"
            rows.append(
                {
                    "supplier": address, "session": _text(session_id),
                    "service": header.service_id if header else "?",
                    "end": header.session_end_block_height if header else "?", "state": state,
                    "relays": await redis.xlen(keys.stream(address, _text(session_id))),
                }
            )  # fmt: skip
    return rows


@_command(inspect_group, "streams")
async def streams(redis: "Redis", keys: RedisKeys) -> list[Row]:
    """Show every stream with its length and its last entry.

    The last entry that is on a miner's volume is shown, too.
    """
    rows = []
    for address in await _suppliers(redis, keys, "relays"):
        replicated: Mapping[Any, Any] = await redis.hgetall(keys.replicated(address))
        start = keys.stream(address, "")
        async for name in redis.scan_iter(f"{start}*", count=1000):
            session_id = _text(name).removeprefix(start)
            last: Any = await redis.xrevrange(name, count=1)
            rows.append(
                {
                    "supplier": address, "session": session_id, "relays": await redis.xlen(name),
                    "last": _text(last[0][0]) if last else "-",
                    "replicated": _text(replicated.get(session_id.encode(), b"-")).partition("/")[2] or "-",
                    "bytes": await redis.memory_usage(name) or 0,
                }
            )  # fmt: skip
    return sorted(rows, key=lambda row: (row["supplier"], row["session"]))


@_command(inspect_group, "seals")
async def show_seals(redis: "Redis", keys: RedisKeys) -> list[Row]:
    """Show the seals in Redis. They have claimed amounts and the owner's epoch."""
    rows = []
    for address in await _suppliers(redis, keys, "seals"):
        for text in (await redis.hgetall(keys.seals(address))).values():
            seal = SessionSeal.decode(text)
            root = Root(seal.root)
            rows.append(
                {
                    "supplier": address, "session": seal.session_id, "relays": root.count, "units": root.total,
                    "height": seal.height, "epoch": seal.epoch, "root": seal.root.hex(),
                }
            )  # fmt: skip
    return rows


@_command(inspect_group, "meters")
async def meters(redis: "Redis", keys: RedisKeys) -> list[Row]:
    """Show the used upokt of each session's budget. Served relays use it."""
    rows = []
    for address in await _suppliers(redis, keys, "meter"):
        start = keys.consumed(address, "")
        async for name in redis.scan_iter(f"{start}*", count=1000):
            rows.append(
                {
                    "supplier": address, "session": _text(name).removeprefix(start),
                    "consumed_upokt": _text(await redis.get(name) or 0), "expires_seconds": await redis.ttl(name),
                }
            )  # fmt: skip
    return rows


@_command(inspect_group, "cache")
async def cached(redis: "Redis", keys: RedisKeys) -> list[Row]:
    """Show the chain answers that all processes share.

    Each has the seconds until it expires.
    """
    rows = []
    async for name in redis.scan_iter(f"{keys.cached}*", count=1000):
        kind, _, digest = _text(name).removeprefix(keys.cached).partition(":")
        rows.append({"answer": kind, "question": digest[:16], "bytes": await redis.strlen(name),
                     "seconds": await redis.ttl(name)})  # fmt: skip
    return sorted(rows, key=lambda row: (row["answer"], row["question"]))


@_command(cache_group, "clear")
async def clear(redis: "Redis", keys: RedisKeys) -> list[Row]:
    """Delete every cached chain answer. Redis and all running processes lose it."""
    gone = 0
    async for name in redis.scan_iter(f"{keys.cached}*", count=1000):
        if not _text(name).startswith(keys.cache("witness", "")):  # what nodes answered about sessions is evidence
            gone += await redis.delete(name)
    return [{"answers forgotten": gone, "published as version": await publish_invalidation(redis, keys, None)}]


@inspect_group.command()
@_where
@click.option("--namespace", help="Kubernetes: the RelayMiner's namespace")
@click.option("--name", help="Kubernetes: the RelayMiner's name")
def leases(
    url: str | None, prefix: str | None, config: Path | None, as_json: bool, namespace: str | None, name: str | None
) -> None:
    """Show the holders of shards, the leader and live miners.

    They are read from Kubernetes or Redis.
    """
    loaded = None if (namespace and name) or url else configuration(config)
    group = f"{name}-miner" if name else loaded.lease if loaded else None
    namespace = namespace or (loaded.namespace if loaded else None)
    if namespace and group:
        target, where = RedisTarget("", RedisKeys("kubernetes"), as_json), namespace

        async def kubernetes() -> list[Row]:
            async with connect_kubernetes() as api:
                return await _leases(KubeLeaseStore(api, where, group, call_seconds=10))

        try:
            _show(target, asyncio.run(kubernetes()))
        except (KubeError, LeaseUnavailable) as error:
            raise click.ClickException(str(error)) from None
        return
    target = _target(url, prefix, config, as_json=as_json)
    try:
        _read(target, lambda redis: _leases(RedisLeaseStore(redis, target.keys.leases, call_seconds=5)))
    except LeaseUnavailable as error:
        raise click.ClickException(str(error)) from None


async def _leases(store: LeaseStore) -> list[Row]:
    return [
        {
            "lease": name, "holder": stored.record.holder or "-", "epoch": stored.record.transitions,
            "renewed": stored.record.renewed.isoformat(timespec="seconds"), "seconds": stored.record.lease_seconds,
        }
        for name, stored in sorted((await store.read()).items())
    ]  # fmt: skip
