"""Define what claims and proofs need of the reader of relays and of its copies."""

from collections.abc import Collection, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from pocket.errors import PocketError
from pocket_miner.sessions.tracked_session import TrackedSession


class CopyFailed(PocketError):
    """A session cannot be copied from Redis and peers."""


class RelaySource(Protocol):
    """Reads recorded relays from Redis into the volume."""

    async def register_missing(self, sessions: Iterable[TrackedSession]) -> None:
        """Register the sessions that the volume lacks, and read them from their start."""

    async def consume_once(self, count: int | None = None) -> int:
        """Store new entries, at most `count` per session.

        Returns the number of entries read.
        """

    def reread(self, session_ids: Collection[str] | None = None) -> None:
        """Read these streams from their start, None for all."""


class SessionCopier(Protocol):
    """Copies a session from Redis and peers where the volume cannot be used."""

    def of(
        self, session: TrackedSession, *, root: bytes = b"", nearest: bytes = b""
    ) -> AbstractAsyncContextManager[Path]:
        """Copy a session and return the path of the copy.

        Its leaves must have `root`, where it is known. It is deleted at the end of the context.
        """
