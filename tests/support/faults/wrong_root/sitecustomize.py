"""A miner that claims a wrong root: imported by every process of a demo whose PYTHONPATH starts here."""

from shannon.smst.bulk import LeafSet

_root = LeafSet.root


def wrong(self):
    root = bytearray(_root(self))
    root[0] ^= 1
    return bytes(root)


LeafSet.root = wrong
