"""Tailing a supplier's streams into the mirror, through the gate."""

import asyncio
import functools
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from pocket.chain.client import ChainClient
from pocket.errors import ChainError, DecodingError
from pocket.redis_store.redis_errors import REDIS_ERRORS
from pocket.redis_store.stream_reader import Entry, StreamReader
from pocket_miner import miner_metrics
from pocket_miner.ingest.batch_size import AdaptiveBatchSize
from pocket_miner.ingest.peers import Peers
from pocket_miner.sessions.evidence import REJECTIONS, Statement
from pocket_miner.sessions.leaf_validation import InvalidEntry, LeafTerms, leaf_of
from pocket_miner.sessions.terms import SessionTerms, ask_terms, ask_terms_of_every_node
from pocket_miner.sessions.tracked_session import TrackedSession, header_of
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.storage.disk_reserve import VolumeFull
from pocket_miner.storage.relay_store import Leaf, RelayStore

_LOG = logging.getLogger("pocket_miner.ingest.relay_consumer")
_ASK_AGAIN_SECONDS = 0.5


def _fits(terms: LeafTerms, value: bytes) -> Leaf | None:
    """Return the leaf of a relay under these terms, None where it must not become one."""
    try:
        return leaf_of(value, terms)
    except InvalidEntry:
        return None


