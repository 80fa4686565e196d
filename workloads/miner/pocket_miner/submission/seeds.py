"""The hash of the block before a proof window, on which requirement and path of a proof depend.

It comes from several nodes, or from one at several blocks: a proof for a wrong hash is refused, and a requirement
decided by it costs stake. One object serves all suppliers of a process.
"""

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from pocket.chain.client import ChainClient
from pocket.chain.model import Block
from pocket.errors import ChainError, ChainUnavailable, DecodingError

_ENOUGH: Final = 2
_KEPT: Final = 64


class HashSource(Protocol):
    """Where block hashes come from."""

    async def block(self, height: int | None = None) -> Block:
        """Return a block; raises ChainError."""

    async def hashes_by_node(self, height: int) -> Mapping[str, bytes | ChainError]:
        """Return what every node says."""


@dataclass(slots=True)
class _Votes:
    """Who told which hash, by (source, height at which it was asked)."""

    told: dict[tuple[str, int], bytes] = field(default_factory=dict)
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked_at: int = -1

    def best(self) -> tuple[bytes, bool] | None:
        """Return the hash that most told, and whether enough did; the latest one where several are told as often."""
        counts = Counter(self.told.values())
        if not counts:
            return None
        most = max(counts.values())
        block_hash = next(row for row in reversed(self.told.values()) if counts[row] == most)
        return block_hash, most >= _ENOUGH and list(counts.values()).count(most) == 1


@dataclass(slots=True)
class SeedHashes:
    """Block hashes with their witnesses."""

    blocks: HashSource
    chain: ChainClient
    _votes: OrderedDict[int, _Votes] = field(default_factory=OrderedDict)

    async def hash_of(self, height: int, now: int) -> tuple[bytes, bool]:
        """Return the hash of a block and whether a second answer confirms it; raises ChainError while unknown.

        now: the latest height. Nodes are asked once a block until enough say the same.
        """
        votes = self._votes.setdefault(height, _Votes())
        while len(self._votes) > _KEPT:
            self._votes.popitem(last=False)
        async with votes.asking:
            best = votes.best()
            if (best is None or not best[1]) and votes.asked_at != now:
                await self._ask(height, now, votes)
                best = votes.best()
        if best is None:
            raise ChainUnavailable(f"no node tells the hash of block {height}")
        return best

    def doubt(self, height: int) -> None:
        """Ask everybody again: the chain found a proof made with this hash invalid."""
        self._votes.pop(height, None)

    async def _ask(self, height: int, now: int, votes: _Votes) -> None:
        found = await self.blocks.hashes_by_node(height)
        told = {source: row for source, row in found.items() if not isinstance(row, ChainError)}
        if not told:
            # The other interface of the nodes, where a proxy breaks the first.
            with contextlib.suppress(ChainError, DecodingError):
                told["grpc"] = (await self.chain.block(height)).hash
        for source, block_hash in told.items():
            votes.told[source, now] = block_hash
        # An answer that all asked for a moment ago may have missed is asked for again; a whole one at the next block.
        votes.asked_at = now if told else -1
