"""CPU-bound trie work in bounded processes, off the event loop."""

import asyncio
import hashlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from miner.mirror import SessionEndFile
from shannon.errors import PocketError
from shannon.smst.bulk import LeafSet

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SealedSet:
    """Root and digest of a leaf set."""

    root: bytes
    leaf_digest: bytes
    count: int


def compute_root(path: str, supplier: str, session_id: str) -> SealedSet:
    """Root of a mirrored session."""
    file = SessionEndFile(Path(path))
    try:
        leaves = file.leaves(supplier, session_id)
    finally:
        file.close()
    digest = hashlib.sha256(b"".join(leaf for _, leaf in leaves)).digest()
    return SealedSet(LeafSet(leaves).root(), digest, len(leaves))


def compute_proof(path: str, supplier: str, session_id: str, proof_path: bytes) -> tuple[bytes, bytes]:
    """(root, marshalled closest proof) of a mirrored session."""
    file = SessionEndFile(Path(path))
    try:
        leaves = LeafSet(file.leaves(supplier, session_id))
        proof = leaves.closest_proof(proof_path, lambda leaf: file.content(supplier, session_id, leaf))
        return leaves.root(), proof.compact().marshal()
    finally:
        file.close()


class TrieWorkFailed(PocketError):
    """The process that did the work died; it is started again for the next call."""


class TriePool:
    """A small pool of processes; calls wait for their turn."""

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._processes, mp_context=multiprocessing.get_context("spawn"))

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)
        except BrokenProcessPool as error:
            if pool is self._pool:
                self._pool = self._new()
            raise TrieWorkFailed("the trie process died (out of memory?); it is tried again") from error

    async def root(self, path: Path, supplier: str, session_id: str) -> SealedSet:
        """`compute_root` in a process; raises TrieWorkFailed."""
        return await self._run(compute_root, str(path), supplier, session_id)

    async def proof(self, path: Path, supplier: str, session_id: str, proof_path: bytes) -> tuple[bytes, bytes]:
        """`compute_proof` in a process; raises TrieWorkFailed."""
        return await self._run(compute_proof, str(path), supplier, session_id, proof_path)

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
