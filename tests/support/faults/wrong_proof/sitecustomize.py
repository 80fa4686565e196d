"""A miner that sends wrong proofs: imported by every process of a demo whose PYTHONPATH starts here."""

from dataclasses import replace

from shannon.smst.closest import ClosestProof

_compact = ClosestProof.compact


def wrong(self):
    node = bytearray(self.side_nodes[-1])
    node[0] ^= 1
    return _compact(replace(self, side_nodes=(*self.side_nodes[:-1], bytes(node))))


ClosestProof.compact = wrong
