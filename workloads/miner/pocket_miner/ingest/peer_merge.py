"""Copy relays that Redis has lost from the volumes of other miners."""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import ChainError, DecodingError
from pocket.protocol.crypto.ring import ExpectedRing
from pocket.protocol.smst.digest import Root
from pocket.protocol.transactions.decode import decode_tx
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.redis_store.stream_reader import StreamExtent
from pocket_miner import miner_metrics
from pocket_miner.ingest.peers import Peers
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.ingest.relay_signatures import is_signed, ring_of
from pocket_miner.relay_rows import Leaf
from pocket_miner.sessions.leaf_validation import LeafTerms, valid_leaves
from pocket_miner.sessions.recorded_terms import encode_params
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.relay_store import RelayStore, SessionEndFile

_LOG: FilteringBoundLogger = structlog.get_logger()


@dataclass(slots=True)
class PeerMerge:
    """Merges the relays of other miners into one supplier's sessions."""

    consumer: RelayConsumer
    relay_store: RelayStore
    sessions: Mapping[str, TrackedSession]
    has_signed: Callable[[bytes], Awaitable[bool]]
    """Returns True for a transaction that was signed with the supplier's key. Raises ChainError."""
    needed: bool = False
    """True from a loss until every peer and the chain have answered."""
    _merged_with: frozenset[str] = frozenset()
    """The URLs of the peers that were live at the latest complete merge."""

    def is_due(self, peers: Peers | None) -> bool:
        """Return True if relays are to be copied.

        After a loss, or from a peer that was not live at the latest merge. The volume of a peer that was away may hold
        the only copy of relays that Redis has lost since.
        """
        return peers is not None and (self.needed or not peers.urls <= self._merged_with)

    async def merge(self, peers: Peers, finished: Mapping[str, object]) -> None:
        """Copy relays that the streams have lost from peers' volumes.

        Without those of `finished` sessions. Only peers that read entries of another origin, or further than its
        streams reach, can have more. The seals that peers state are noted, too. It stays needed if it must be retried.
        Raises the errors of the volume.
        """
        self.needed = True
        urls = peers.urls
        seals = await peers.seals(self.consumer.supplier)
        try:
            self.needed = not await self._merge_relays(peers, finished)
            if not self.needed:
                self._merged_with = urls
        finally:
            for seal in seals:
                if seal.session_id in self.sessions:
                    self.sessions[seal.session_id].meet_seal(seal, from_redis=False)
        await self._learn_signed(peers)

    async def _learn_signed(self, peers: Peers) -> None:
        """Learn for which seals of peers there are signed claims.

        Only sessions that are not sealed here are queried.
        """
        unsealed = {
            session.session_id: session
            for session in self.sessions.values()
            if session.seal is None and {seal.root for seal in session.other_seals} - session.signed_roots
        }
        for end in {session.end for session in unsealed.values()}:
            for raw in await peers.claims(self.consumer.supplier, end):
                with contextlib.suppress(ChainError, DecodingError):
                    made = decode_tx(raw)
                    claimed = [
                        (unsealed[i], root) for i, root in zip(made.claims, made.roots, strict=True) if i in unsealed
                    ]
                    if claimed and await self.has_signed(raw):
                        for session, root in claimed:
                            session.signed_roots.add(root)

    async def _merge_relays(self, peers: Peers, finished: Mapping[str, object]) -> bool:
        """Copy the relays. Returns True if every peer and the chain have answered."""
        supplier, consumer = self.consumer.supplier, self.consumer
        answered, sessions = await peers.sessions(supplier)
        sessions = [row for row in sessions if row.session_id not in finished]
        reach = await extents(consumer, {row.session_id for row in sessions}) if sessions else {}
        complete = answered
        for row in sessions:
            if not row.may_have_more(consumer.origin, reach.get(row.session_id, StreamExtent())):
                continue
            if row.session_id not in self.sessions:
                await consumer.track({row.session_id: row.header})
            session = self.sessions.get(row.session_id)
            if session is None or session.rejected or await asyncio.to_thread(self._has_sealed, session):
                continue
            if not await consumer.learn_terms(session) or session.terms is None:
                complete = complete and session.rejected
                continue
            try:
                ring = await ring_of(consumer.start_params.chain, session.header)
            except (ChainError, DecodingError) as error:
                _LOG.info("relays not copied from peers, their ring is unknown", session=row.session_id, error=error)
                complete = False
                continue
            take = functools.partial(self._take, session, session.terms, ring)
            await consumer.register_missing([session])
            complete = await peers.relays(row, supplier, session.end, take) and complete
        return complete

    def _has_sealed(self, session: TrackedSession) -> bool:
        """Return True if a session is sealed, and the volume has as many leaves."""
        if session.seal is None:
            return False
        stored = self.relay_store.file(session.end).count(self.consumer.supplier, session.session_id)
        return stored >= Root(session.seal.root).count

    async def _take(
        self, session: TrackedSession, terms: LeafTerms, ring: ExpectedRing, values: list[bytes]
    ) -> None:  # fmt: skip
        miner_metrics.MERGED.inc(await asyncio.to_thread(self._add, session, terms, ring, values))

    def _add(self, session: TrackedSession, terms: LeafTerms, ring: ExpectedRing, values: list[bytes]) -> int:
        supplier, session_id, file = self.consumer.supplier, session.session_id, self.relay_store.file(session.end)
        leaves = new_leaves(file, session_id, valid_leaves(values, terms), supplier, ring)
        added = file.add(supplier, session_id, leaves, terms.name, encode_params(session.params))
        miner_metrics.RELAYS.labels(supplier).inc(added)
        return added


def new_leaves(
    file: SessionEndFile, session_id: str, leaves: Sequence[Leaf], supplier: str, ring: ExpectedRing
) -> list[Leaf]:  # fmt: skip
    """Return the signed leaves of a peer that a file lacks.

    Those that are not signed are counted.
    """
    missing = file.unknown(supplier, session_id, [leaf.path for leaf in leaves])
    signed = []
    for leaf in leaves:
        if leaf.path in missing and is_signed(leaf.value, supplier, ring):
            signed.append(leaf)
        elif leaf.path in missing:
            miner_metrics.REFUSED.labels(miner_metrics.RefusedEntry.PEER_SIGNATURE).inc()
    return signed


async def extents(consumer: RelayConsumer, session_ids: Iterable[str]) -> dict[str, StreamExtent]:
    """Return how far the streams of these sessions reach.

    The result is empty while Redis is unavailable, because any peer may have more relays then.
    """
    try:
        return await consumer.tail.extents(session_ids)
    except RedisUnavailable:
        return {}
