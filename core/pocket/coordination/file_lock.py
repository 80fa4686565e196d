"""Ownership without Kubernetes: a file lock admits one process per data folder."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class LockHeld(Exception):
    """Another process owns the folder. The message names it."""


class FileLock:
    """A lock held while the process lives.

    The kernel releases it however the process ends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, *, read_only: bool = False) -> None:
        """Take the lock.

        With read_only the volume accepts no writes, so the file must exist and keeps its content. Raises LockHeld, and
        OSError if there is no such file.
        """
        if not read_only:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        descriptor = os.open(self._path, flags | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise LockHeld(f"{self._path}: held by process {holder}; stop it or use another data folder") from error
        if not read_only:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
