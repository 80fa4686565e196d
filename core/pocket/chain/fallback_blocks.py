"""Read blocks from CometBFT's RPC, or over gRPC while no node's RPC answers."""

from collections.abc import AsyncIterator
from typing import Protocol

from pocket.chain.block_feed import BlockSource
from pocket.chain.model import Block
from pocket.errors import PocketError


class GrpcBlocks(Protocol):
    """Blocks over gRPC."""

    async def latest_block(self, chain_id: str = "") -> Block:
        """Return the latest block of this chain."""

    async def block(self, height: int) -> Block:
        """Return a block."""


class FallbackBlocks:
    """Blocks of either interface, so that one of them is enough to follow the chain.

    RPC is queried first: its answers do not contain a block's transactions. Announcements come over RPC only, so a
    feed polls while there are none.
    """

    def __init__(self, rpc: BlockSource, grpc: GrpcBlocks, chain_id: str = "") -> None:
        self._rpc = rpc
        self._grpc = grpc
        self._chain_id = chain_id

    async def block(self, height: int | None = None) -> Block:
        """Return a block, the latest without a height.

        Raises the RPC's error if neither interface answers.
        """
        try:
            return await self._rpc.block(height)
        except PocketError as error:
            try:
                return await (self._grpc.latest_block(self._chain_id) if height is None else self._grpc.block(height))
            except PocketError:
                raise error from None

    def heights(self) -> AsyncIterator[int]:
        """Return heights as they are announced."""
        return self._rpc.heights()
