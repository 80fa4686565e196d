"""Read and store the new relays of many suppliers together.

A round is one pipeline to Redis, one transaction per file of the volume, and one pipeline that publishes the positions,
whatever the number of suppliers. Replies are checked supplier by supplier, and an error of one is raised to that one
only. What concerns all, such as a Redis that is away, is raised to all.
"""

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from pocket.redis_store.node_addresses import Address
from pocket.redis_store.redis_errors import redis_deadline
from pocket.redis_store.store_errors import RedisTrouble, RedisUnavailable
from pocket.redis_store.stream_reader import Entry, StreamPoll, StreamReader
from pocket_miner.ingest.batch_size import AdaptiveBatchSize
from pocket_miner.relay_rows import LeafBatch
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.storage.relay_store import RelayStore

_ROUND_SECONDS: Final = 10.0
"""Limit of one exchange with Redis. All suppliers wait for it, and seal without Redis if it takes too long."""
_MOST_STREAMS: Final = 512
"""Streams of one pipeline. More are read by a further one, so that replies take bounded memory."""


@dataclass(slots=True)
class SessionRead:
    """The new entries of one session, at least one.

    `behind` is True if the stream may have more.
    """

    session: TrackedSession
    terms: LeafTerms
    entries: list[Entry]
    origin: str
    behind: bool
    added: int | None = None
    """Number of new leaves, None unless they are durable."""


class StreamConsumer(Protocol):
    """The consumer of one supplier's streams, as far as a round concerns it."""

    @property
    def tail(self) -> StreamReader:
        """Return the reader of the streams."""

    def accept(self, request: "ReadRequest", poll: StreamPoll, count: int) -> list[SessionRead] | None:
        """Return what to store of a poll, None if something else must be read before."""

    def validate(self, read: SessionRead) -> LeafBatch:
        """Validate the entries of a session, on a thread."""

    async def register_missing(self, sessions: Iterable[TrackedSession]) -> None:
        """Register the sessions that the volume lacks, and read them from their start."""

    def advance(self, request: "ReadRequest", reads: Sequence[SessionRead]) -> dict[str, str]:
        """Move the positions of sessions whose entries are durable.

        Returns the positions to publish: session id → `origin/id`.
        """


class Check(Enum):
    """A way to find out whether Redis has sessions that the consumer does not know."""

    NOTHING = auto()
    NUMBER = auto()
    IDS = auto()


@dataclass(slots=True, eq=False)
class ReadRequest:
    """One supplier's part of a round."""

    consumer: StreamConsumer
    positions: dict[str, str]
    generation: int
    origin: str
    """Origin of the entry ids that are read."""
    check: Check
    entries: int | None = None
    """Number of entries read, None if the consumer did not accept them."""
    marks: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None
    done: bool = False

    def queue(self, pipe: "Pipeline", count: int) -> int:
        """Queue the commands and return how many they are."""
        headers = self.check is Check.IDS
        return self.consumer.tail.queue_poll(pipe, self.positions, count, headers=headers)


_Work = tuple[ReadRequest, SessionRead]


