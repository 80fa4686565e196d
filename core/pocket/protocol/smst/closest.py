"""Build the closest proof, its compact form and their marshalled bytes.

Source: docs/protocol/smst.md, section 4.
"""

from dataclasses import dataclass

from pocket.protocol.smst import gob
from pocket.protocol.smst.digest import DIGEST_BYTES, PLACEHOLDER


def _short(value: int) -> bytes:
    """Shortest big-endian bytes, one zero byte for 0."""
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


@dataclass(frozen=True, slots=True)
class CompactProof:
    """The proof as sent to the chain, with a bit mask instead of placeholders."""

    path: bytes
    flipped_bits: tuple[bytes, ...]
    depth: bytes
    closest_path: bytes
    closest_value_hash: bytes
    side_nodes: tuple[bytes, ...]
    non_membership_leaf_data: bytes
    bit_mask: bytes
    num_side_nodes: int
    sibling_data: bytes

    def marshal(self) -> bytes:
        """Return the bytes of MsgSubmitProof.proof."""
        inner = gob.struct_value(
            [
                gob.bytes_list(self.side_nodes),
                gob.byte_string(self.non_membership_leaf_data),
                gob.byte_string(self.bit_mask),
                gob.signed(self.num_side_nodes),
                gob.byte_string(self.sibling_data),
            ]
        )
        outer = gob.struct_value(
            [
                gob.byte_string(self.path),
                gob.bytes_list(self.flipped_bits),
                gob.byte_string(self.depth),
                gob.byte_string(self.closest_path),
                gob.byte_string(self.closest_value_hash),
                inner,
            ]
        )
        return gob.COMPACT_PROOF_TYPES + gob.value_message(64, outer)


@dataclass(frozen=True, slots=True)
class ClosestProof:
    """The proof of the leaf closest to a path.

    Side nodes have 48 bytes each and are ordered from the leaf up to the root.
    """

    path: bytes
    flipped_bits: tuple[int, ...]
    depth: int
    closest_path: bytes
    closest_value_hash: bytes | None
    side_nodes: tuple[bytes, ...]
    sibling_data: bytes | None

    @classmethod
    def of_empty_trie(cls, path: bytes) -> "ClosestProof":
        """Return the proof of a trie without leaves."""
        return cls(path, (0,), 0, bytes(DIGEST_BYTES), None, (), None)

    def compact(self) -> CompactProof:
        """Return the compact form (section 4.1)."""
        mask = bytearray((len(self.side_nodes) + 7) // 8)
        kept = []
        for index, node in enumerate(self.side_nodes):
            if node == PLACEHOLDER:
                mask[index >> 3] |= 0x80 >> (index & 7)
            else:
                kept.append(node)
        return CompactProof(
            self.path,
            tuple(_short(bit) for bit in self.flipped_bits),
            _short(self.depth),
            self.closest_path,
            self.closest_value_hash or b"",
            tuple(kept),
            b"",
            bytes(mask),
            len(self.side_nodes),
            self.sibling_data or b"",
        )
