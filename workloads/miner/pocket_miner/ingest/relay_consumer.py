"""Consume a supplier's relay streams.

Each entry is validated and stored on the volume.
"""

import asyncio
import functools
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain.client import ChainClient
from pocket.errors import ChainError, DecodingError
from pocket.redis_store.store_errors import CommandRejected
from pocket.redis_store.stream_reader import StreamPoll, StreamReader, incarnation_of, origin_of
from pocket.runtime.concurrency import map_bounded
from pocket_miner import miner_metrics
from pocket_miner.ingest.consume_rounds import Check, ConsumeRounds, ReadRequest, SessionRead
from pocket_miner.ingest.entry_validation import EntryValidator
from pocket_miner.relay_rows import LeafBatch
from pocket_miner.sessions.evidence import REJECTIONS, Statement
from pocket_miner.sessions.leaf_validation import LeafTerms, leaf_if_valid
from pocket_miner.sessions.recorded_terms import restored_session
from pocket_miner.sessions.stages import is_late_to_seal
from pocket_miner.sessions.start_params import StartParams
from pocket_miner.sessions.terms import SessionTerms, ask_terms, ask_terms_of_every_node, strictest
from pocket_miner.sessions.tracked_session import TrackedSession, header_of
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.storage.disk_reserve import VolumeFull
from pocket_miner.storage.relay_store import RelayStore

_LOG: FilteringBoundLogger = structlog.get_logger()
_ASK_AGAIN_SECONDS = 0.5
_LEARNED_AT_ONCE = 16