@dataclass(slots=True)
class _Queue:
    """The requests to one primary of Redis."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[ReadRequest] = field(default_factory=list)


class ConsumeRounds:
    """Runs one round after the other. A request joins the next one.

    A round waits `collect_seconds` for further requests. The first waiting caller runs it for all that wait. If that
    one is cancelled, the next one runs it again for the others. In a Cluster each primary has its own rounds, so that
    one that does not answer delays only its own suppliers.
    """

    def __init__(self, redis: "Redis", relay_store: RelayStore, collect_seconds: float = 0.0) -> None:
        self._redis = redis
        self._relay_store = relay_store
        self._collect_seconds = collect_seconds
        self._batch_size = AdaptiveBatchSize()
        self._queues: dict[Address | None, _Queue] = {}

    async def join(self, request: ReadRequest, limit: int | None = None) -> int | None:
        """Read and store one supplier's new entries, at most `limit` per session.

        Returns their number, None if the consumer did not accept them. Raises the errors of Redis and of the volume.
        """
        primary = request.consumer.tail.primary
        queue = self._queues.setdefault(primary, _Queue())
        queue.waiting.append(request)
        try:
            async with queue.turn:
                if not request.done:
                    if self._collect_seconds:
                        await asyncio.sleep(self._collect_seconds)
                    await self._run(_next_round(request, queue.waiting), limit)
        finally:
            queue.waiting.remove(request)
            if not queue.waiting:
                self._queues.pop(primary, None)
        if request.error is not None:
            raise request.error
        return request.entries

    async def _run(self, requests: Sequence[ReadRequest], limit: int | None) -> None:
        try:
            await self._round(requests, limit)
        except Exception as error:  # noqa: BLE001 - every caller raises it
            for request in requests:
                request.error = request.error or error
        for request in requests:
            request.done = True

    async def _round(self, requests: Sequence[ReadRequest], limit: int | None) -> None:
        count = limit or self._batch_size.next(sum(len(request.positions) for request in requests))
        work = await self._read(requests, count)
        sizes = [len(entry.relay) for _, read in work for entry in read.entries]
        self._batch_size.observe(len(sizes), sum(sizes))
        if not work:
            return
        await asyncio.to_thread(self._store, work)
        by_request: dict[int, tuple[ReadRequest, list[SessionRead]]] = {}
        for request, read in work:
            if read.added is not None:
                by_request.setdefault(id(request), (request, []))[1].append(read)
            elif request.error is None:
                await self._register(request, read.session)
        for request, reads in by_request.values():
            request.entries = sum(len(read.entries) for read in reads)
            request.marks = request.consumer.advance(request, reads)
        marked = [request for request, _ in by_request.values() if request.marks]
        if marked:
            try:
                await self._publish(marked)
            except RedisUnavailable:
                # Again, to learn which it concerns: in a Cluster a single primary may be away.
                for request, result in zip(marked, await self._publish(marked, raise_on_error=False), strict=True):
                    if isinstance(result, Exception) and not _is_full(result):
                        request.error = result

    async def _register(self, request: ReadRequest, session: TrackedSession) -> None:
        """Register a session that the volume lacks. The next round reads it."""
        try:
            await request.consumer.register_missing([session])
        except Exception as error:  # noqa: BLE001 - of this supplier alone
            request.error = error

    async def _publish(self, requests: Sequence[ReadRequest], *, raise_on_error: bool = True) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for request in requests:
                request.consumer.tail.queue_replicated(pipe, request.marks)
            async with redis_deadline(_ROUND_SECONDS):
                return list(await pipe.execute(raise_on_error=raise_on_error))

    async def _read(self, requests: Sequence[ReadRequest], count: int) -> list[_Work]:
        async with self._redis.pipeline(transaction=False) as pipe:
            sizes = [request.queue(pipe, count) for request in requests]
            async with redis_deadline(_ROUND_SECONDS):
                replies = await pipe.execute(raise_on_error=False)
        work: list[_Work] = []
        at = 0
        for request, size in zip(requests, sizes, strict=True):
            request.error = request.entries = None
            try:
                poll = request.consumer.tail.read_poll(replies[at : at + size], request.positions)
                reads = request.consumer.accept(request, poll, count)
            except Exception as error:  # noqa: BLE001 - of this supplier alone
                request.error = error
            else:
                request.entries = None if reads is None else 0
                work += [(request, read) for read in reads or ()]
            at += size
        return work

    def _store(self, work: Sequence[_Work]) -> None:
        """Validate and store, on a thread.

        Errors are set in the requests that they concern.
        """
        by_end: dict[int, list[tuple[ReadRequest, SessionRead, LeafBatch]]] = defaultdict(list)
        for request, read in work:
            try:
                by_end[read.session.end].append((request, read, request.consumer.validate(read)))
            except Exception as error:  # noqa: BLE001 - of this supplier alone
                request.error = error
        for end, rows in by_end.items():
            self._store_file(end, rows)

    def _store_file(self, end: int, rows: Sequence[tuple[ReadRequest, SessionRead, LeafBatch]]) -> None:
        """Store in one durable step, or session by session if one of them may be to blame."""
        try:
            numbers = self._relay_store.file(end).store_all([batch for _, _, batch in rows])
        except Exception as error:  # noqa: BLE001 - every caller raises it
            of_all = isinstance(error, sqlite3.OperationalError) or corruption_in(error) is not None
            if len(rows) > 1 and not of_all:
                for row in rows:
                    self._store_file(end, [row])
                return
            for request, _, _ in rows:
                request.error = error
            return
        for (_, read, _), number in zip(rows, numbers, strict=True):
            read.added = number


def _is_full(error: Exception) -> bool:
    """Return True if Redis took no mark because it is full.

    Relayers then keep their logs until the sessions end.
    """
    return isinstance(error, RedisUnavailable) and error.trouble is RedisTrouble.OUT_OF_MEMORY


def _next_round(first: ReadRequest, waiting: Sequence[ReadRequest]) -> list[ReadRequest]:
    """Return the waiting requests that fit into one pipeline, `first` among them."""
    taken, streams = [first], len(first.positions)
    for request in waiting:
        if request is first or request.done or streams + len(request.positions) > _MOST_STREAMS:
            continue
        taken.append(request)
        streams += len(request.positions)
    return taken
