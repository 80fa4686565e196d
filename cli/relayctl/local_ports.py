"""Loopback ports for programs on this machine, each for one process only."""

import contextlib
import fcntl
import os
import random
import socket
from pathlib import Path

from pocket.errors import ConfigurationError

_FIRST, _LAST = 10_000, 29_999
"""Below those of outgoing connections (Linux: from 32768, macOS: from 49152) and below the node ports of Kubernetes."""
_FOLDER = Path(f"/tmp/pocket-ports-{os.getuid()}")  # noqa: S108 - only this user can write to it
"""The same for all processes of a user, whatever their TMPDIR is."""
_ATTEMPTS = 2000
_reserved: dict[int, int] = {}
"""The descriptors of the locked files of this process by port. A file is unlocked when the process ends."""


def free_port() -> int:
    """Return a free loopback port that no other caller gets.

    Raises ConfigurationError if there is none.
    """
    return free_ports(1)


def free_ports(count: int) -> int:
    """Return the first of `count` free loopback ports in a row.

    They stay reserved while this process lives: no other process gets them from here, and the system gives them to no
    outgoing connection. So a program may be started on them later, and again after it ended. Raises ConfigurationError
    if none are free.
    """
    _FOLDER.mkdir(mode=0o700, exist_ok=True)
    rng = random.SystemRandom()
    for _ in range(_ATTEMPTS):
        first = rng.randrange(_FIRST, _LAST + 2 - count)
        ports = range(first, first + count)
        with contextlib.ExitStack() as undo:
            if all(_reserve(port, undo) for port in ports):
                undo.pop_all()
                return first
    raise ConfigurationError(
        f"no {count} free ports in a row between {_FIRST} and {_LAST} on 127.0.0.1 after {_ATTEMPTS} attempts: "
        f"stop programs that listen there"
    )


def _reserve(port: int, undo: contextlib.ExitStack) -> bool:
    """Lock the file of a port and return True if the port is free.

    `undo` gives the port back.
    """
    if port in _reserved:
        return False
    file = os.open(_FOLDER / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _reserved[port] = file
    undo.callback(_release, port)
    return _is_free(port)


def _release(port: int) -> None:
    os.close(_reserved.pop(port))


def _is_free(port: int) -> bool:
    """Return True if no program listens on a port.

    The loopback and all addresses are checked.
    """
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as probe:
            # Connections of a program that ended do not keep the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
