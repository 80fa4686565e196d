"""Decide if relayers may still have to append relays before a seal.

They append them to Redis.
"""

from collections.abc import Awaitable, Callable, Sequence

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.redis_store.store_errors import CommandRejected
from pocket.redis_store.stream_reader import StreamReader
from pocket_miner.sessions.tracked_session import TrackedSession

_LOG: FilteringBoundLogger = structlog.get_logger()


async def may_lack_relays(
    sessions: Sequence[TrackedSession],
    height: int,
    streams: StreamReader,
    redis_settled: Callable[[int], Awaitable[bool]],
) -> bool:
    """Return True if Redis may lack relays of one of the sessions.

    It was restarted since one began, or has lost entries of one. A stream that holds relays again may lack those of a
    relayer that is stopped at the moment. Streams that Redis refuses to read show no loss. Raises the other errors of
    Redis.
    """
    first = min(session.header.session_start_block_height for session in sessions)
    if not await redis_settled(height - first):
        _LOG.info("sealing postponed, Redis was restarted and logs may be replayed", session_end=sessions[0].end)
        return True
    try:
        lost = await streams.lost(session.session_id for session in sessions)
    except CommandRejected:
        return False
    if lost:
        _LOG.warning("sealing postponed, Redis has lost relays that relayers may append again", sessions=sorted(lost))
    return bool(lost)
