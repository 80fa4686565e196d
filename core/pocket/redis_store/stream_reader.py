"""Reading of the streams of a supplier's sessions."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from pocket.redis_store.cluster import ClusterClient
from pocket.redis_store.lua_scripts import STATES
from pocket.redis_store.node_addresses import Address
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.reply_text import text_of
from pocket.redis_store.server_info import UNREPORTED
from pocket.redis_store.store_errors import CommandRejected
from pocket.redis_store.stream_losses import deleted_entries, states_arguments


class Entry(NamedTuple):
    """One recorded relay with its position in the stream."""

    id: str
    relay: bytes


@dataclass(frozen=True, slots=True)
class StreamPoll:
    """A supplier's streams at one moment.

    `headers` (session id → canonical header bytes) is None unless they were requested.
    """

    incarnation: str
    registered: int
    """Number of open and unsettled sessions."""
    headers: Mapping[str, bytes] | None
    entries: Mapping[str, list[Entry]]


def origin_of(incarnation: str, history_id: str) -> str:
    """Return the origin of entry ids: only ids of one origin may be compared.

    Entry ids are times of the primary's clock. After a failover the new primary may have lost entries and have a slower
    clock, so that it gives new entries smaller ids than those that were read from the former one. Processes must agree
    on the origin, so that a history which Redis does not report, and each process has to guess, is no part of it.
    """
    if not history_id or history_id.startswith(UNREPORTED):
        return incarnation
    return f"{incarnation}@{hashlib.blake2b(history_id.encode(), digest_size=8).hexdigest()}"


def primary_of(redis: "Redis", keys: RedisKeys, supplier: str) -> Address | None:
    """Return the primary that holds a supplier's keys, as far as known.

    None without a Cluster.
    """
    return redis.primary_of(keys.sessions(supplier)) if isinstance(redis, ClusterClient) else None


def incarnation_of(origin: str) -> str:
    """Return the incarnation of an origin."""
    return origin.partition("@")[0]


def _headers(rows: Mapping[Any, Any]) -> dict[str, bytes]:
    return {text_of(key): bytes(value) for key, value in rows.items() if isinstance(value, bytes)}


def _flat(pairs: Mapping[str, str]) -> list[str]:
    return [text for pair in pairs.items() for text in pair]


class StreamExtent(NamedTuple):
    """The id of a stream's last entry, and the number of its entries."""

    last_id: str = "0-0"
    entries: int = 0


def _relay_in(fields: Any) -> bytes:
    """Return the relay of an entry, empty for an entry that no relayer appended."""
    rows = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=False))
    return bytes(rows.get(b"r", b""))


