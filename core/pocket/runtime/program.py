"""Running a workload's main coroutine: every known error becomes one sentence and exit code 78."""

import asyncio
import errno
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from pocket.errors import ConfigurationError, PocketError


def run_program(
    name: str, main: Coroutine[Any, Any, None], runner: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
) -> int:
    """Exit code: 0 after a clean stop, 78 (EX_CONFIG) when the configuration or its surroundings cannot be used.

    The process leaves no core dump, nor do its children: there would be supplier keys in it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        runner(main)
    except PocketError as error:
        print(f"{name}: {_bare(name, error)}", file=sys.stderr)  # noqa: T201 - the last word of a program, for people - what the user must read
        return os.EX_CONFIG
    except ExceptionGroup as group:
        known = group.subgroup(PocketError)
        if known is None or group.split(PocketError)[1] is not None:
            raise
        print(f"{name}: {'; '.join(_bare(name, e) for e in _leaves(known))}", file=sys.stderr)  # noqa: T201 - the last word of a program, for people
        return os.EX_CONFIG
    return 0


def require_writable(name: str, folder: Path) -> None:
    """Makes the data folder of a program; raises ConfigurationError where it may not write to it.

    A full volume is no reason to refuse: what is on it may still have to be claimed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return
        raise ConfigurationError(
            f"{name}: {folder}: {error.strerror}. User {os.getuid()} must be able to write there: take storage that "
            "honours fsGroup, or change the owner of the volume."
        ) from error


def _bare(name: str, error: BaseException) -> str:
    return str(error).removeprefix(f"{name}: ")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
