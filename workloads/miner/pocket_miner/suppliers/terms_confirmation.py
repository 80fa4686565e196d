"""Confirm the params and terms of ended sessions by a second answer."""

from collections.abc import Collection
from typing import Final

from pocket.runtime.concurrency import map_bounded
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.sessions.tracked_session import TrackedSession

_AT_ONCE: Final = 8


async def confirm_due(consumer: RelayConsumer, sessions: Collection[TrackedSession], height: int) -> None:
    """Confirm the params and terms of ended sessions.

    Raises the first error after all have been tried.
    """

    async def confirm(session: TrackedSession) -> None:
        if not session.params_confirmed:
            await consumer.start_params.confirm(session, height)
        if _are_terms_due(session, height):
            await consumer.confirm_terms(session, height)

    due = [s for s in sessions if s.end < height and (not s.params_confirmed or _are_terms_due(s, height))]
    await map_bounded(confirm, due, _AT_ONCE)


def _are_terms_due(session: TrackedSession, height: int) -> bool:
    """Return True if a claim or a proof may depend on terms of one answer.

    The terms are those of the session.
    """
    windows = session.windows
    if windows is None or session.terms is None or session.terms_confirmed:
        return False
    return windows.session_end < height < (windows.claim_close if session.seal is None else windows.proof_close)
