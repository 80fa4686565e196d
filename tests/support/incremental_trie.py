"""Store the trie node by node, as the chain does.

Insertion order decides only free extension bits. This form is slow and complete. It yields the node store and proofs
byte for byte, and tests compare the bulk build with it. Source: docs/protocol/smst.md, section 2 (insertion) and
section 4 (closest proof).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pocket.protocol.smst import digest as d
from pocket.protocol.smst.closest import ClosestProof


@dataclass(slots=True)
class _Leaf:
    path: bytes
    value: bytes
    weight: int

    def digest(self) -> bytes:
        return d.leaf_digest(self.path, self.value, self.weight)

    def serialised(self) -> bytes:
        return d.leaf_preimage(self.path, self.value, self.weight)


@dataclass(slots=True)
class _Inner:
    left: "_Node"
    right: "_Node"
    cached: bytes | None = None

    def digest(self) -> bytes:
        if self.cached is None:
            self.cached = d.inner_digest(_digest(self.left), _digest(self.right))
        return self.cached

    def serialised(self) -> bytes:
        return d.inner_preimage(_digest(self.left), _digest(self.right))


@dataclass(slots=True)
class _Extension:
    start: int
    end: int
    path: bytes
    child: _Inner
    cached: bytes | None = None

    def digest(self) -> bytes:
        if self.cached is None:
            self.cached = d.lift(self.child.digest(), self.path, self.end, self.start)
        return self.cached

    def serialised(self) -> bytes:
        return d.extension_bytes(self.start, self.end, self.path, self.child.digest())


_Node = _Leaf | _Inner | _Extension | None


def _digest(node: _Node) -> bytes:
    return d.PLACEHOLDER if node is None else node.digest()


def _common_bits(left: bytes, right: bytes) -> int:
    return d.MAX_DEPTH - (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).bit_length()


class Trie:
    """A mutable trie over (key, value, weight)."""

    def __init__(self) -> None:
        self._root: _Node = None

    def insert(self, key: bytes, value: bytes, weight: int) -> None:
        """Insert or replace the leaf of `key`. The weight is a uint64 of compute units."""
        self._root = _insert(self._root, _Leaf(d.path_of(key), value, weight & d.MASK_64), 0)

    def root(self) -> bytes:
        """Return the 48-byte digest, zeros for an empty trie."""
        return _digest(self._root)

    def nodes(self) -> dict[bytes, bytes]:
        """Return the node store, digest → serialised node."""
        return {node.digest(): node.serialised() for node in _walk(self._root)}

    def closest_proof(self, path: bytes) -> ClosestProof:
        """Closest proof for a 32-byte path (section 4)."""
        return _closest(self._root, path)


def _branch(depth: int, left_path: bytes, one: "_Leaf | _Inner | _Extension", other: _Leaf) -> _Inner:
    if d.path_bit(left_path, depth):
        return _Inner(other, one)
    return _Inner(one, other)


def _insert(node: _Node, leaf: _Leaf, depth: int) -> "_Leaf | _Inner | _Extension":
    if node is None:
        return leaf
    if isinstance(node, _Leaf):
        if node.path == leaf.path:
            return leaf
        split = _common_bits(node.path, leaf.path)
        branch = _branch(split, node.path, node, leaf)
        return _Extension(depth, split, leaf.path, branch) if split > depth else branch
    if isinstance(node, _Extension):
        return _insert_into_extension(node, leaf)
    node.cached = None
    if d.path_bit(leaf.path, depth):
        node.right = _insert(node.right, leaf, depth + 1)
    else:
        node.left = _insert(node.left, leaf, depth + 1)
    return node


def _insert_into_extension(node: _Extension, leaf: _Leaf) -> "_Inner | _Extension":
    split = next((k for k in range(node.start, node.end) if d.path_bit(node.path, k) != d.path_bit(leaf.path, k)), None)
    if split is None:
        node.cached = None
        child = _insert(node.child, leaf, node.end)
        assert isinstance(child, _Inner)
        node.child = child
        return node
    below: _Inner | _Extension = node.child
    if split + 1 < node.end:
        below = _Extension(split + 1, node.end, node.path, node.child)
    branch = _branch(split, node.path, below, leaf)
    return _Extension(node.start, split, node.path, branch) if split > node.start else branch


def _walk(node: _Node) -> Iterator["_Leaf | _Inner | _Extension"]:
    pending = [node]
    while pending:
        current = pending.pop()
        if current is None:
            continue
        yield current
        if isinstance(current, _Inner):
            pending += [current.left, current.right]
        elif isinstance(current, _Extension):
            pending.append(current.child)


def _closest(node: _Node, path: bytes) -> ClosestProof:
    flipped: list[int] = []
    siblings: list[bytes] = []
    sibling_data: bytes | None = None
    depth = 0
    while node is not None and not isinstance(node, _Leaf):
        wanted = d.path_bit(path, depth)
        if isinstance(node, _Extension):
            for level in range(node.start, node.end):
                if d.path_bit(path, level) != d.path_bit(node.path, level):
                    flipped.append(level)
                siblings.append(d.PLACEHOLDER)
            depth, node = node.end, node.child
            continue
        child, sibling = (node.right, node.left) if wanted else (node.left, node.right)
        siblings.append(_digest(sibling))
        sibling_data = None if sibling is None else sibling.serialised()
        node = child
        depth += 1
    if node is None:
        return ClosestProof.of_empty_trie(path)
    return ClosestProof(
        path,
        tuple(flipped),
        depth,
        node.path,
        d.leaf_data(node.value, node.weight),
        tuple(reversed(siblings)),
        sibling_data,
    )
