"""Query the hash of the block before a proof window.

It determines requirement and path of proofs. The hash is confirmed by several nodes, or by one node at several blocks.
A proof for a wrong hash is rejected, and a requirement decided by one costs stake. One object serves all suppliers of a
process.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from cachetools import FIFOCache

from pocket.chain.client import ChainClient
from pocket.chain.model import Block
from pocket.errors import ChainError, ChainUnavailable, DecodingError

_ENOUGH: Final = 2
_KEPT: Final = 64


class HashSource(Protocol):
    """The source of block hashes."""

    async def block(self, height: int | None = None) -> Block:
        """Return a block.

        Raises ChainError.
        """

    async def hashes_by_node(self, height: int) -> Mapping[str, bytes | ChainError]:
        """Return the hash or the error of every node, by node name."""


@dataclass(slots=True)
class _Votes:
    """The returned hashes, by (source, height at which it was queried)."""

    answers: dict[tuple[str, int], bytes] = field(default_factory=dict)
    refuted: dict[bytes, None] = field(default_factory=dict)
    """Hashes with which a proof was found invalid, the latest last."""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked_at: int = -1

    def best(self) -> tuple[bytes, bool] | None:
        """Return the most frequent hash and whether it is confirmed.

        If several tie, the latest one is returned as unconfirmed, one that was refuted only if all of them were.
        """
        counts = Counter(self.answers.values())
        if not counts:
            return None
        highest = max(counts.values())
        order = {block_hash: place for place, block_hash in enumerate(self.refuted, start=1)}
        tied = (row for row in reversed(self.answers.values()) if counts[row] == highest)
        block_hash = min(tied, key=lambda row: order.get(row, 0))
        return block_hash, highest >= _ENOUGH and list(counts.values()).count(highest) == 1


@dataclass(slots=True)
class SeedHashes:
    """Block hashes with the answers that confirm them."""

    blocks: HashSource
    chain: ChainClient
    _votes: FIFOCache[int, _Votes] = field(default_factory=lambda: FIFOCache(_KEPT))

    async def hash_of(self, height: int, now: int) -> tuple[bytes, bool]:
        """Return the hash of a block and whether a second answer confirms it.

        `now` is the latest height. Nodes are queried once per block until enough agree. Raises ChainError while the
        hash is unknown.
        """
        votes = self._votes.setdefault(height, _Votes())
        async with votes.asking:
            best = votes.best()
            if (best is None or not best[1]) and votes.asked_at != now:
                await self._ask(height, now, votes)
                best = votes.best()
        if best is None:
            raise ChainUnavailable(f"no node returned the hash of block {height}")
        return best

    def doubt(self, height: int, refuted: bytes | None = None) -> None:
        """Discard the answers about a block, because a proof made with its hash was found invalid.

        `refuted` is that hash, None if another owner made the proof.
        """
        votes = self._votes.setdefault(height, _Votes())
        votes.answers.clear()
        votes.asked_at = -1
        if refuted is not None:
            votes.refuted.pop(refuted, None)
            votes.refuted[refuted] = None

    async def _ask(self, height: int, now: int, votes: _Votes) -> None:
        by_node = await self.blocks.hashes_by_node(height)
        hashes = {source: row for source, row in by_node.items() if not isinstance(row, ChainError)}
        if not hashes:
            # A proxy may break RPC but not gRPC.
            with contextlib.suppress(ChainError, DecodingError):
                hashes["grpc"] = (await self.chain.block(height)).hash
        for source, block_hash in hashes.items():
            votes.answers[source, now] = block_hash
        # Without any answer the nodes are queried again immediately, otherwise at the next block.
        votes.asked_at = now if hashes else -1
