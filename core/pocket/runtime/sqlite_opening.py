"""Open SQLite files without leaving a connection behind when they cannot be used."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def closed_on_error(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Close a new connection if its first statements fail.

    They fail on a file that is no database.
    """
    try:
        yield database
    except BaseException:
        database.close()
        raise
