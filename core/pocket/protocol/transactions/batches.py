"""Bound the sizes of transactions, messages and mined relays.

A CometBFT node takes no transaction above its `mempool.max_tx_bytes`, 1 MiB as shipped. A proof holds its leaf as it
is, and a leaf that is its sibling as well (docs/protocol/smst.md, section 4): a relay with a larger request can be
mined and claimed but never proven, and the supplier is penalised.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from pocket.protocol.transactions.build import Message

T = TypeVar("T")
MAX_TRANSACTION_BYTES: Final = 1024 * 1024
# Signature, key, fee and memo; type URL and lengths of a message.
_AROUND_MESSAGES: Final = 2048
_AROUND_MESSAGE: Final = 128
# Side nodes of a proof as deep as a trie can be (256 of 48 bytes and their encoding), and the session header.
_AROUND_LEAF: Final = 32 * 1024


def largest_leaf(max_transaction_bytes: int) -> int:
    """Return the size in bytes of the largest relay that a proof can hold twice.

    A proof may have to hold the leaf and a sibling of the same size.
    """
    return (max_transaction_bytes - _AROUND_LEAF) // 2


def batch_by_size(rows: Sequence[T], message_of: Callable[[T], Message], max_transaction_bytes: int) -> list[list[T]]:
    """Split rows into batches that fit into one transaction each, keeping their order.

    A message that is too large even alone gets its own batch.
    """
    batches: list[list[T]] = []
    room = 0
    for row in rows:
        size = len(message_of(row).value) + _AROUND_MESSAGE
        if not batches or size > room:
            batches.append([])
            room = max_transaction_bytes - _AROUND_MESSAGES
        batches[-1].append(row)
        room -= size
    return batches
