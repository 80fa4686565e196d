"""CPU-bound trie work in bounded processes, off the event loop.

Large sessions have a process of their own: one of a million relays takes seconds and must delay nobody's window.
"""

import asyncio
import contextlib
import hashlib
import multiprocessing
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from miner.damage import VolumeDamaged, naming
from miner.mirror import SessionEndFile
from shannon.errors import PocketError
from shannon.smst.bulk import LeafContent, LeafSet
from shannon.smst.digest import leaf_digest

T = TypeVar("T")
SMALL_LEAVES = 50_000
"""A root of so many takes an eighth of a second."""


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
    with naming(path), contextlib.closing(SessionEndFile(Path(path))) as file:
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
                raise VolumeDamaged(path)
            return found

        leaves = LeafSet(rows)
        proof = leaves.closest_proof(proof_path, content)
        return leaves.root(), proof.compact().marshal()


class TrieWorkFailed(PocketError):
    """The process that did the work died; it is started again for the next call."""


class _Lane:
    """Processes that take one call after the other."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._processes, mp_context=multiprocessing.get_context("spawn"))

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Result of the work; raises TrieWorkFailed where the process died."""
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)
        except BrokenProcessPool as error:
            if pool is self._pool:
                self._pool = self._new()
            raise TrieWorkFailed("the trie process died (out of memory?); it is tried again") from error

    def close(self) -> None:
        """Ends the processes."""
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
    """Two lanes of processes, started when they are needed; calls wait for their turn in theirs."""

    def __init__(self, processes: int = 1, small_leaves: int = SMALL_LEAVES) -> None:
        self._small, self._large = _Lane(processes), _Lane(processes)
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