class RelayConsumer:
    """Reads what is new of every session; positions are durable in the mirror."""

    def __init__(
        self,
        tail: StreamReader,
        mirror: RelayStore,
        chain: ChainClient,
        sessions: dict[str, TrackedSession],
        *,
        owner: bool = True,
        server_milliseconds: Callable[[], float | None] = lambda: None,
        dead_letters: DeadLetters | None = None,
        volume_full: Callable[[], bool] = lambda: False,
    ) -> None:
        """`server_milliseconds`: the time by Redis's clock, which names entries; None while it is not known."""
        self._tail = tail
        self._server_milliseconds = server_milliseconds
        self._dead_letters = dead_letters
        self._volume_full = volume_full
        self._owner = owner  # who follows as a standby tells relayers nothing of its volume
        self._mirror = mirror
        self._chain = chain
        self._sessions = sessions
        self._revived: list[str] = []
        self._damaged: set[str] = set()
        self._incarnation: str | None = None  # None: not asked yet
        # Tail loop and sealing both read; a position must never go back because the slower one finished last.
        self._reading = asyncio.Lock()
        self._appetite = AdaptiveBatchSize()
        self._ask_again: dict[str, float] = {}  # loop's clock, by session id
        # Grows with every reread: what was read before it must not move a position.
        self._generation = 0

    @property
    def supplier(self) -> str:
        """Operator address."""
        return self._tail.supplier

    @property
    def tail(self) -> StreamReader:
        """What reads the supplier's streams."""
        return self._tail

    async def restore(self) -> None:
        """Takes up the mirror's sessions after a start. Raises what the volume raises."""
        for _, row in await asyncio.to_thread(self._mirror.sessions):
            if row.supplier != self.supplier or row.session_id in self._sessions:
                continue
            try:
                header = header_of(row.header)
            except DecodingError as error:
                self._set_aside(row.session_id, error)
                continue
            self._sessions[row.session_id] = TrackedSession(header, row.position, row.incarnation)

    def _set_aside(self, session_id: str, error: Exception | str) -> None:
        """Count a value that cannot be a session's, and tell of it once: it stays where it is."""
        if session_id in self._damaged:
            return
        self._damaged.add(session_id)
        miner_metrics.REFUSED.labels("header").inc()
        fields = {"supplier": self.supplier, "session": ascii(session_id)[:80], "error": str(error)}
        _LOG.error("a session's header is damaged and set aside", extra={"fields": fields})

    async def ended_elsewhere(self) -> list[str]:
        """Return the sessions that another owner has ended, as its tombstones say; raises what Redis raises.

        That Redis does not know a session says nothing: it may have come back with an older file.
        """
        return sorted(await self._tail.finished([i for i, s in self._sessions.items() if s.seal is None]))

    def reread(self) -> None:
        """Reads every stream from its start again: Redis may hold other content under known ids."""
        self._generation += 1
        for session in self._sessions.values():
            session.position = "0-0"

    async def discover(self, finished: Mapping[str, object]) -> bool:
        """Adds the sessions that relayers registered, `finished` ones left out; whether the streams were lost."""
        incarnation = await self._tail.incarnation()
        lost = incarnation != self._incarnation and (
            bool(self._incarnation) or any(s.incarnation not in ("", incarnation) for s in self._sessions.values())
        )
        if incarnation != self._incarnation:
            self._incarnation = incarnation
            self._generation += 1
            for session in self._sessions.values():
                if session.incarnation != incarnation:
                    session.position = "0-0"
        registered = await self._tail.sessions()
        self._revived = [session_id for session_id in registered if session_id in finished]
        fresh = {i: raw for i, raw in registered.items() if i not in finished and i not in self._sessions}
        if fresh:
            await self._track(fresh)
        return lost

    def revived(self, finished: Mapping[str, int]) -> list[tuple[str, int]]:
        """Ended sessions (id, session end height) that are registered again, as `discover` found them."""
        return [(session_id, finished[session_id]) for session_id in self._revived if session_id in finished]

    async def _track(self, headers: Mapping[str, bytes]) -> None:
        """Take up the sessions of these headers; those whose header cannot be theirs are set aside."""
        found: dict[int, list[tuple[TrackedSession, bytes]]] = defaultdict(list)
        for session_id, raw in headers.items():
            try:
                header = header_of(raw)
                if header.session_id != session_id:
                    raise DecodingError(f"the header is of session {header.session_id}")
            except DecodingError as error:
                self._set_aside(session_id, error)
                continue
            found[header.session_end_block_height].append((TrackedSession(header), raw))
        for end, rows in found.items():
            await asyncio.to_thread(self._register, end, [(session.session_id, raw) for session, raw in rows])
            for session, _ in rows:
                self._sessions.setdefault(session.session_id, session)

    def _register(self, end: int, rows: list[tuple[str, bytes]]) -> None:
        self._mirror.file(end).add_sessions(self.supplier, rows)

    async def merge(self, peers: Peers, finished: Mapping[str, object]) -> bool:
        """Takes from peers' volumes what the streams do not hold any more; raises what the volume raises.

        Only peers that read another life of Redis, or further than its streams reach, can have more. False where it
        has to be tried again.
        """
        answered, found = await peers.sessions(self.supplier)
        found = [row for row in found if row.session_id not in finished]
        last_ids = await self._last_ids({row.session_id for row in found}) if found else {}
        whole = answered
        for row in found:
            if not row.may_have_more(self._incarnation or "", last_ids.get(row.session_id, "0-0")):
                continue
            if row.session_id not in self._sessions:
                await self._track({row.session_id: row.header})
            session = self._sessions.get(row.session_id)
            if session is None or session.rejected or session.seal is not None:
                continue
            if not await self.learn_terms(session) or session.terms is None:
                whole = whole and session.rejected
                continue
            take = functools.partial(self._take, session, session.terms)
            whole = await peers.relays(row, self.supplier, session.end, take) and whole
        return whole

    async def _take(self, session: TrackedSession, terms: LeafTerms, values: list[bytes]) -> None:
        miner_metrics.MERGED.inc(await asyncio.to_thread(self._add, session, terms, values))

    async def _last_ids(self, session_ids: set[str]) -> dict[str, str]:
        """Last entries of the streams; none while Redis is away: then every peer may have more."""
        try:
            return await self._tail.last_ids(session_ids)
        except REDIS_ERRORS:
            return {}

    def _add(self, session: TrackedSession, terms: LeafTerms, values: list[bytes]) -> int:
        leaves = []
        for value in values:
            try:
                leaves.append(leaf_of(value, terms))
            except InvalidEntry as error:
                miner_metrics.REFUSED.labels(str(error)).inc()
        added = self._mirror.file(session.end).add(self.supplier, session.header.session_id, leaves)
        miner_metrics.RELAYS.labels(self.supplier).inc(added)
        return added

    async def learn_terms(self, session: TrackedSession, height: int = 0) -> bool:
        """Ask the chain for header, target and units at the session's start; return False while they are not known.

        Unknown price or target: hold, never guess. height: of the block at which it is decided. Only then is it asked
        again what was answered with a rejection, or what failed a moment ago.
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
        """Ask every node for the terms once more, past all caches; return whether a second answer said the same.

        Where the nodes say something else than the first answer, theirs counts: relays that do not fit it leave the
        volume, and those that were set aside by it are read again. Raises what the volume raises.
        """
        if session.terms is None or session.terms_confirmed:
            return session.terms_confirmed
        votes = Counter[LeafTerms]()
        for _, found in (await ask_terms_of_every_node(self._chain, self.supplier, session.header)).values():
            if found.terms is not None:
                votes[found.terms] += 1
        if not votes:
            return False
        best, number = votes.most_common(1)[0]
        if best == session.terms:
            session.terms_confirmed = True
            return True
        doubted = session.doubted_terms == best
        session.doubted_terms = best
        if number > 1 or doubted:
            _LOG.error(
                "the chain's nodes state other terms than the first answer: relays are checked again",
                extra={"fields": {"supplier": self.supplier, "session": session.session_id, "height": height}},
            )
            await self._replace_terms(session, best)
        return session.terms_confirmed

    async def _replace_terms(self, session: TrackedSession, terms: LeafTerms) -> None:
        async with self._reading:
            await asyncio.to_thread(self._check_again, session, terms)
            session.terms, session.terms_confirmed = terms, True
            self._generation += 1
            session.position = "0-0"

    def _check_again(self, session: TrackedSession, terms: LeafTerms) -> None:
        fits = functools.partial(_fits, terms)
        self._mirror.file(session.end).check_again(self.supplier, session.session_id, fits)

    async def _ask_everybody(self, session: TrackedSession, height: int) -> None:
        """Ask every node about a session that an answer rejected: one that knows it is right."""
        answers = await ask_terms_of_every_node(self._chain, self.supplier, session.header)
        good = [(node, row) for node, row in answers.items() if row[1].terms is not None]
        for node, (at, found) in good or answers.items():
            self._accept(node, at or height, session, found)

    def _accept(self, source: str, height: int, session: TrackedSession, found: SessionTerms) -> None:
        session.params = found.params or session.params
        if found.rejection is not None:
            session.evidence.add(Statement(found.rejection, source, height, found.text))
            return
        session.evidence.retract(*REJECTIONS)
        session.terms = found.terms

    async def tail_once(self, count: int | None = None) -> int:
        """Mirrors what is new, at most `count` of each session; the number of entries read.

        Raises what Redis and the volume raise.
        """
        async with self._reading:
            return await self._tail_once(count)

    async def _tail_once(self, most: int | None) -> int:
        if self._volume_full():
            raise VolumeFull("relays stay in Redis: the volume is full. Free up or enlarge it.")
        positions = {}
        for session_id, session in list(self._sessions.items()):
            if await self.learn_terms(session):
                positions[session_id] = session.position
        generation, incarnation = self._generation, self._incarnation or ""
        count = most or self._appetite.count(len(positions))
        read = await self._tail.read(positions, count)
        sizes = [len(entry.relay) for entries in read.values() for entry in entries]
        self._appetite.had(len(sizes), sum(sizes))
        marks = {}
        total = 0
        for session_id, entries in read.items():
            tracked = self._sessions.get(session_id)
            if tracked is None or not entries or tracked.terms is None:
                continue
            await asyncio.to_thread(self._store, tracked, tracked.terms, entries, incarnation)
            total += len(entries)
            self._measure(entries[0].id)
            tracked.behind = len(entries) >= count
            if generation != self._generation:
                break
            tracked.position = entries[-1].id
            tracked.incarnation = incarnation
            marks[session_id] = f"{incarnation}/{tracked.position}"
        if self._owner:
            await self._tail.publish_replicated(marks)
        return total

    def _measure(self, oldest_id: str) -> None:
        now = self._server_milliseconds()
        if now is not None:
            miner_metrics.TAIL_AGE.observe(max(0.0, now - int(oldest_id.partition("-")[0])) / 1000)

    def _store(self, session: TrackedSession, terms: LeafTerms, entries: list[Entry], incarnation: str) -> None:
        leaves = []
        refused = []
        for entry in entries:
            try:
                leaves.append(leaf_of(entry.relay, terms))
            except InvalidEntry as error:
                refused.append((entry.id, str(error), entry.relay))
                miner_metrics.REFUSED.labels(str(error)).inc()
                fields = {"supplier": self.supplier, "session": session.header.session_id, "entry": entry.id}
                _LOG.warning("an entry was refused: %s", error, extra={"fields": fields})
        if self._dead_letters is not None:
            self._dead_letters.keep(self.supplier, session.header.session_id, refused)
        added = self._mirror.file(session.end).store(
            self.supplier, session.header.session_id, leaves, len(refused), entries[-1].id, incarnation
        )
        (miner_metrics.RELAYS if self._owner else miner_metrics.FOLLOWED).labels(self.supplier).inc(added)
