"""Compute the leaf sets of sessions to be sealed.

They come from the volume or from temporary copies.
"""

import asyncio
import enum
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import PocketError
from pocket.protocol.smst.digest import Root
from pocket.redis_store.store_errors import StaleEpoch
from pocket_miner import miner_metrics
from pocket_miner.sessions.relay_sources import CopyFailed, SessionCopier
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.storage.trie_pool import UNREADABLE, SealedSet, Tries

_LOG: FilteringBoundLogger = structlog.get_logger()


class VolumeFallback(enum.IntEnum):
    """What to do for a session that cannot be stored on or read from the volume."""

    RETRY = 0  # at the next block
    COPY = 1  # seal a temporary copy
    PARTIAL = 2  # the same, or else what is on the volume


@dataclass(frozen=True, slots=True)
class LeafSets:
    """The leaf sets of one supplier's sessions."""

    supplier: str
    relay_store: RelayStore
    pool: Tries
    copies: SessionCopier | None = None

    async def to_seal(
        self, sessions: Mapping[str, TrackedSession], unread: Collection[str], fallback: VolumeFallback, *,
        peers_awaited: bool,
    ) -> dict[str, SealedSet]:  # fmt: skip
        """Compute the leaf sets to seal.

        The volume does not have all relays of the sessions in `unread`. A session whose trie cannot be built is skipped
        until the next block, and so is one with other relays than a peer states to have sealed, if `peers_awaited`.
        """
        sets = {}
        for session_id, session in sessions.items():
            try:
                sealed = await self._agreed(session, fallback, on_volume=session_id not in unread)
            except (PocketError, OSError, sqlite3.Error, ValueError) as error:
                if corruption_in(error) is not None:
                    raise
                miner_metrics.ERRORS.labels("trie").inc()
                _LOG.error("building the trie of a session failed, retrying", session=session_id, error=error)
                continue
            if peers_awaited and session.other_seals and all(sealed.root != seal.root for seal in session.other_seals):
                _LOG.warning("sealing postponed, a peer states a seal of other relays", session=session_id)
                continue
            sets[session_id] = sealed
        return sets

    async def _agreed(self, session: TrackedSession, fallback: VolumeFallback, *, on_volume: bool) -> SealedSet:
        """Compute the set of all relays, or of those that a peer has sealed.

        The peer has signed a claim of it. Raises as `of`.
        """
        sealed = await self.of(session, fallback, on_volume=on_volume)
        stated = {seal.root for seal in session.other_seals}
        for root in () if sealed.root in stated else sorted(stated):
            if root in session.signed_roots and Root(root).count < sealed.count:
                part = await self.of(session, fallback, on_volume=on_volume, known=root)
                if part.root == root:
                    return part
        return sealed

    async def of(
        self, session: TrackedSession, fallback: VolumeFallback, *, on_volume: bool = True, known: bytes = b""
    ) -> SealedSet:
        """Compute a set from the volume or from a copy.

        From a copy if the volume cannot be read or does not have all relays.

        `known` is the root on chain or of a peer, if there is one. Raises the errors of the trie pool and of copying.
        """
        file = self.relay_store.path(session.end)
        if on_volume:
            try:
                return await self.pool.root(file, self.supplier, session.session_id, known)
            except UNREADABLE as error:
                if corruption_in(error) is not None or self.copies is None or fallback is VolumeFallback.RETRY:
                    raise
        try:
            if self.copies is None:
                raise CopyFailed("sessions are not copied here")
            async with self.copies.of(session, root=known) as path:
                return await self.pool.root(path, self.supplier, session.session_id, known)
        except (PocketError, OSError, sqlite3.Error) as error:
            if fallback is not VolumeFallback.PARTIAL or isinstance(error, StaleEpoch):
                raise
            _LOG.error("sealing only the relays on the volume: free up space on it", error=error)
            return await self.pool.root(file, self.supplier, session.session_id, known)

    async def of_claim_on_volume(self, session: TrackedSession) -> SealedSet | None:
        """Return the leaves of the claim on chain, or all that are on the volume.

        All if these do not include those of the claim. Returns None if the volume cannot be read.
        """
        root = session.claimed_root
        try:
            return await self.pool.root(self.relay_store.path(session.end), self.supplier, session.session_id, root)
        except UNREADABLE as error:
            if corruption_in(error) is not None:
                raise
            return None

    async def has_other_count(self, session: TrackedSession, leaves: int) -> bool:
        """Return True if a session's leaves on the volume are of another number now.

        Also if the volume cannot be read.
        """
        try:
            file = self.relay_store.file(session.end)
            return await asyncio.to_thread(file.count, self.supplier, session.session_id) != leaves
        except sqlite3.Error as error:
            if corruption_in(error) is not None:
                raise
            return True