class StreamReader:
    """Reads the streams of one supplier. The caller keeps the positions."""

    def __init__(self, redis: "Redis", keys: RedisKeys, supplier: str) -> None:
        self._redis = redis
        self._keys = keys
        self.supplier = supplier

    @property
    def redis(self) -> "Redis":
        """Return the client."""
        return self._redis

    @property
    def primary(self) -> Address | None:
        """Return the primary that holds the streams, as far as known.

        None without a Cluster.
        """
        return primary_of(self._redis, self._keys, self.supplier)

    async def sessions(self) -> dict[str, bytes]:
        """Return open and unsettled sessions: id → canonical header bytes."""
        return _headers(await self._redis.hgetall(self._keys.sessions(self.supplier)))

    async def incarnation(self) -> str:
        """Return the marker of the supplier's streams, or '' if there are none."""
        return text_of(await self._redis.get(self._keys.incarnation(self.supplier)) or b"")

    async def read(self, positions: Mapping[str, str], count: int = 500) -> dict[str, list[Entry]]:
        """Read at most `count` entries after each session's position ('0-0' = start).

        One command reads all sessions.
        """
        if not positions:
            return {}
        execute: Any = self._redis.execute_command
        return self._entries(await execute(*self._xread(positions, count)), positions)

    def _xread(self, positions: Mapping[str, str], count: int) -> list[Any]:
        streams = [self._keys.stream(self.supplier, session_id) for session_id in positions]
        return ["XREAD", "COUNT", count, "STREAMS", *streams, *positions.values()]

    def _entries(self, reply: Any, positions: Mapping[str, str]) -> dict[str, list[Entry]]:
        rows = reply.items() if isinstance(reply, dict) else reply
        if not rows:
            return {}
        sessions = {self._keys.stream(self.supplier, session_id): session_id for session_id in positions}
        return {
            sessions[text_of(name)]: [Entry(text_of(i), _relay_in(fields))
                                    for i, fields in entries if fields]
            for name, entries in rows
        }  # fmt: skip

    def queue_poll(self, pipe: "Pipeline", positions: Mapping[str, str], count: int, *, headers: bool) -> int:
        """Queue the commands of a poll and return how many they are.

        They read the incarnation first: entries that follow are of this incarnation or of a later one.
        """
        pipe.get(self._keys.incarnation(self.supplier))
        name = self._keys.sessions(self.supplier)
        if headers:
            pipe.hgetall(name)
        else:
            pipe.hlen(name)
        if not positions:
            return 2
        pipe.execute_command(*self._xread(positions, count))
        return 3

    def read_poll(self, replies: Sequence[Any], positions: Mapping[str, str]) -> StreamPoll:
        """Read the replies of a poll. Raises the error that Redis returned instead of one."""
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        headers = _headers(replies[1]) if isinstance(replies[1], dict) else None
        return StreamPoll(
            text_of(replies[0] or b""), int(replies[1]) if headers is None else len(headers), headers,
            self._entries(replies[2], positions) if len(replies) > 2 else {},
        )  # fmt: skip

    async def rejected(self, positions: Mapping[str, str]) -> set[str]:
        """Return the sessions whose stream Redis refuses to read.

        Its key may hold another type.
        """
        session_ids = set()
        for session_id, position in positions.items():
            try:
                await self.read({session_id: position}, 1)
            except CommandRejected:
                session_ids.add(session_id)
        return session_ids

    async def extents(self, session_ids: Iterable[str]) -> dict[str, StreamExtent]:
        """Return how far each stream reaches."""
        names = list(session_ids)
        async with self._redis.pipeline(transaction=False) as pipe:
            for session_id in names:
                pipe.xrevrange(self._keys.stream(self.supplier, session_id), count=1)
                pipe.xlen(self._keys.stream(self.supplier, session_id))
            rows: list[Any] = await pipe.execute()
        return {
            name: StreamExtent(text_of(last[0][0]) if last else "0-0", int(entries))
            for name, last, entries in zip(names, rows[::2], rows[1::2], strict=True)
        }

    async def lost(self, session_ids: Iterable[str]) -> set[str]:
        """Return the open sessions of which Redis lost the stream or entries.

        Raises the errors of Redis.
        """
        keys, names = states_arguments(self._keys, self.supplier, session_ids)
        numbers = deleted_entries(await STATES.run(self._redis, keys, names), len(names))
        return {name for name, deleted in zip(names, numbers, strict=True) if deleted}

    async def finished(self, session_ids: Iterable[str]) -> set[str]:
        """Return those of the sessions that their owner has finished."""
        names = list(session_ids)
        if not names:
            return set()
        rows: Any = await self._redis.hmget(self._keys.closed(self.supplier), names)
        return {name for name, row in zip(names, rows, strict=True) if row and text_of(row).startswith("done/")}

    async def publish_replicated(self, marks: Mapping[str, str]) -> None:
        """Publish durably up to where a volume holds the relays: session id → `origin/id`."""
        if marks:
            await self._redis.hset(self._keys.replicated(self.supplier), items=_flat(marks))

    def queue_replicated(self, pipe: "Pipeline", marks: Mapping[str, str]) -> None:
        """Queue what `publish_replicated` sends."""
        pipe.hset(self._keys.replicated(self.supplier), items=_flat(marks))
