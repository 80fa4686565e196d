"""Publish the latest block to any number of waiting readers."""

import asyncio

from pocket.chain.model import Block


class LatestBlock:
    """A watch channel for the newest block: one writer, many readers.

    A slow reader misses the blocks in between, which is fine: stages are computed from the newest block alone.
    """

    def __init__(self) -> None:
        self.latest: Block | None = None
        self._news = asyncio.Event()

    def publish(self, block: Block) -> None:
        """Publish a block and wake all readers."""
        self.latest = block
        news, self._news = self._news, asyncio.Event()
        news.set()

    @property
    def height(self) -> int:
        """Return the height of the latest block, 0 before the first one."""
        return self.latest.height if self.latest else 0

    async def wait_newer(self, seen: int, seconds: float) -> None:
        """Wait for a block above the height `seen`, at most `seconds`."""
        if self.height > seen:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