class RelayConsumer:
    """Reads the new entries of every session.

    Read positions are durable on the volume.
    """

    def __init__(
        self,
        tail: StreamReader,
        relay_store: RelayStore,
        chain: ChainClient,
        sessions: dict[str, TrackedSession],
        *,
        owner: bool = True,
        server_milliseconds: Callable[[], float | None] = lambda: None,
        history_id: Callable[[], str] = lambda: "",
        dead_letters: DeadLetters | None = None,
        volume_full: Callable[[], bool] = lambda: False,
        rounds: ConsumeRounds | None = None,
        start_params: StartParams | None = None,
    ) -> None:
        """Take the time by Redis's clock from `server_milliseconds`, None while unknown.

        Entry ids hold that time.

        `history_id` returns the history of Redis, '' while unknown. Suppliers with the same `rounds` are read together.
        """
        self._tail = tail
        self.history_id = history_id
        self._server_milliseconds = server_milliseconds
        self._validator = EntryValidator(tail.supplier, relay_store, dead_letters)
        self._volume_full = volume_full
        self._owner = owner  # a standby does not publish how far its volume has read
        self._relay_store = relay_store
        self._chain = chain
        self._sessions = sessions
        self._revived: list[str] = []
        self._damaged: set[str] = set()
        self._unreadable: set[str] = set()  # sessions whose stream Redis refuses to read
        self._incarnation: str | None = None  # None: not read yet
        self._origin = ""
        # The consume loop and sealing both read. The slower of them must never set a position back.
        self._reading = asyncio.Lock()
        self._stored = (miner_metrics.RELAYS if owner else miner_metrics.FOLLOWED).labels(tail.supplier)
        self._rounds = rounds or ConsumeRounds(tail.redis, relay_store)
        self.start_params = start_params or StartParams(chain)
        self._registered = -1  # number of sessions in Redis when they were last read
        self._ask_again: dict[str, float] = {}  # loop's clock, by session id
        # Increases with every reread: a read that began before it must not move a position.
        self._generation = 0

    @property
    def supplier(self) -> str:
        """Return the supplier's operator address."""
        return self._tail.supplier

    @property
    def tail(self) -> StreamReader:
        """Return the reader of the supplier's streams."""
        return self._tail

    @property
    def origin(self) -> str:
        """Return the origin of the entry ids that are read."""
        return self._origin

    async def restore(self) -> None:
        """Load the sessions on the volume after a start. Raises its errors."""
        for _, row in await asyncio.to_thread(self._relay_store.sessions):
            if row.supplier != self.supplier or row.session_id in self._sessions:
                continue
            try:
                self._sessions[row.session_id] = restored_session(row)
            except DecodingError as error:
                self._report_damaged(row.session_id, error)

    def _report_damaged(self, session_id: str, error: Exception | str) -> None:
        """Count and log, once, a header that cannot be decoded.

        The session is neither mined nor deleted.
        """
        if session_id in self._damaged:
            return
        self._damaged.add(session_id)
        miner_metrics.REFUSED.labels(miner_metrics.RefusedEntry.DAMAGED_HEADER).inc()
        _LOG.error("session skipped, its header is damaged", session=ascii(session_id)[:80], error=error)

    async def ended_elsewhere(self) -> list[str]:
        """Return the sessions whose tombstones show that another owner has ended them.

        Raises the errors of Redis. A session missing in Redis proves nothing: Redis may have been restored from an
        older file.
        """
        return sorted(await self._tail.finished([i for i, s in self._sessions.items() if s.seal is None]))

    def reread(self, session_ids: Collection[str] | None = None) -> None:
        """Read these streams from their start, None for all.

        Redis may hold other entries under known ids.
        """
        self._unreadable.clear()
        self._generation += 1
        for session_id, session in self._sessions.items():
            if session_ids is None or session_id in session_ids:
                session.position = "0-0"

    async def discover(self, finished: Mapping[str, object]) -> bool:
        """Add the sessions that relayers registered, without `finished` ones.

        Returns True if Redis has lost the streams that were read before.
        """
        history_id = self.history_id()
        incarnation = await self._tail.incarnation()
        lost = incarnation != self._incarnation and (
            bool(self._incarnation)
            or any(incarnation_of(s.origin) not in ("", incarnation) for s in self._sessions.values())
        )
        if incarnation != self._incarnation or origin_of(incarnation, history_id) != self._origin:
            self._follow(incarnation, history_id)
        registered = await self._tail.sessions()
        self._registered = len(registered)
        self._revived = [session_id for session_id in registered if session_id in finished]
        fresh = {i: raw for i, raw in registered.items() if i not in finished and i not in self._sessions}
        if fresh:
            await self.track(fresh)
        # Last: an attempt that failed before this finds the loss again.
        self._incarnation = incarnation
        return lost

    def _follow(self, incarnation: str, history_id: str) -> None:
        """Read streams of this origin, from their start after another one."""
        origin = origin_of(incarnation, history_id)
        self._generation += 1
        for session in self._sessions.values():
            known = session.origin if history_id else incarnation_of(session.origin)
            if known != origin:
                session.position = "0-0"
        self._origin = origin

    def revived(self, finished: Mapping[str, int]) -> list[tuple[str, int]]:
        """Return ended sessions (id, end height) that `discover` found registered again."""
        return [(session_id, finished[session_id]) for session_id in self._revived if session_id in finished]

    async def track(self, headers: Mapping[str, bytes]) -> None:
        """Track the sessions of these headers.

        A header that does not match its session is skipped. A session that the volume cannot register is tracked all
        the same: it is registered with its first relays.
        """
        by_end: dict[int, list[tuple[TrackedSession, bytes]]] = defaultdict(list)
        for session_id, raw in headers.items():
            try:
                header = header_of(raw)
                if header.session_id != session_id:
                    raise DecodingError(f"the header is of session {header.session_id}")
            except DecodingError as error:
                self._report_damaged(session_id, error)
                continue
            by_end[header.session_end_block_height].append((TrackedSession(header), raw))
        for end, rows in by_end.items():
            try:
                await asyncio.to_thread(self._register, end, [(session.session_id, raw) for session, raw in rows])
            except sqlite3.Error as error:
                if corruption_in(error) is not None:
                    raise
                _LOG.error("sessions not registered on the volume", session_end=end, error=error)
            for session, _ in rows:
                self._sessions.setdefault(session.session_id, session)

    def _register(self, end: int, rows: list[tuple[str, bytes]]) -> None:
        self._relay_store.file(end).add_sessions(self.supplier, rows)

    async def register_missing(self, sessions: Iterable[TrackedSession]) -> None:
        """Register the sessions that the volume lacks, and read them from their start.

        Without that their relays could not be stored. Raises the errors of the volume.
        """
        for session in await asyncio.to_thread(self._missing, list(sessions)):
            self._generation += 1
            session.position = "0-0"
            if self._sessions.get(session.session_id) is not session:  # it ended meanwhile
                await asyncio.to_thread(self._relay_store.remove, session.end, self.supplier, session.session_id)
                continue
            _LOG.warning("session missing on the volume, reading it again", session=session.session_id)

    def _missing(self, sessions: Sequence[TrackedSession]) -> list[TrackedSession]:
        """Register the sessions that the volume lacks and return them."""
        missing = [s for s in sessions if not self._relay_store.file(s.end).has(self.supplier, s.session_id)]
        for session in missing:
            self._register(session.end, [(session.session_id, session.header.encode())])
        return missing

    async def learn_terms(self, session: TrackedSession, height: int = 0) -> bool:
        """Query header, target and compute units at the session's start.

        Returns False while unknown. Nothing is guessed. `height` is the height of the block being decided, 0 outside a
        decision. Only during a decision is a rejected or recently failed query repeated.
        """
        if session.terms is not None:
            return True
        now = asyncio.get_running_loop().time()
        if not height and (session.rejected or now < self._ask_again.get(session.session_id, 0.0)):
            return False
        try:
            if session.rejected:
                await self._ask_everybody(session, height)
            else:
                self._accept("first", height, session, await ask_terms(self._chain, self.supplier, session.header))
        except (ChainError, DecodingError):
            self._ask_again[session.session_id] = now + _ASK_AGAIN_SECONDS
            return False
        self._ask_again.pop(session.session_id, None)
        return session.terms is not None

    async def confirm_terms(self, session: TrackedSession, height: int) -> bool:
        """Query every node for the terms, without caches.

        Returns True if a second answer agrees. If the nodes agree on other terms than the first answer, theirs are
        used: relays that do not meet them are deleted from the volume, and all entries are read again. The relays of a
        sealed session stay as they are: its proof needs all of them. Raises the errors of the volume.
        """
        if session.terms is None or session.terms_confirmed:
            return session.terms_confirmed
        confirmed = await self._confirmed_by_nodes(session, session.terms, height)
        if session.seal is None:
            stored = await asyncio.to_thread(self._relay_store.terms_of, session.end, self.supplier, session.session_id)
            if stored not in (None, session.terms.name):  # before a restart, or by a standby
                _LOG.warning("relays stored by other session terms, validating them again", session=session.session_id)
                await self._replace_terms(session, session.terms, confirmed=False)
        session.terms_confirmed = confirmed
        return confirmed

    async def _confirmed_by_nodes(self, session: TrackedSession, known: LeafTerms, height: int) -> bool:
        votes = Counter[LeafTerms]()
        ask = functools.partial(ask_terms_of_every_node, self._chain, self.supplier, session.header)
        for _, stated in (await self.start_params.in_time(height, ask)).values():
            if stated.terms is not None:
                votes[stated.terms] += 1
        if not votes:
            return False
        (best, number), *others = votes.most_common(2)
        if others and others[0][1] == number:  # no answer outweighs the other
            if session.windows is not None and is_late_to_seal(session.windows, height):
                best = strictest(known, votes)
                if best != known:
                    await self._replace_terms(session, best, confirmed=False)
            return False
        if best == known:
            return True
        doubted = session.doubted_terms == best
        session.doubted_terms = best
        if number > 1 or doubted:
            _LOG.error(
                "session terms replaced, the chain's nodes state others than the first answer: validating relays again",
                session=session.session_id,
                height=height,
            )
            await self._replace_terms(session, best)
        return session.terms_confirmed

    async def _replace_terms(self, session: TrackedSession, terms: LeafTerms, *, confirmed: bool = True) -> None:
        async with self._reading:
            if session.seal is None:
                await asyncio.to_thread(self._check_again, session, terms)
                self._generation += 1
                session.position = "0-0"
            session.terms, session.terms_confirmed = terms, confirmed

    def _check_again(self, session: TrackedSession, terms: LeafTerms) -> None:
        fits = functools.partial(leaf_if_valid, terms)
        self._relay_store.file(session.end).check_again(self.supplier, session.session_id, fits, terms.name)

    async def _ask_everybody(self, session: TrackedSession, height: int) -> None:
        """Query every node about a rejected session.

        The answer of a node that knows the session is accepted.
        """
        ask = functools.partial(ask_terms_of_every_node, self._chain, self.supplier, session.header)
        answers = await self.start_params.in_time(height, ask)
        good = [(node, row) for node, row in answers.items() if row[1].terms is not None]
        for node, (at, terms) in good or answers.items():
            self._accept(node, at or height, session, terms)

    def _accept(self, source: str, height: int, session: TrackedSession, terms: SessionTerms) -> None:
        if not session.params_confirmed:
            session.params = terms.params or session.params
        if terms.rejection is not None:
            session.evidence.add(Statement(terms.rejection, source, height, terms.text))
            return
        session.evidence.retract(*REJECTIONS)
        session.terms = terms.terms

    async def poll(self, check: Check) -> int | None:
        """Store new entries if Redis has no session that `discover` would add.

        Returns the number of entries read, None if `discover` must run before. Raises the errors of Redis and of the
        volume.
        """
        if incarnation_of(self._origin) != self._incarnation or self._volume_full():
            return None
        if any(session.terms is None and not session.rejected for session in self._sessions.values()):
            return None
        async with self._reading:
            try:
                return await self._rounds.join(self._request(check))
            except CommandRejected:
                return None

    async def consume_once(self, count: int | None = None) -> int:
        """Store new entries, at most `count` per session.

        Streams that Redis has lost since `discover` are read from their start, and `discover` still finds the loss.
        Returns the number of entries read. Raises the errors of Redis and of the volume.
        """
        async with self._reading:
            if self._volume_full():
                raise VolumeFull("relays stay in Redis, the volume is full: free up or enlarge it")
            await map_bounded(self.learn_terms, list(self._sessions.values()), _LEARNED_AT_ONCE)
            try:
                return await self._read_once(count)
            except CommandRejected as error:
                rejected = await self._tail.rejected(self._request(Check.NOTHING).positions)
                if not rejected:
                    raise
                self._unreadable |= rejected
                for session_id in rejected:
                    self._report_damaged(session_id, error)
            return await self._read_once(count)

    async def _read_once(self, count: int | None) -> int:
        read = await self._rounds.join(self._request(Check.NOTHING), count)
        if read is None:
            self._follow(await self._tail.incarnation(), self.history_id())
            read = await self._rounds.join(self._request(Check.NOTHING), count)
        return read or 0

    def _request(self, check: Check) -> ReadRequest:
        readable = ((i, s) for i, s in self._sessions.items() if s.terms is not None and i not in self._unreadable)
        positions = {i: session.position for i, session in readable}
        return ReadRequest(self, positions, self._generation, self._origin, check)

    def accept(self, request: ReadRequest, poll: StreamPoll, count: int) -> list[SessionRead] | None:
        """Return what to store of a poll, None if `discover` must run before.

        That is so if the entries are of another origin than the positions, or if a session was registered.
        """
        history_id = self.history_id()
        origin = request.origin if history_id else incarnation_of(request.origin)
        if request.generation != self._generation or origin_of(poll.incarnation, history_id) != origin:
            return None
        if request.check is Check.NUMBER and poll.registered != self._registered:
            return None
        if any(i not in self._sessions and i not in self._damaged for i in poll.headers or ()):
            return None
        if request.check is Check.IDS:
            self._registered = poll.registered
        for session_id in request.positions:
            if session_id not in poll.entries and session_id in self._sessions:
                self._sessions[session_id].behind = False
        reads = []
        for session_id, entries in poll.entries.items():
            session = self._sessions.get(session_id)
            if session is not None and session.terms is not None and entries:
                reads.append(SessionRead(session, session.terms, entries, request.origin, len(entries) >= count))
        return reads

    def advance(self, request: ReadRequest, reads: Sequence[SessionRead]) -> dict[str, str]:
        """Move the positions of sessions whose entries are durable.

        Returns the positions to publish. A reread that was requested meanwhile is not undone.
        """
        marks = {}
        for read in reads:
            session, position = read.session, read.entries[-1].id
            self._stored.inc(read.added or 0)
            self._measure(read.entries[0].id)
            session.behind = read.behind
            if request.generation == self._generation:
                session.position, session.origin = position, read.origin
                marks[session.session_id] = f"{read.origin}/{position}"
        return marks if self._owner else {}

    def _measure(self, oldest_id: str) -> None:
        now = self._server_milliseconds()
        if now is not None:
            miner_metrics.TAIL_AGE.observe(max(0.0, now - int(oldest_id.partition("-")[0])) / 1000)

    def validate(self, read: SessionRead) -> LeafBatch:
        """Return the leaves of the entries of a session, without invalid ones."""
        return self._validator.validate(read)
