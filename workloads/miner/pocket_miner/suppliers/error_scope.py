"""Which errors are transient, and how many sessions of a group one concerns."""

import sqlite3
from typing import Final

from pocket.errors import ChainError, PocketError
from pocket.redis_store.store_errors import CommandRejected, RedisStoreError
from pocket_miner.submission.sender import SendError

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
