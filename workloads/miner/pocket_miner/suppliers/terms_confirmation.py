"""Confirm the terms of ended sessions by a second answer before they are sealed."""

import asyncio
from collections.abc import Collection
from typing import Final

from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.sessions.tracked_session import TrackedSession

_AT_ONCE: Final = 8


async def confirm_due(consumer: RelayConsumer, sessions: Collection[TrackedSession], height: int) -> None:
    """Confirm the terms of the sessions that have ended and are neither sealed nor confirmed.

    Raises the first error after all have been tried.
    """
    limit = asyncio.Semaphore(_AT_ONCE)

    async def confirm(session: TrackedSession) -> None:
        async with limit:
            await consumer.confirm_terms(session, height)

    due = [session for session in sessions if _is_due(session, height)]
    for error in await asyncio.gather(*map(confirm, due), return_exceptions=True):
        if isinstance(error, BaseException):
            raise error


def _is_due(session: TrackedSession, height: int) -> bool:
    windows = session.windows
    is_open = windows is not None and windows.session_end < height < windows.claim_close
    return is_open and session.seal is None and session.terms is not None and not session.terms_confirmed
