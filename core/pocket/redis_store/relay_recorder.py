"""Record relays in micro-batches, through one script per supplier.

A local log has them, too. Invariant: `record` returns only when the relay is in its stream and in the local log
(strict). Otherwise it raises and the relay must not be acknowledged.
"""

import asyncio
import contextlib
import functools
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

import structlog
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from pocket.redis_store.cluster import ClusterClient
from pocket.redis_store.connection import inspect_primaries
from pocket.redis_store.log_histories import LogHistories
from pocket.redis_store.log_positions import (
    append_arguments,
    appended_at,
    appended_rows,
    chunks,
    read_marks,
    segment_took,
)
from pocket.redis_store.log_probe import LogProbe
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.lua_scripts import APPEND
from pocket.redis_store.notifications import RelayNotifier
from pocket.redis_store.recorder_queue import RecorderQueue
from pocket.redis_store.recorder_types import AppendRefusal, RecorderCounters, RecorderLimits, Waiting
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import (
    CommandRejected,
    LogUnavailable,
    RedisStoreError,
    RedisTrouble,
    RedisUnavailable,
    SessionClosed,
)
from pocket.redis_store.stream_losses import StreamLosses
from pocket.redis_store.stream_reader import origin_of
from pocket.redis_store.supplier_groups import SupplierGroups
from pocket.redis_store.write_ahead_log import Segment, WriteAheadLog
from pocket.runtime.cpu_utilization import CpuUtilization
from pocket.runtime.ticks import next_tick, sleep_to_tick

_LOG: FilteringBoundLogger = structlog.get_logger()
_BEATS_PER_SEGMENT = 30
_RESTING = 5
_MOST_RESTING = 0.8  # of the high-water mark


