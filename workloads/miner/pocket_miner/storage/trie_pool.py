"""CPU-bound trie work in bounded processes, off the event loop.

Large sessions have a process of their own: one of a million relays takes seconds and must delay nobody's window.
"""

import asyncio
import contextlib
import hashlib
import multiprocessing
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pocket.errors import PocketError
from pocket.protocol.smst.bulk import LeafContent, LeafSet
from pocket.protocol.smst.digest import leaf_digest
from pocket_miner.storage.corruption import VolumeCorrupted, attach_path, corruption_in
from pocket_miner.storage.relay_store import SessionEndFile

T = TypeVar("T")
SMALL_LEAVES = 50_000
"""A root of so many takes an eighth of a second."""
SMALL_SECONDS = 20.0
LARGE_SECONDS = 300.0
"""A process that takes longer hangs: a million relays take seconds."""


@dataclass(frozen=True, slots=True)
class SealedSet:
    """Root and digest of a leaf set."""

    root: bytes
    leaf_digest: bytes
    count: int


class TooLarge(Exception):
    """For the process that takes small sessions."""


@contextlib.contextmanager
def _opened(path: str, supplier: str, session_id: str, most: int | None) -> Iterator[SessionEndFile]:
    """The file of a session; raises TooLarge where it has more leaves than `most`, VolumeDamaged."""
    with attach_path(path), contextlib.closing(SessionEndFile(Path(path), read_only=True)) as file:
        if most is not None and file.exceeds(supplier, session_id, most):
            raise TooLarge
        yield file


def compute_root(path: str, supplier: str, session_id: str, most: int | None = None) -> SealedSet:
    """Root of a mirrored session; raises TooLarge where it has more leaves than `most`, VolumeDamaged."""
    with _opened(path, supplier, session_id, most) as file:
        leaves = file.leaves(supplier, session_id)
    digest = hashlib.sha256(b"".join(leaf for _, leaf in leaves)).digest()
    return SealedSet(LeafSet(leaves).root(), digest, len(leaves))


def compute_proof(
    path: str, supplier: str, session_id: str, proof_path: bytes, most: int | None = None
) -> tuple[bytes, bytes]:
    """(root, marshalled closest proof) of a mirrored session; raises as `compute_root`."""
    with _opened(path, supplier, session_id, most) as file:
        rows = file.leaves(supplier, session_id)

        def content(leaf: bytes) -> LeafContent:
            """A value that changed on the disk must not be proven with."""
            found = file.content(supplier, session_id, leaf)
            if rows[bisect_left(rows, (leaf,))][1] != leaf_digest(leaf, found.value, found.weight):
                raise VolumeCorrupted(path)
            return found

        leaves = LeafSet(rows)
        proof = leaves.closest_proof(proof_path, content)
        return leaves.root(), proof.compact().marshal()


class TrieWorkFailed(PocketError):
    """The work did not come to an end; the next call starts with a process that works."""


def _processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


class _Executor:
    """A process that takes one call after the other; `seconds` bound each call from the moment its turn comes."""

    def __init__(self, start: Callable[[], Executor], seconds: float) -> None:
        self._start = start
        self._seconds = seconds
        self._pool = start()
        self._turn = asyncio.Semaphore(1)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Result of the work; raises TooLarge, VolumeDamaged, and TrieWorkFailed for everything else that happens."""
        async with self._turn:
            try:
                async with asyncio.timeout(self._seconds):
                    return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
            except (TooLarge, VolumeCorrupted):
                raise
            except BrokenProcessPool as error:
                await self._renew()
                raise TrieWorkFailed("the trie process died (out of memory?); it is tried again") from error
            except TimeoutError as error:
                await self._renew()
                raise TrieWorkFailed(f"the trie process took more than {self._seconds:g} s and was ended") from error
            except Exception as error:
                if corruption_in(error) is not None:
                    raise
                raise TrieWorkFailed(f"the trie process failed: {str(error) or type(error).__name__}") from error

    async def _renew(self) -> None:
        """Leave a process that died or hangs, and begin with another one."""
        pool, self._pool = self._pool, self._start()
        for process in dict(getattr(pool, "_processes", None) or {}).values():
            process.kill()
        await asyncio.to_thread(pool.shutdown, wait=False, cancel_futures=True)

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Tries(Protocol):
    """Roots and proofs of mirrored sessions, made off the event loop."""

    async def root(self, path: Path, supplier: str, session_id: str) -> SealedSet:
        """`compute_root`."""

    async def proof(self, path: Path, supplier: str, session_id: str, proof_path: bytes) -> tuple[bytes, bytes]:
        """`compute_proof`."""

    def close(self) -> None:
        """Ends what does the work."""


class TriePool:
    """Two lanes, each with a process that is started when it is needed; calls wait for their turn in theirs."""

    def __init__(
        self, small_leaves: int = SMALL_LEAVES, *, start: Callable[[], Executor] = _processes,
        small_seconds: float = SMALL_SECONDS, large_seconds: float = LARGE_SECONDS,
    ) -> None:  # fmt: skip
        self._small, self._large = _Executor(start, small_seconds), _Executor(start, large_seconds)
        self._most = small_leaves

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await self._small.run(work, *arguments, self._most)
        except TooLarge:
            return await self._large.run(work, *arguments)

    async def root(self, path: Path, supplier: str, session_id: str) -> SealedSet:
        """`compute_root` in a process; raises TrieWorkFailed."""
        return await self._run(compute_root, str(path), supplier, session_id)

    async def proof(self, path: Path, supplier: str, session_id: str, proof_path: bytes) -> tuple[bytes, bytes]:
        """`compute_proof` in a process; raises TrieWorkFailed."""
        return await self._run(compute_proof, str(path), supplier, session_id, proof_path)

    def close(self) -> None:
        """Ends the processes."""
        self._small.close()
        self._large.close()
