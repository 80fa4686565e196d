"""Build roots and proofs in separate processes, off the event loop.

Large sessions have their own process: a session of a million relays takes seconds and must not delay others.
"""

import asyncio
import contextlib
import hashlib
import multiprocessing
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import PocketError
from pocket.protocol.smst.bulk import LeafContent, LeafSet
from pocket.protocol.smst.digest import leaf_digest
from pocket_miner.storage.corruption import VolumeCorrupted, attach_path, corruption_in
from pocket_miner.storage.relay_store import SessionEndFile
from pocket_miner.storage.sealed_leaves import sealed_leaves

T = TypeVar("T")
_LOG: FilteringBoundLogger = structlog.get_logger()
SMALL_LEAVES = 50_000
"""The root of this many leaves takes an eighth of a second."""
SMALL_SECONDS = 20.0
LARGE_SECONDS = 300.0
"""A process that takes longer hangs, because a million relays take only seconds."""


@dataclass(frozen=True, slots=True)
class SealedSet:
    """Root, digest and size of a session's leaf set."""

    root: bytes
    leaf_digest: bytes
    count: int


class TooLarge(Exception):
    """The session is too large for the process of small sessions."""


@contextlib.contextmanager
def _opened(path: str, supplier: str, session_id: str, max_leaves: int | None) -> Iterator[SessionEndFile]:
    """Open the file of a session.

    Raises TooLarge if the session has more leaves than `max_leaves`, and VolumeCorrupted.
    """
    with attach_path(path), contextlib.closing(SessionEndFile(Path(path), read_only=True)) as file:
        if max_leaves is not None and file.exceeds(supplier, session_id, max_leaves):
            raise TooLarge
        yield file


def _leaves(file: SessionEndFile, supplier: str, session_id: str, sealed_root: bytes) -> list[tuple[bytes, bytes]]:
    """Return the leaves of a sealed root, or all of them if they do not include it."""
    rows = file.leaves(supplier, session_id)
    if not sealed_root:
        return rows
    return sealed_leaves(rows, lambda: file.arrivals(supplier, session_id), sealed_root) or rows


def compute_root(
    path: str, supplier: str, session_id: str, sealed_root: bytes = b"", max_leaves: int | None = None
) -> SealedSet:
    """Compute the root of a stored session.

    Leaves that came after those of `sealed_root` are left out. Raises TooLarge if the session has more leaves than
    `max_leaves`, and VolumeCorrupted.
    """
    with _opened(path, supplier, session_id, max_leaves) as file:
        leaves = _leaves(file, supplier, session_id, sealed_root)
    digest = hashlib.sha256(b"".join(leaf for _, leaf in leaves)).digest()
    return SealedSet(LeafSet(leaves).root(), digest, len(leaves))


def compute_proof(
    path: str,
    supplier: str,
    session_id: str,
    proof_path: bytes,
    sealed_root: bytes = b"",
    max_leaves: int | None = None,
) -> tuple[bytes, bytes]:
    """Return root and marshalled closest proof of a stored session.

    Leaves out and raises as `compute_root`.
    """
    with _opened(path, supplier, session_id, max_leaves) as file:
        rows = _leaves(file, supplier, session_id, sealed_root)

        def content(leaf: bytes) -> LeafContent:
            """Return a leaf's value after checking it.

            A value that changed on disk must not be proven.
            """
            stored = file.content(supplier, session_id, leaf)
            if rows[bisect_left(rows, (leaf,))][1] != leaf_digest(leaf, stored.value, stored.weight):
                raise VolumeCorrupted(path)
            return stored

        leaves = LeafSet(rows)
        proof = leaves.closest_proof(proof_path, content)
        return leaves.root(), proof.compact().marshal()


class TrieWorkFailed(PocketError):
    """The work failed or timed out.

    The next call uses a working process.
    """


class VolumeUnreadable(TrieWorkFailed):
    """The leaves of a session could not be read from the volume."""


UNREADABLE: Final = (TrieWorkFailed, sqlite3.Error, OSError)
"""Errors after which a session may be read from elsewhere: reads may hang, and a trie process may die every time."""