class RelayRecorder:
    """Records the relays of one worker. `run` must be running meanwhile."""

    def __init__(
        self,
        redis: "Redis",
        keys: RedisKeys,
        log: WriteAheadLog,
        limits: RecorderLimits | None = None,
        on_replay: Callable[[str], None] = lambda reason: None,
        notifier: RelayNotifier | None = None,
        cpu: Callable[[], float] = time.process_time,
        unique: Callable[[], str] = lambda: uuid.uuid4().hex,
        on_server_time: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._log = log
        self._limits = limits or RecorderLimits()
        self._on_replay = on_replay
        self._notifier = notifier
        self._queue = RecorderQueue(self._limits)
        self._flushing = asyncio.Lock()
        self._groups = SupplierGroups(redis)
        self._incarnations: dict[str, str] = {}
        self._histories = LogHistories(redis, keys)
        self._stream_losses = StreamLosses(redis, keys)
        self._losses: Counter[str] = Counter()  # of each supplier, each of which makes its log due again
        self._suspicious = False  # Redis lost something: other suppliers may be concerned
        self._replayed: set[str] | None = None  # suppliers of the replay in progress, None without one
        self._log_probe = LogProbe(log, self._limits.log_reserve_bytes)
        self._memory_ratio = 0.0
        self.log_problem = ""  # why the write-ahead log takes no relays, until a probe succeeds
        self.redis_error = ""  # of the last heartbeat, empty if it reached Redis
        self._beats, self._stopping = 0, False
        self._busyness = CpuUtilization(cpu)
        self._unique, self._on_server_time = unique, on_server_time
        self.counters = RecorderCounters()

    @property
    def waiting(self) -> int:
        """Return the number of relays not recorded yet."""
        return len(self._queue)

    @property
    def suppliers_with_unacknowledged(self) -> set[str]:
        """Return the suppliers with relays that are not, or may not be, in Redis."""
        return self._queue.suppliers | self._histories.owed(self._log.segments)

    @property
    def overloaded(self) -> bool:
        """Return True if new relays should be rejected before any work is done for them."""
        return self._queue.full or bool(self.log_problem) or self.redis_full

    @property
    def redis_full(self) -> bool:
        """Return True if the memory of Redis is used up to the high-water mark."""
        return self._memory_ratio >= self._limits.memory_high_water_mark

    async def record(self, record: WalRecord) -> None:
        """Record one relay.

        Raises SessionClosed, RedisUnavailable, LogUnavailable or QueueFull.
        """
        await self.submit(record)

    def submit(self, record: WalRecord) -> "asyncio.Future[None]":
        """Queue one relay. The returned future ends as `record` does.

        Raises QueueFull.
        """
        return self._queue.add(record)

    async def run(self) -> None:
        """Flush until cancelled.

        A failure is reported to the waiting relays and never ends the loop.
        """
        try:
            while True:
                first = await self._queue.first()
                busy = self._busyness.read(asyncio.get_running_loop().time()) >= self._limits.linger_above
                batch = [first]
                try:
                    if busy and self._limits.linger_seconds and not self._stopping:
                        await asyncio.sleep(self._limits.linger_seconds)
                    self._queue.fill(batch)
                    await self._flush(batch)
                except BaseException:
                    self._queue.settle(batch)  # no relay waits for a loop that has failed or was cancelled
                    raise
        finally:
            await self._groups.stop()

    async def settled(self) -> None:
        """Wait until everything queued is recorded or rejected."""
        await self._queue.settled.wait()

    async def drain(self, timeout_seconds: float = 0.0) -> None:
        """Wait until everything queued is recorded or rejected.

        Then wait up to the given seconds for Redis to accept unacknowledged relays.
        """
        self._stopping = True
        await self.settled()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self.suppliers_with_unacknowledged:  # noqa: ASYNC110 - the heartbeat appends it
                    await asyncio.sleep(self._limits.retry_seconds)

    async def _flush(self, batch: list[Waiting]) -> None:
        try:
            segment = self._log.append([waiting.record for waiting in batch])
        except (LogUnavailable, OSError) as error:
            self.log_problem = str(error)
            self._fail(batch, error if isinstance(error, LogUnavailable) else RedisUnavailable(f"local log: {error}"))
            self._queue.settle(batch)
            return
        by_supplier: dict[str, list[Waiting]] = defaultdict(list)
        for waiting in batch:
            by_supplier[waiting.record.supplier].append(waiting)
        for supplier in by_supplier:
            segment.histories.setdefault(supplier, self._histories.of(supplier))
        segment.pending += len(by_supplier)

        def ended(group: list[Waiting]) -> None:
            segment.pending -= 1
            undecided = (waiting.record for waiting in group if not waiting.done.done())
            segment.unacknowledged.update((record.supplier, record.session_id) for record in undecided)
            self._queue.settle(group)

        try:
            await self._flushing.acquire()
        except asyncio.CancelledError:
            for group in by_supplier.values():
                ended(group)
            raise
        try:
            await self._groups.run(
                (self._append_waiting(supplier, group, segment), functools.partial(ended, group))
                for supplier, group in by_supplier.items()
            )
        finally:
            self._flushing.release()
        if self._notifier is not None:
            await self._groups.run([(self._notifier.notify(by_supplier), lambda: None)])

    async def _append_waiting(self, supplier: str, group: list[Waiting], segment: Segment) -> None:
        end = group[-1].since + self._limits.append_timeout_seconds
        while True:
            try:
                closed = await self._append(supplier, [waiting.record for waiting in group], segment)
                break
            except RedisUnavailable as failure:
                if not failure.trouble.is_transient or asyncio.get_running_loop().time() >= end:
                    segment.unacknowledged.update((supplier, waiting.record.session_id) for waiting in group)
                    self._fail(group, RedisUnavailable(f"the relay was not recorded: {failure}", failure.trouble))
                    return
                await asyncio.sleep(self._limits.retry_seconds)
        for waiting in group:
            if waiting.done.done():
                continue
            if waiting.record.session_id not in closed:
                self.counters.appended += 1
                waiting.done.set_result(None)
            elif closed[waiting.record.session_id] is AppendRefusal.CLOSED:
                self.counters.refused_closed += 1
                waiting.done.set_exception(SessionClosed(f"session {waiting.record.session_id} is closed"))
                waiting.done.exception()
            else:
                self._fail([waiting], CommandRejected("Redis rejects the session's stream", RedisTrouble.REJECTED))

    def _fail(self, group: Iterable[Waiting], error: RedisStoreError) -> None:
        for waiting in group:
            if not waiting.done.done():
                self.counters.failed += 1
                waiting.done.set_exception(error)
                waiting.done.exception()

    async def _append(self, supplier: str, records: list[WalRecord], segment: Segment) -> dict[str, AppendRefusal]:
        """Append records of one supplier. Returns the sessions that took none."""
        by_session: dict[str, list[WalRecord]] = defaultdict(list)
        for record in records:
            by_session[record.session_id].append(record)
        history = self._histories.of(supplier)
        arguments = append_arguments(self._keys, supplier, by_session, self._unique())
        reply = await APPEND.run(self._redis, *arguments, 1 + len(by_session))
        incarnation, lasts = appended_rows(reply)
        if (seconds := appended_at(lasts)) is not None:
            self._on_server_time(seconds)
        if self._incarnations.setdefault(supplier, incarnation) != incarnation:
            self._incarnations[supplier] = incarnation
            self._lost(supplier)
        if self._replayed is not None:
            self._replayed.add(supplier)
        is_present = history == self._histories.of(supplier)
        rows, origin = zip(by_session, lasts, strict=True), origin_of(incarnation, history)
        refusals = {name: segment_took(segment, (supplier, name), last, origin, is_present) for name, last in rows}
        return {name: refusal for name, refusal in refusals.items() if refusal is not None}

    def _lost(self, supplier: str) -> None:
        """Have the heartbeat append a supplier's log again: Redis lost its relays.

        A replay in progress repairs a loss before it. Only what was written meanwhile is due once more. The next
        heartbeat finds out whether Redis lost those of others, too.
        """
        self._suspicious = True
        self._losses[supplier] += self._replayed is None or supplier in self._replayed
        for segment in self._log.segments:
            if supplier in segment.suppliers:
                segment.histories[supplier] = ""

    async def maintain(self, seconds: float = 1.0) -> None:
        """Watch Redis, replay the log after a loss, and release segments, without end.

        Without relays and problems it looks once in `_RESTING` periods, and as soon as there is a relay.
        """
        while True:
            try:
                await self.maintain_once()
                self.redis_error = ""
            except (RedisStoreError, OSError) as error:  # of Redis, and of the log's disk
                self.redis_error = str(error) if isinstance(error, RedisUnavailable) else ""
            if self._resting:
                now = asyncio.get_running_loop().time()
                await self._queue.arrival(next_tick(now, _RESTING * seconds) - now)
            else:
                await sleep_to_tick(seconds)

    @property
    def _resting(self) -> bool:
        """Return True if Redis could lose no relay, and no problem could end."""
        ratio = self._memory_ratio / self._limits.memory_high_water_mark
        return not (
            self._queue.suppliers or self._log.segments or self._log.damaged or self.log_problem or self.redis_error
            or ratio > _MOST_RESTING
        )  # fmt: skip

    async def maintain_once(self) -> None:
        """Run one heartbeat. Raises RedisUnavailable."""
        problem = await self._log_probe.problem()
        if problem and not self.log_problem:
            _LOG.error("the write-ahead log takes no relays", problem=problem)
        self.log_problem = problem
        state = await inspect_primaries(self._redis)
        self._memory_ratio = state.combined.memory_ratio()
        restarted, failure = bool(self._histories.known), state.failure
        self._histories.observe(state)
        if self._beats % _BEATS_PER_SEGMENT == 0:
            self._log.take_back(await asyncio.to_thread(self._log.readable_again))
        if self._suspicious or self._beats % self._log.beats_between_looks(_BEATS_PER_SEGMENT) == 0:
            self._suspicious = False
            await self._find_lost(dict(self._incarnations), self._histories.appended(self._log.segments))
        due = [s for s in self._log.segments if not s.damaged and self._histories.due_sessions(s)]
        if due:
            await self.replay("Redis was restarted" if restarted else "first contact with Redis", due)
        await self._release()
        if any(segment.unacknowledged and not segment.damaged for segment in self._log.segments):
            failure = await self.replay("Redis did not acknowledge all relays", unacknowledged_only=True) or failure
        if failure is not None:
            raise failure

    async def _find_lost(self, known: Mapping[str, str], pairs: Collection[tuple[str, str]]) -> None:
        """Find the suppliers whose relays Redis lost without a restart, as by eviction."""
        for supplier in await self._stream_losses.find(known, pairs):
            # An append during the query may have noticed the loss.
            if self._incarnations.get(supplier) == known.get(supplier):
                self._incarnations.pop(supplier, None)
                self._lost(supplier)

    async def replay(
        self, reason: str, due: list[Segment] | None = None, *, unacknowledged_only: bool = False
    ) -> RedisUnavailable | None:
        """Append the log's relays again, or what is due of some segments.

        A relay that is there makes no second leaf. New relays are recorded between the batches, so a long log does not
        delay them. Segments that were appended are not appended again after a failure of a later one. A supplier whose
        relays Redis rejects, or whose primary in a Cluster cannot be used, delays no other: its error is returned.
        Raises RedisUnavailable.
        """
        self._on_replay(reason)
        self._replayed, failure = set(), None
        try:
            for segment in list(self._log.segments) if due is None else due:
                if unacknowledged_only:
                    wanted = {pair for pair in segment.unacknowledged if not self._histories.is_away(pair[0])}
                else:
                    wanted = set(segment.sessions) if due is None else self._histories.due_sessions(segment)
                if wanted and not segment.damaged:
                    failure = await self._replay_segment(segment, wanted) or failure
        finally:
            self._replayed = None
        return failure

    async def _replay_segment(self, segment: Segment, wanted: set[tuple[str, str]]) -> RedisUnavailable | None:
        complete = {name for name, _ in wanted} - {name for name, _ in segment.sessions - wanted}
        before = {supplier: (self._histories.of(supplier), self._losses[supplier]) for supplier in complete}
        # a failure from now on adds to it again
        segment.replaying = segment.unacknowledged & wanted
        segment.unacknowledged = segment.unacknowledged - wanted
        failed: dict[str, RedisUnavailable] = {}
        try:
            await self._replay(segment, wanted, failed)
            segment.unacknowledged.update(pair for pair in segment.replaying if pair[0] in failed)
        except OSError as error:
            segment.unacknowledged |= segment.replaying
            self._log.report_damage(segment, error)
            return None
        except BaseException:
            segment.unacknowledged |= segment.replaying
            raise
        finally:
            segment.replaying = set()
        for supplier, (history, losses) in before.items():
            if supplier not in failed and losses == self._losses[supplier]:
                segment.histories[supplier] = history
        return next(iter(failed.values()), None)

    async def _replay(
        self, segment: Segment, wanted: Collection[tuple[str, str]], failed: dict[str, RedisUnavailable]
    ) -> None:
        batches: dict[str, list[WalRecord]] = defaultdict(list)
        records, damage = await asyncio.to_thread(self._log.load, segment)
        for record in records:
            pair = record.supplier, record.session_id
            if pair in wanted and not segment.is_rejected(pair):
                batches[record.supplier].append(record)
        reason: RedisUnavailable | None = None
        for supplier, records in batches.items():
            if reason is not None and self._histories.is_away(supplier):
                failed[supplier] = reason
                continue
            try:
                for chunk in chunks(records):
                    refused = await self._groups.run_one(self._append(supplier, chunk, segment), self._flushing)
                    self.counters.replayed += sum(r.session_id not in refused for r in chunk)
            except RedisUnavailable as error:
                failed[supplier] = error
                if isinstance(error, CommandRejected):
                    continue
                if not isinstance(self._redis, ClusterClient):
                    raise
                reason = error
                self._histories.set_away(supplier)
        if self._notifier is not None:
            await self._notifier.notify(batches)
        if damage is not None:
            raise damage

    async def _release(self) -> None:
        """Release ended segments whose sessions are settled or replicated past them.

        Positions tell how far a stream was read, not that nothing of it was lost before: that is looked up first.
        """
        self._beats += 1
        if self._beats % _BEATS_PER_SEGMENT == 0 and self._log.active is not None and self._log.active.size:
            self._log.rotate()
        ended = [segment for segment in self._log.segments if segment is not self._log.active]
        if not ended:
            return
        marks = await read_marks(self._redis, self._keys, {pair for segment in ended for pair in segment.sessions})
        now = await inspect_primaries(self._redis)
        safe = self._histories.safe(ended, marks, now)
        concerned = set().union(*(segment.suppliers for segment in safe))
        known = {name: incarnation for name, incarnation in self._incarnations.items() if name in concerned}
        await self._find_lost(known, self._histories.appended(safe))
        for segment in self._histories.safe(safe, marks, now):
            self._log.release(segment)
