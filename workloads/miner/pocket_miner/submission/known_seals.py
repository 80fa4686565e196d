"""Save and load the seals of one supplier, on the volume and in Redis.

Source: docs/fragile/seal.md.
"""

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import DecodingError
from pocket.redis_store.seals import SealStore, SessionSeal, SignedGroup
from pocket.redis_store.store_errors import CommandRejected, RedisStoreError
from pocket_miner import miner_metrics
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import corruption_in

_LOG: FilteringBoundLogger = structlog.get_logger()
_MESSAGES = ("claim", "proof")


@dataclass(frozen=True, slots=True)
class KnownSeals:
    """The seals of one supplier's sessions, wherever they are."""

    supplier: str
    store: SealStore
    audit: Audit

    async def save(self, seals: Sequence[SessionSeal], end: int, signed: str, *, needed: bool) -> None:
        """Save seals to the volume.

        A full volume does not stop claims whose seals are in Redis. If `needed`, they are not, and sqlite3.Error is
        raised.
        """
        try:
            await asyncio.to_thread(self.audit.save_seals, self.supplier, end, seals, signed)
        except sqlite3.Error as error:
            if needed:
                raise
            miner_metrics.ERRORS.labels("volume").inc()
            _LOG.error("seals not saved to the volume: free up space on it", error=error)

    async def load_own(self, sessions: Mapping[str, TrackedSession]) -> None:
        """Load the seals on the volume into `sessions`. Raises the errors of the volume."""
        for session_id, (_, seal) in (await asyncio.to_thread(self.audit.seals, self.supplier)).items():
            session = sessions.get(session_id)
            if session is not None and session.seal is None:
                session.seal = seal

    async def load(self, sessions: Mapping[str, TrackedSession]) -> None:
        """Load existing seals from the volume and Redis.

        Restores in Redis those that it lost, with what was signed for them. A volume that cannot be read is skipped.
        Raises the errors of Redis.
        """
        try:
            await self.load_own(sessions)
        except sqlite3.Error as error:
            if corruption_in(error) is not None:
                raise
            _LOG.error("seals not read from the volume", error=error)
        seals = await self.store.load()
        missing = {i: s.seal for i, s in sessions.items() if s.seal is not None and i not in seals}
        if missing:
            # First: without it the seals are missing in Redis, and both are due again.
            await self._share_signed({sessions[i].end for i in missing})
            await self.store.restore(missing, {i: sessions[i].end for i in missing})
        for session_id, seal in seals.items():
            session = sessions.get(session_id)
            if session is not None:
                new = session.seal is None
                session.meet_seal(seal, from_redis=True)
                if new:
                    await self.save([seal], session.end, "", needed=False)

    async def _share_signed(self, ends: Iterable[int]) -> None:
        """Share the claims and proofs on the volume.

        A later owner sends the same bytes and pays no second fee. What Redis rejects for good is left out. Raises
        RedisUnavailable.
        """
        for end in sorted(ends):
            for message in _MESSAGES:
                for signed in await self.signed_on_volume(end, message):
                    try:
                        await self.store.share_signed(end, message, signed)
                    except CommandRejected as error:
                        _LOG.error("a signed transaction is not shared, Redis rejects it", message=message, error=error)

    async def signed_on_volume(self, end: int, message: str = "claim") -> list[SignedGroup]:
        """Return the signed claims, or proofs, of a session end.

        It is nothing if the volume cannot be read.
        """
        try:
            return await asyncio.to_thread(self.audit.signed, self.supplier, end, message)
        except sqlite3.Error as error:
            if corruption_in(error) is not None:
                raise
            _LOG.error("signed transactions not read from the volume", message=message, error=error)
            return []

    async def signed_in_redis(self, end: int) -> list[SignedGroup]:
        """Return what a predecessor signed, nothing while Redis is unavailable.

        Then roots are signed again.
        """
        try:
            return await self.store.signed(end)
        except (RedisStoreError, DecodingError):
            return []
