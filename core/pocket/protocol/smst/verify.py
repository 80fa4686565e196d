"""Decode and verify submitted proofs as the chain does.

Source: docs/protocol/smst.md, section 4.3.
"""

from typing import Any

from pocket.errors import DecodingError, InvalidProof
from pocket.protocol.smst import digest as d
from pocket.protocol.smst import gob
from pocket.protocol.smst.closest import ClosestProof, CompactProof

_LEAF_TAIL = 16  # weight and count behind the value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise DecodingError("gob: expected bytes")
    return value


def _list(value: Any) -> tuple[bytes, ...]:
    if not isinstance(value, list):
        raise DecodingError("gob: expected a list")
    return tuple(_bytes(item) for item in value)


def unmarshal(data: bytes) -> CompactProof:
    """Decode a compact proof from a proof message.

    Raises InvalidProof at stage `unmarshal`.
    """
    try:
        outer = gob.decode_struct(data)
        inner = outer.get("ClosestProof", {})
        if not isinstance(inner, dict):
            raise DecodingError("gob: expected a struct")
        count = inner.get("NumSideNodes", 0)
        if not isinstance(count, int):
            raise DecodingError("gob: expected a number")
        return CompactProof(
            path=_bytes(outer.get("Path", b"")),
            flipped_bits=_list(outer.get("FlippedBits", [])),
            depth=_bytes(outer.get("Depth", b"")),
            closest_path=_bytes(outer.get("ClosestPath", b"")),
            closest_value_hash=_bytes(outer.get("ClosestValueHash", b"")),
            side_nodes=_list(inner.get("SideNodes", [])),
            non_membership_leaf_data=_bytes(inner.get("NonMembershipLeafData", b"")),
            bit_mask=_bytes(inner.get("BitMask", b"")),
            num_side_nodes=count,
            sibling_data=_bytes(inner.get("SiblingData", b"")),
        )
    except DecodingError as error:
        raise InvalidProof("unmarshal", str(error)) from error


def _check(holds: bool, stage: str, message: str) -> None:
    if not holds:
        raise InvalidProof(stage, message)


def decompact(proof: CompactProof) -> tuple[ClosestProof, bytes]:
    """Expand a compact proof into (expanded proof, non-membership data).

    Raises InvalidProof at stage `decompact`.
    """
    count = proof.num_side_nodes
    _check(len(proof.path) == d.HASH_BYTES, "decompact", "the path has not 32 bytes")
    _check(len(proof.depth) <= 2, "decompact", "the depth has more than 2 bytes")
    _check(all(len(bit) <= 2 for bit in proof.flipped_bits), "decompact", "a flipped bit has more than 2 bytes")
    _check(0 <= count <= d.MAX_DEPTH, "decompact", "the number of side nodes is impossible")
    _check(len(proof.bit_mask) == (count + 7) // 8, "decompact", "the bit mask has the wrong length")
    if count:
        ones = int.from_bytes(proof.bit_mask, "big").bit_count()
        _check(len(proof.side_nodes) == count - ones, "decompact", "side nodes and bit mask do not agree")
    kept = iter(proof.side_nodes)
    side_nodes = []
    for index in range(count):
        side_nodes.append(d.PLACEHOLDER if d.path_bit(proof.bit_mask, index) else next(kept, b""))
    expanded = ClosestProof(
        proof.path,
        tuple(int.from_bytes(bit, "big") for bit in proof.flipped_bits),
        int.from_bytes(proof.depth, "big"),
        proof.closest_path,
        proof.closest_value_hash or None,
        tuple(side_nodes),
        proof.sibling_data or None,
    )
    return expanded, proof.non_membership_leaf_data


def _sibling_digest(data: bytes) -> bytes | None:
    """Return the digest of a serialised node, or None for an unknown form."""
    if data[:1] == d.EXTENSION_PREFIX and len(data) == 99:
        start, end, path, child = data[1], data[2], data[3:35], data[35:83]
        return d.lift(child, path, end, start) if start <= end else None
    if data[:1] == d.INNER_PREFIX and len(data) == 113:
        return d.inner_digest(data[1:49], data[49:97]) if d.inner_preimage(data[1:49], data[49:97]) == data else None
    if data[:1] == d.LEAF_PREFIX and len(data) >= 49:
        return d.sha256_digest(data) + data[-16:]
    return None


def _check_expanded(proof: ClosestProof, non_membership: bytes) -> None:
    stage = "verify_error"
    _check(proof.depth <= d.MAX_DEPTH, stage, "the depth is above 256")
    _check(all(bit <= proof.depth for bit in proof.flipped_bits), stage, "a flipped bit lies below the depth")
    _check(8 * len(proof.closest_path) >= len(proof.side_nodes), stage, "the closest path is too short")
    wanted = int.from_bytes(proof.path, "big")
    for bit in proof.flipped_bits:
        if bit < d.MAX_DEPTH:
            wanted ^= 1 << (255 - bit)
    differing = wanted ^ int.from_bytes(proof.closest_path[:32].ljust(32, b"\x00"), "big")
    _check(
        differing >> (d.MAX_DEPTH - proof.depth) == 0,
        stage,
        "the path with its flipped bits does not lead to the closest path",
    )
    _check(not non_membership or len(non_membership) >= 33, stage, "the non-membership data is too short")
    if proof.sibling_data is not None and proof.side_nodes:
        _check(all(len(n) == d.DIGEST_BYTES for n in proof.side_nodes), stage, "a side node has not 48 bytes")
        _check(_sibling_digest(proof.sibling_data) == proof.side_nodes[0], stage, "the sibling data is another node's")


def verify_closest(data: bytes, root: bytes) -> ClosestProof:
    """Return the proof if it shows that its leaf is included under the 48-byte `root`.

    Raises InvalidProof with the stage that failed.
    """
    proof, non_membership = decompact(unmarshal(data))
    _check_expanded(proof, non_membership)
    leaf = proof.closest_value_hash or b""
    _check(not leaf or len(leaf) >= _LEAF_TAIL, "verify_error", "the leaf data is shorter than its weight and count")
    # An absent leaf, or one without value and weight, counts as the placeholder and proves the empty trie only.
    if len(leaf) > _LEAF_TAIL or any(leaf[:8]):
        current = d.sha256_digest(d.LEAF_PREFIX + proof.closest_path + leaf) + leaf[-16:]
    else:
        current = d.PLACEHOLDER
    last = len(proof.side_nodes) - 1
    for index, node in enumerate(proof.side_nodes):
        side = node[: d.DIGEST_BYTES].ljust(d.DIGEST_BYTES, b"\x00")
        if d.path_bit(proof.closest_path, last - index):
            current = d.inner_digest(side, current)
        else:
            current = d.inner_digest(current, side)
    _check(current == root, "verify_false", "the proof leads to another root")
    return proof


def leaf_value(proof: ClosestProof) -> bytes:
    """Return the relay bytes of a verified proof."""
    return (proof.closest_value_hash or b"")[:-_LEAF_TAIL]
