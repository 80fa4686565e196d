"""Read blocks from CometBFT's RPC, or over gRPC without it.

gRPC is used while no node's RPC answers, or while its answers stay the same.
"""

import time
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from pocket.chain.block_feed import BlockSource
from pocket.chain.model import Block
from pocket.errors import PocketError

_STALE_BLOCKS: Final = 3


class GrpcBlocks(Protocol):
    """Blocks over gRPC."""

    async def latest_block(self, chain_id: str = "") -> Block:
        """Return the latest block of this chain."""

    async def block(self, height: int) -> Block:
        """Return a block."""


class FallbackBlocks:
    """Blocks of either interface, so that one of them is enough to follow the chain.

    RPC is queried first: its answers do not contain a block's transactions. Announcements come over RPC only, so a
    feed polls while there are none. An RPC whose latest block stays the same for three block times, as behind a cache
    that does not expire, is compared with gRPC.
    """

    def __init__(
        self,
        rpc: BlockSource,
        grpc: GrpcBlocks,
        chain_id: str = "",
        *,
        block_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rpc = rpc
        self._grpc = grpc
        self._chain_id = chain_id
        self._clock = clock
        self._stale_seconds = _STALE_BLOCKS * block_seconds
        self._newest, self._newest_at = 0, clock()

    async def block(self, height: int | None = None) -> Block:
        """Return a block, the latest without a height.

        Raises the RPC's error if neither interface answers.
        """
        try:
            block = await self._rpc.block(height)
        except PocketError as error:
            try:
                return await (self._grpc.latest_block(self._chain_id) if height is None else self._grpc.block(height))
            except PocketError:
                raise error from None
        return block if height is not None else await self._newer(block)

    async def _newer(self, block: Block) -> Block:
        """Return the latest block of RPC, or a newer one of gRPC if RPC's is stale."""
        now = self._clock()
        if block.height > self._newest:
            self._newest, self._newest_at = block.height, now
        if now - self._newest_at < self._stale_seconds:
            return block
        try:
            other = await self._grpc.latest_block(self._chain_id)
        except PocketError:
            return block
        return max(block, other, key=lambda candidate: candidate.height)

    def heights(self) -> AsyncIterator[int]:
        """Return heights as they are announced."""
        return self._rpc.heights()
