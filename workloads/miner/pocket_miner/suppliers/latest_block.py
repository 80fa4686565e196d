"""The latest block, and waiting for a later one."""

import asyncio

from pocket.chain.model import Block


class LatestBlock:
    """One writer, many readers; a reader that is slow sees the newest block only: stages are level-triggered."""

    def __init__(self) -> None:
        self.latest: Block | None = None
        self._news = asyncio.Event()

    def publish(self, block: Block) -> None:
        """Shows a block to everybody who waits."""
        self.latest = block
        news, self._news = self._news, asyncio.Event()
        news.set()

    @property
    def height(self) -> int:
        """Height of the latest block; 0 before the first."""
        return self.latest.height if self.latest else 0

    async def wait_newer(self, seen: int, seconds: float) -> None:
        """Returns once a block above `seen` is there, or after a while without one."""
        if self.height > seen:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
