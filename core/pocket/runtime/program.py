"""Start of a workload: every known error becomes one sentence and exit code 78."""

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
    """Run a workload's main coroutine and return its exit code.

    The code is 0 after a clean stop and 78 (EX_CONFIG) for an unusable configuration or environment. Neither the
    process nor its children leave a core dump, which would hold supplier keys.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        runner(main)
    except PocketError as error:
        print(f"{name}: {_bare(name, error)}", file=sys.stderr)  # noqa: T201 - the user must read it
        return os.EX_CONFIG
    except ExceptionGroup as group:
        known = group.subgroup(PocketError)
        if known is None or group.split(PocketError)[1] is not None:
            raise
        print(f"{name}: {'; '.join(_bare(name, e) for e in _leaves(known))}", file=sys.stderr)  # noqa: T201 - the user must read it
        return os.EX_CONFIG
    return 0


def require_writable(name: str, folder: Path) -> None:
    """Create the data folder of a program and check that it is writable.

    A full volume passes: the relays on it may still have to be claimed. Raises ConfigurationError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return
        raise ConfigurationError(
            f"{name}: {folder}: {error.strerror}. User {os.getuid()} must be able to write there: use storage that "
            "honours fsGroup, or change the owner of the volume."
        ) from error


def _bare(name: str, error: BaseException) -> str:
    return str(error).removeprefix(f"{name}: ")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
