"""Finds what blocks the event loop in the product's coroutines: SQL statements, files opened, renamed or deleted.

A statement takes as long as the disk does. What a coroutine of a test does itself is its own business.
"""

import asyncio
import inspect
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

_ROOT = str(Path(__file__).parents[2] / "workloads") + "/"
_FILES_OF = f"{_ROOT}miner/pocket_miner/"
_CONSOLE = "/console/"  # a command line serves nobody else meanwhile
_FILE_EVENTS = frozenset({"open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir"})
_SUSPENDABLE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_NOT_ON_DISK = ("/proc/", "/dev/", "/sys/")
found: list[str] = []
"""What the running test's product did on its event loop."""


def _culprit(frame: FrameType | None, below: str) -> str:
    """Return the innermost running coroutine of the product.

    Returns an empty string if there is none, and during the import of a module.
    """
    while frame is not None:
        code = frame.f_code
        if "importlib" in code.co_filename:
            return ""
        if code.co_flags & _SUSPENDABLE:
            ours = code.co_filename.startswith(below) and _CONSOLE not in code.co_filename
            return f"{code.co_filename.removeprefix(_ROOT)}:{frame.f_lineno} {code.co_qualname}" if ours else ""
        frame = frame.f_back
    return ""


def _is_on_disk(path: object) -> bool:
    """Whether it is no pipe, and no source that is read to show a traceback."""
    return not isinstance(path, int) and not str(path).startswith(_NOT_ON_DISK) and not str(path).endswith(".py")


def _look(what: object, below: str) -> None:
    if asyncio._get_running_loop() is not None and (culprit := _culprit(sys._getframe(2), below)):
        found.append(f"{culprit}: {str(what)[:80]}")


class Guarded(sqlite3.Connection):
    """A connection that tells which of its statements ran on an event loop."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        _look(sql, _ROOT)
        return super().execute(sql, *arguments)

    def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        _look(sql, _ROOT)
        return super().executemany(sql, *arguments)

    def executescript(self, sql: str, /) -> sqlite3.Cursor:
        _look(sql, _ROOT)
        return super().executescript(sql)


def install() -> None:
    """Watch every connection and file of this process from now on.

    Raises FileNotFoundError if the guarded modules have moved.
    """
    if not Path(_FILES_OF).is_dir():
        raise FileNotFoundError(f"{_FILES_OF} does not exist: the modules that it guards have moved")
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def guarded(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, **{"factory": Guarded, **options})

    sqlite3.connect = guarded  # type: ignore[assignment]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FILE_EVENTS and _is_on_disk(arguments[0]):
            _look(f"{event} {arguments[0]}", _FILES_OF)

    sys.addaudithook(hook)
