"""A miner that claims a wrong root and one that sends wrong proofs, each for one supplier.

Every process of a demo whose PYTHONPATH starts here imports this. WRONG_ROOT and WRONG_PROOF name the suppliers.
"""

import os
from dataclasses import replace

from pocket.protocol.smst.closest import ClosestProof
from pocket_miner.storage import trie_pool

_root, _proof, _compact = trie_pool.compute_root, trie_pool.compute_proof, ClosestProof.compact
_proving = [""]


def _flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def compute_root(path, supplier, *more):
    found = _root(path, supplier, *more)
    return replace(found, root=_flipped(found.root)) if supplier == os.environ["WRONG_ROOT"] else found


def compute_proof(path, supplier, *more):
    _proving[0] = supplier
    root, proof = _proof(path, supplier, *more)
    return _flipped(root) if supplier == os.environ["WRONG_ROOT"] else root, proof


def compact(self):
    if _proving[0] == os.environ["WRONG_PROOF"]:
        self = replace(self, side_nodes=(*self.side_nodes[:-1], _flipped(self.side_nodes[-1])))
    return _compact(self)


trie_pool.compute_root, trie_pool.compute_proof, ClosestProof.compact = compute_root, compute_proof, compact
