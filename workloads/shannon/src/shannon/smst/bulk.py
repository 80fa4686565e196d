"""Root and closest proof in one pass over the sorted leaf set; no node is ever stored.

The root depends only on the set of leaves (smst.md, section 2), so a session's trie is a view of its
ledger. Leaves are (path, digest) pairs sorted by path, paths distinct.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from shannon.smst import digest as d
from shannon.smst.closest import ClosestProof


@dataclass(frozen=True, slots=True)
class LeafContent:
    """What a proof needs of a leaf beyond its digest."""

    value: bytes
    weight: int


def _inner(left: bytes, right: bytes) -> bytes:
    totals = (
        (int.from_bytes(left[32:40], "big") + int.from_bytes(right[32:40], "big") & d.MASK_64) << 64
        | (int.from_bytes(left[40:48], "big") + int.from_bytes(right[40:48], "big") & d.MASK_64)
    ).to_bytes(16, "big")
    return sha256(b"\x01" + left + right + totals).digest() + totals


@dataclass(frozen=True, slots=True)
class _Subtree:
    """Digest at `depth`; depth is None for a single leaf, which sits wherever its path is unique."""

    digest: bytes
    depth: int | None
    children: tuple[bytes, bytes] | None = None


class LeafSet:
    """The sorted leaves of one session."""

    __slots__ = ("_digests", "_numbers", "_paths")

    def __init__(self, leaves: Sequence[tuple[bytes, bytes]]) -> None:
        """`leaves`: (32-byte path, 48-byte leaf digest), sorted by path; raises ValueError if not strictly sorted."""
        self._paths = [path for path, _ in leaves]
        self._digests = [digest for _, digest in leaves]
        self._numbers = [int.from_bytes(path, "big") for path in self._paths]
        if any(a >= b for a, b in zip(self._numbers, self._numbers[1:], strict=False)):
            raise ValueError("leaves must be sorted by path, each path once")

    def __len__(self) -> int:
        return len(self._paths)

    def root(self) -> bytes:
        """48-byte root; zeros when empty."""
        if not self._paths:
            return d.PLACEHOLDER
        return self._seen_from(0, len(self._paths), 0)

    def _seen_from(self, low: int, high: int, depth: int) -> bytes:
        """Digest of the subtree of leaves low … high−1 at `depth`."""
        tree = self._build(low, high)
        return tree.digest if tree.depth is None else d.lift(tree.digest, self._paths[low], tree.depth, depth)

    def _build(self, low: int, high: int) -> _Subtree:
        """Joins neighbours by the length of their common prefix, deepest first, with a stack."""
        numbers, digests, paths = self._numbers, self._digests, self._paths
        # (depth of the branch, digest left of it, that digest's own branch depth, one of its paths)
        pending: list[tuple[int, bytes, int | None, bytes]] = []
        children = None
        digest, depth = digests[low], None
        for index in range(low, high):
            digest, depth = digests[index], None
            common = 256 - (numbers[index] ^ numbers[index + 1]).bit_length() if index + 1 < high else -1
            while pending and pending[-1][0] > common:
                branch, left, left_depth, left_path = pending.pop()
                if left_depth is not None and left_depth > branch + 1:
                    left = d.lift(left, left_path, left_depth, branch + 1)
                if depth is not None and depth > branch + 1:
                    digest = d.lift(digest, paths[index], depth, branch + 1)
                children = (left, digest)
                digest = _inner(left, digest)
                depth = branch
            pending.append((common, digest, depth, paths[index]))
        return _Subtree(digest, depth, children if depth is not None else None)

    def closest_proof(self, path: bytes, content: Callable[[bytes], LeafContent]) -> ClosestProof:
        """Closest proof for `path`; `content(leaf path)` is asked for the leaf and for a leaf sibling only.

        Free bits of an extension sibling are zero.
        """
        if not self._paths:
            return ClosestProof.of_empty_trie(path)
        low, high, depth = 0, len(self._paths), 0
        prefix = 0
        flipped: list[int] = []
        siblings: list[bytes] = []
        deepest: tuple[int, int, int] | None = None
        while high - low > 1:
            bit = 1 << (255 - depth)
            middle = bisect_left(self._numbers, prefix | bit, low, high)
            wanted = d.path_bit(path, depth)
            ranges = ((low, middle), (middle, high))
            if ranges[wanted][0] == ranges[wanted][1]:
                flipped.append(depth)
                wanted = 1 - wanted
            other_low, other_high = ranges[1 - wanted]
            depth += 1
            if other_low == other_high:
                siblings.append(d.PLACEHOLDER)
            else:
                siblings.append(self._seen_from(other_low, other_high, depth))
                deepest = (other_low, other_high, depth)
            low, high = ranges[wanted]
            prefix |= bit if wanted else 0
        own = content(self._paths[low])
        return ClosestProof(
            path,
            tuple(flipped),
            depth,
            self._paths[low],
            d.leaf_data(own.value, own.weight),
            tuple(reversed(siblings)),
            None if deepest is None else self._serialised(*deepest, content),
        )

    def _serialised(self, low: int, high: int, depth: int, content: Callable[[bytes], LeafContent]) -> bytes:
        if high - low == 1:
            leaf = content(self._paths[low])
            return d.leaf_preimage(self._paths[low], leaf.value, leaf.weight)
        tree = self._build(low, high)
        if tree.depth is None or tree.children is None:
            raise ValueError("a subtree of two leaves has a branch")
        if tree.depth > depth:
            return d.extension_bytes(depth, tree.depth, d.mask_path(self._paths[low], depth, tree.depth), tree.digest)
        return d.inner_preimage(*tree.children)
