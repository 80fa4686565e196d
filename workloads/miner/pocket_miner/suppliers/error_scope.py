"""Which errors are transient, and how many sessions of a group one concerns."""

import sqlite3
from typing import Final

from pocket.errors import ChainError, PocketError
from pocket.redis_store.store_errors import CommandRejected, RedisStoreError
from pocket_miner.submission.sender import SendError

TRANSIENT_ERRORS: Final = (PocketError, OSError, sqlite3.Error)
STEP_ERRORS: Final = (*TRANSIENT_ERRORS, ValueError, KeyError, TypeError)
"""Errors that end one step and none of the others: also those of reading a damaged value."""
_OF_ONE: Final = (PocketError, ValueError, KeyError, sqlite3.DataError)
"""Errors that a single session of a group may cause."""
_OF_ALL: Final = (ChainError, RedisStoreError, SendError)
"""Exceptions to that: they concern the whole group, or sending has already tried it in halves."""


def concerns_one(error: Exception) -> bool:
    """Return whether a single session of a group may have caused an error."""
    return isinstance(error, CommandRejected) or (isinstance(error, _OF_ONE) and not isinstance(error, _OF_ALL))