def _processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


class _Executor:
    """A process or thread that runs one call after the other.

    Each takes at most `seconds` from its start.
    """

    def __init__(self, start: Callable[[], Executor], seconds: float) -> None:
        self._start = start
        self._seconds = seconds
        self._pool = start()
        self._turn = asyncio.Semaphore(1)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Run the work in the process and return its result.

        Raises TooLarge, VolumeCorrupted and VolumeUnreadable, and TrieWorkFailed for every other failure.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(self._seconds):
                    return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
            except (TooLarge, VolumeCorrupted):
                raise
            except BrokenProcessPool as error:
                await self._renew()
                raise TrieWorkFailed("the trie process died, possibly out of memory") from error
            except TimeoutError as error:
                await self._renew()
                raise TrieWorkFailed(f"the trie process took more than {self._seconds:g} s and was killed") from error
            except Exception as error:
                if corruption_in(error) is not None:
                    raise
                if isinstance(error, sqlite3.Error | OSError):
                    raise VolumeUnreadable(f"the leaves cannot be read: {error}") from error
                raise TrieWorkFailed(f"the trie process failed: {str(error) or type(error).__name__}") from error

    async def _renew(self) -> None:
        """Replace a process that died or hangs."""
        pool, self._pool = self._pool, self._start()
        for process in dict(getattr(pool, "_processes", None) or {}).values():
            process.kill()
        await asyncio.to_thread(pool.shutdown, wait=False, cancel_futures=True)

    def close(self) -> None:
        """Stop the process."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Tries(Protocol):
    """Computes roots and proofs of stored sessions off the event loop."""

    async def root(self, path: Path, supplier: str, session_id: str, sealed_root: bytes = b"") -> SealedSet:
        """Return the result of `compute_root`."""

    async def proof(
        self, path: Path, supplier: str, session_id: str, proof_path: bytes, sealed_root: bytes = b""
    ) -> tuple[bytes, bytes]:
        """Return the result of `compute_proof`."""

    def close(self) -> None:
        """Release the resources."""


class TriePool:
    """Two processes, for small and for large sessions, each started when first needed.

    Calls to a process are queued. Where processes cannot be started or used, small sessions are worked on in a thread.
    """

    def __init__(
        self, small_leaves: int = SMALL_LEAVES, *, start: Callable[[], Executor] = _processes,
        small_seconds: float = SMALL_SECONDS, large_seconds: float = LARGE_SECONDS,
    ) -> None:  # fmt: skip
        self._small, self._large = _Executor(start, small_seconds), _Executor(start, large_seconds)
        self._thread = _Executor(lambda: ThreadPoolExecutor(1), SMALL_SECONDS)
        self._small_leaves = small_leaves

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await self._small.run(work, *arguments, self._small_leaves)
        except TooLarge:
            return await self._large.run(work, *arguments)
        except VolumeUnreadable:
            raise
        except TrieWorkFailed as error:
            _LOG.error("the process of tries failed, working in a thread", error=error)
            try:
                return await self._thread.run(work, *arguments, self._small_leaves)
            except TooLarge:
                raise error from None

    async def root(self, path: Path, supplier: str, session_id: str, sealed_root: bytes = b"") -> SealedSet:
        """Run `compute_root` in a process.

        Raises TrieWorkFailed, VolumeUnreadable and VolumeCorrupted.
        """
        return await self._run(compute_root, str(path), supplier, session_id, sealed_root)

    async def proof(
        self, path: Path, supplier: str, session_id: str, proof_path: bytes, sealed_root: bytes = b""
    ) -> tuple[bytes, bytes]:
        """Run `compute_proof` in a process.

        Raises TrieWorkFailed, VolumeUnreadable and VolumeCorrupted.
        """
        return await self._run(compute_proof, str(path), supplier, session_id, proof_path, sealed_root)

    def close(self) -> None:
        """Stop the processes."""
        for executor in (self._small, self._large, self._thread):
            executor.close()
