"""Compute a root and a closest proof in one pass over sorted leaves.

No node is ever stored. The root depends only on the set of leaves (docs/protocol/smst.md, section 2), so a session's
trie can be computed from its recorded relays at any time. Leaves are (path, digest) pairs sorted by path, paths
distinct.
"""

import operator
import os
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final

from pocket.protocol.acceleration import load_native, native_library
from pocket.protocol.smst import digest as d
from pocket.protocol.smst.closest import ClosestProof
from pocket.protocol.smst.native_trie import Subtree, TrieLibrary

_LIBRARY: Final = native_library("trie")


@dataclass(frozen=True, slots=True)
class LeafContent:
    """The parts of a leaf that a proof needs in addition to its digest."""

    value: bytes
    weight: int


def _inner(left: bytes, right: bytes) -> bytes:
    totals = (
        (int.from_bytes(left[32:40], "big") + int.from_bytes(right[32:40], "big") & d.MASK_64) << 64
        | (int.from_bytes(left[40:48], "big") + int.from_bytes(right[40:48], "big") & d.MASK_64)
    ).to_bytes(16, "big")
    return sha256(b"\x01" + left + right + totals).digest() + totals


def build_plain(paths: Sequence[bytes], digests: Sequence[bytes], low: int, high: int) -> Subtree:
    """Build the trie of leaves low … high−1.

    Joins neighbours by the length of their common prefix, deepest first.
    """
    # (depth of the branch, digest left of it, that digest's own branch depth, one of its paths)
    pending: list[tuple[int, bytes, int | None, bytes]] = []
    children = None
    digest, depth = digests[low], None
    number = int.from_bytes(paths[low], "big")
    for index in range(low, high):
        digest, depth = digests[index], None
        common = -1
        if index + 1 < high:
            following = int.from_bytes(paths[index + 1], "big")
            common = 256 - (number ^ following).bit_length()
            number = following
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
    return Subtree(digest, depth, children if depth is not None else None)


def self_test(library: TrieLibrary) -> bool:
    """Return whether the library equals `build_plain` for some leaves.

    The leaves have deep and shallow branches.
    """
    paths = sorted({sha256(bytes([n])).digest() for n in range(40)} | {n.to_bytes(32, "big") for n in range(9)})
    digests = [d.leaf_digest(path, path[:3], (1 << 64) - 1 - n) for n, path in enumerate(paths)]
    native = library.leaves(paths, digests)
    spans = [(low, high) for low in range(0, 49, 3) for high in range(low + 1, 50, 5)]
    return all(native.build(low, high) == build_plain(paths, digests, low, high) for low, high in spans)


def load(environment: Mapping[str, str] = os.environ, library: Path | None = _LIBRARY) -> TrieLibrary | None:
    """Return the compiled library, or None if `load_native` rejects it."""
    return load_native("tries", library, TrieLibrary, self_test, environment)


native: Final[TrieLibrary | None] = load()
"""None if everything is computed in Python."""


class LeafSet:
    """The sorted leaves of one session."""

    __slots__ = ("_digests", "_native", "_paths")

    def __init__(self, leaves: Sequence[tuple[bytes, bytes]], library: TrieLibrary | None = native) -> None:
        """Take (32-byte path, 48-byte leaf digest) pairs sorted by path.

        Raises ValueError if they are not strictly sorted.
        """
        self._paths = [path for path, _ in leaves]
        self._digests = [digest for _, digest in leaves]
        if any(map(operator.ge, self._paths, islice(self._paths, 1, None))):
            raise ValueError("leaves must be sorted by path, each path once")
        self._native = library.leaves(self._paths, self._digests) if library is not None else None

    def __len__(self) -> int:
        return len(self._paths)

    def root(self) -> bytes:
        """Return the 48-byte root, zeros for no leaves."""
        if not self._paths:
            return d.PLACEHOLDER
        return self._seen_from(0, len(self._paths), 0)

    def _seen_from(self, low: int, high: int, depth: int) -> bytes:
        """Digest of the subtree of leaves low … high−1 at `depth`."""
        tree = self._build(low, high)
        return tree.digest if tree.depth is None else d.lift(tree.digest, self._paths[low], tree.depth, depth)

    def _build(self, low: int, high: int) -> Subtree:
        if self._native is not None:
            return self._native.build(low, high)
        return build_plain(self._paths, self._digests, low, high)

    def closest_proof(self, path: bytes, content: Callable[[bytes], LeafContent]) -> ClosestProof:
        """Return the closest proof for `path`.

        `content(leaf path)` is called for the leaf and for a leaf sibling only.

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
            middle = bisect_left(self._paths, (prefix | bit).to_bytes(32, "big"), low, high)
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
