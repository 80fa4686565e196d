"""CPU-bound trie work in bounded processes, off the event loop."""

import asyncio
import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from miner.mirror import SessionEndFile
from shannon.smst.bulk import LeafSet


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


class TriePool:
    """A small pool of processes; calls wait for their turn."""

    def __init__(self, processes: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, mp_context=context)

    async def root(self, path: Path, supplier: str, session_id: str) -> SealedSet:
        """`compute_root` in a process."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, compute_root, str(path), supplier, session_id)

    async def proof(self, path: Path, supplier: str, session_id: str, proof_path: bytes) -> tuple[bytes, bytes]:
        """`compute_proof` in a process."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, compute_proof, str(path), supplier, session_id, proof_path)

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
