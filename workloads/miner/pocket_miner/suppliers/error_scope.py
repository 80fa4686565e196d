"""Which errors are transient, and how many sessions of a group one concerns."""

import sqlite3
from collections.abc import Awaitable
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import ChainError, PocketError
from pocket.redis_store.store_errors import CommandRejected, RedisStoreError
from pocket_miner import miner_metrics
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.submission.sender import SendError

_LOG: FilteringBoundLogger = structlog.get_logger()
TRANSIENT_ERRORS: Final = (PocketError, OSError, sqlite3.Error)
STEP_ERRORS: Final = (Exception,)
"""Errors that end one step and none of the others: whatever a damaged value or a wrong answer leads to."""
_OF_ALL: Final = (ChainError, RedisStoreError, SendError, OSError, sqlite3.Error)
"""Errors that concern the whole group, or for which sending has already tried it in halves."""
_OF_ONE: Final = (CommandRejected, sqlite3.DataError)
"""Exceptions to that: a single session of the group may have caused them, as it may any other error."""


def concerns_one(error: Exception) -> bool:
    """Return whether a single session of a group may have caused an error."""
    return isinstance(error, _OF_ONE) or not isinstance(error, _OF_ALL)


async def on_volume(step: str, work: Awaitable[None]) -> None:
    """Run a step that a volume may fail without stopping the others.

    What is missing then comes from Redis, from peers and from the chain. Raises VolumeCorrupted and other errors.
    """
    try:
        await work
    except (sqlite3.Error, OSError) as error:
        if corruption_in(error) is not None:
            raise
        miner_metrics.ERRORS.labels("volume").inc()
        _LOG.error("step failed on the volume, continuing without it", step=step, error=error)
