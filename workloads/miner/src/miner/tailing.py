"""Tailing a supplier's streams into the mirror, through the gate."""

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping

from redis.exceptions import RedisError

from ledger.tail import Entry, Tail
from miner import metrics
from miner.appetite import Appetite
from miner.dead_letters import DeadLetters
from miner.gate import Refused, Terms, leaf_of
from miner.mirror import Mirror
from miner.peers import Peers
from miner.sessions import TrackedSession, header_of
from shannon.chain.client import ChainClient
from shannon.errors import ChainError, ChainRefusal, ChainUnavailable, DecodingError

_LOG = logging.getLogger("miner.tailing")


class Tailer:
    """Reads what is new of every session; positions are durable in the mirror."""

    def __init__(
        self,
        tail: Tail,
        mirror: Mirror,
        chain: ChainClient,
        sessions: dict[str, TrackedSession],
        *,
        owner: bool = True,
        server_milliseconds: Callable[[], float | None] = lambda: None,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        """`server_milliseconds`: the time by Redis's clock, which names entries; None while it is not known."""
        self._tail = tail
        self._server_milliseconds = server_milliseconds
        self._dead_letters = dead_letters
        self._owner = owner  # who follows as a standby tells relayers nothing of its volume
        self._mirror = mirror
        self._chain = chain
        self._sessions = sessions
        self._revived: list[str] = []
        self._incarnation: str | None = None  # None: not asked yet
        # Tail loop and sealing both read; a position must never go back because the slower one finished last.
        self._reading = asyncio.Lock()
        self._appetite = Appetite()
        # Grows with every reread: what was read before it must not move a position.
        self._generation = 0

    @property
    def supplier(self) -> str:
        """Operator address."""
        return self._tail.supplier

    def restore(self) -> None:
        """Takes up the mirror's sessions after a start."""
        for _, row in self._mirror.sessions():
            if row.supplier == self.supplier and row.session_id not in self._sessions:
                self._sessions[row.session_id] = TrackedSession(header_of(row.header), row.position, row.incarnation)

    async def ended_elsewhere(self) -> list[str]:
        """Sessions that another owner ended while this volume was not theirs; raises what Redis raises.

        They were read in this life of Redis, and Redis has dropped them: only an owner does that, after it recorded
        the outcome. A second outcome here would count their payment twice.
        """
        # In this order: whatever life the sessions were read in, it is the volume's only if that still goes on.
        known, incarnation = await self._tail.sessions(), await self._tail.incarnation()
        return [i for i, s in self._sessions.items() if incarnation and s.incarnation == incarnation and i not in known]

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
        for session_id, raw in registered.items():
            if session_id not in finished:
                self._track(session_id, raw)
        return lost

    def revived(self, finished: Mapping[str, int]) -> list[tuple[str, int]]:
        """Ended sessions (id, session end height) that are registered again, as `discover` found them."""
        return [(session_id, finished[session_id]) for session_id in self._revived if session_id in finished]

    def _track(self, session_id: str, raw: bytes) -> TrackedSession | None:
        """The session of a header; None for one that cannot be its."""
        if session_id in self._sessions:
            return self._sessions[session_id]
        try:
            header = header_of(raw)
        except DecodingError:
            header = None
        if header is None or header.session_id != session_id:
            metrics.REFUSED.labels("header").inc()
            return None
        self._mirror.file(header.session_end_block_height).add_session(self.supplier, session_id, raw)
        self._sessions[session_id] = TrackedSession(header)
        return self._sessions[session_id]

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
            session = self._track(row.session_id, row.header)
            if session is None or session.refused or session.seal is not None:
                continue
            if not await self.learn_terms(session) or session.terms is None:
                whole = whole and bool(session.refused)
                continue
            take = functools.partial(self._take, session, session.terms)
            whole = await peers.relays(row, self.supplier, session.end, take) and whole
        return whole

    async def _take(self, session: TrackedSession, terms: Terms, values: list[bytes]) -> None:
        metrics.MERGED.inc(await asyncio.to_thread(self._add, session, terms, values))

    async def _last_ids(self, session_ids: set[str]) -> dict[str, str]:
        """Last entries of the streams; none while Redis is away: then every peer may have more."""
        try:
            return await self._tail.last_ids(session_ids)
        except (RedisError, OSError, TimeoutError):
            return {}

    def _add(self, session: TrackedSession, terms: Terms, values: list[bytes]) -> int:
        leaves = []
        for value in values:
            try:
                leaves.append(leaf_of(value, terms))
            except Refused as error:
                metrics.REFUSED.labels(str(error)).inc()
        added = self._mirror.file(session.end).add(self.supplier, session.header.session_id, leaves)
        metrics.RELAYS.labels(self.supplier).inc(added)
        return added

    async def learn_terms(self, session: TrackedSession) -> bool:
        """Asks the chain for header, target and units at the session's start; False while it cannot be told.

        Unknown price or target: hold, never guess.
        """
        if session.terms is not None or session.refused:
            return session.terms is not None
        header, start = session.header, session.header.session_start_block_height
        try:
            onchain = await self._chain.session(header.application_address, header.service_id, start)
            params = await self._chain.shared_params(start)
            units = await self._chain.compute_units_per_relay(header.service_id, start)
            difficulty = await self._chain.difficulty(header.service_id, start)
        except ChainUnavailable:
            return False
        except ChainRefusal as error:
            session.refused = f"the chain knows no such session: {error}"
            return False
        except (ChainError, DecodingError):
            return False
        session.params = params
        if onchain.header != header:
            session.refused = "the session header differs from the chain's"
            return False
        if self.supplier not in onchain.supplier_addresses:
            session.refused = "the supplier does not belong to the session"
            return False
        if units <= 0:
            return False
        session.terms = Terms(self.supplier, header, difficulty.target_hash, units)
        return True

    async def tail_once(self, count: int | None = None) -> int:
        """Mirrors what is new, at most `count` of each session; the number of entries read.

        Raises what Redis and the volume raise.
        """
        async with self._reading:
            return await self._tail_once(count)

    async def _tail_once(self, most: int | None) -> int:
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
            await self._tail.mark_mirrored(marks)
        return total

    def _measure(self, oldest_id: str) -> None:
        now = self._server_milliseconds()
        if now is not None:
            metrics.TAIL_AGE.observe(max(0.0, now - int(oldest_id.partition("-")[0])) / 1000)

    def _store(self, session: TrackedSession, terms: Terms, entries: list[Entry], incarnation: str) -> None:
        leaves = []
        refused = []
        for entry in entries:
            try:
                leaves.append(leaf_of(entry.relay, terms))
            except Refused as error:
                refused.append((entry.id, str(error), entry.relay))
                metrics.REFUSED.labels(str(error)).inc()
                fields = {"supplier": self.supplier, "session": session.header.session_id, "entry": entry.id}
                _LOG.warning("an entry was refused: %s", error, extra={"fields": fields})
        if self._dead_letters is not None:
            self._dead_letters.keep(self.supplier, session.header.session_id, refused)
        added = self._mirror.file(session.end).store(
            self.supplier, session.header.session_id, leaves, len(refused), entries[-1].id, incarnation
        )
        (metrics.RELAYS if self._owner else metrics.FOLLOWED).labels(self.supplier).inc(added)
