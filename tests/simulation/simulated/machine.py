"""What an operating system does for a process, simulated: file locks that end with it, volumes that are full."""

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from pocket.redis_store import write_ahead_log
from pocket.runtime import process_stats
from simulated.loop import PROCESS, Process

Usage = namedtuple("Usage", "total used free")
_GIB = 1 << 30
_PAGE = 4096  # bytes
_WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE", "REPLACE")


class Machine:
    """`full` tells whether the volume of a process has no space left."""

    def __init__(self, full: Callable[[Process], bool]) -> None:
        self._full = full
        self._locks: dict[tuple[int, int], Process] = {}
        self._files: dict[Process, list[sqlite3.Connection]] = {}

    def died(self, process: Process) -> None:
        """Close the process's databases, as the kernel does."""
        for database in self._files.pop(process, []):
            database.close()

    def _flock(self, file: Any, operation: int) -> None:
        found = os.fstat(file if isinstance(file, int) else file.fileno())
        place, me = (found.st_dev, found.st_ino), PROCESS.get()
        if operation & fcntl.LOCK_UN:
            self._locks.pop(place, None)
            return
        holder = self._locks.get(place)
        if holder is not None and holder is not me and not holder.dead:
            raise BlockingIOError(errno.EWOULDBLOCK, "it is locked")
        self._locks[place] = me

    def _write(self, descriptor: int, data: bytes) -> int:
        if not self._full(PROCESS.get()):
            return os.write(descriptor, data)
        # What is left of the file's last page still takes something.
        room = -os.fstat(descriptor).st_size % _PAGE
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, data[:room])

    def _usage(self, path: Any) -> Usage:
        return Usage(_GIB, _GIB, 0) if self._full(PROCESS.get()) else Usage(_GIB, 0, _GIB)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Stands in for the machine while the context is open."""
        machine, connect, flock, usage = self, sqlite3.connect, fcntl.flock, shutil.disk_usage
        all_tasks, resident = asyncio.all_tasks, process_stats.resident_bytes

        class Database(sqlite3.Connection):
            def _look(self, sql: str) -> None:
                if sql.lstrip().upper().startswith(_WRITES) and machine._full(PROCESS.get()):
                    if self.in_transaction:
                        super().execute("ROLLBACK")  # as SQLite does before it says so
                    raise sqlite3.OperationalError("database or disk is full")

            def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                self._look(sql)
                return super().execute(sql, *arguments)

            def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                self._look(sql)
                return super().executemany(sql, *arguments)

        def opened(*arguments: Any, **options: Any) -> sqlite3.Connection:
            database: sqlite3.Connection = connect(*arguments, **{"factory": Database, **options})
            machine._files.setdefault(PROCESS.get(), []).append(database)
            return database

        sqlite3.connect = opened
        fcntl.flock = self._flock
        shutil.disk_usage = self._usage
        write_ahead_log.os = SimpleNamespace(**{**vars(os), "write": self._write})
        # Those of this interpreter are not a simulated process's, and searching them takes a tenth of the time.
        asyncio.all_tasks = lambda _=None: set()
        process_stats.resident_bytes = lambda: 0
        try:
            yield
        finally:
            sqlite3.connect, fcntl.flock, shutil.disk_usage = connect, flock, usage
            write_ahead_log.os = os
            asyncio.all_tasks, process_stats.resident_bytes = all_tasks, resident
            for process in list(self._files):
                self.died(process)
