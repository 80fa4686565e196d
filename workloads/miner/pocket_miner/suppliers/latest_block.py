"""Publish the latest block to any number of waiting readers."""

import asyncio
from collections.abc import Callable
from typing import Final

from pocket.chain.model import Block

_PATIENCE: Final = 1.5
"""Times the time between blocks. A deadline of one would wake each reader twice at every block."""


def longest_wait(block_seconds: float) -> float:
    """Return for how long a reader waits for the next block, in seconds."""
    return max(1.0, _PATIENCE * block_seconds)


def _never(height: int) -> bool:
    return False


class LatestBlock:
    """A watch channel for the newest block: one writer, many readers.

    A slow reader misses the blocks in between, which is fine: stages are computed from the newest block alone.
    """

    def __init__(self) -> None:
        self.latest: Block | None = None
        self._waiting: dict[asyncio.Future[None], Callable[[int], bool]] = {}

    def publish(self, block: Block) -> None:
        """Publish a block and wake the readers that do not skip it."""
        self.latest = block
        for reader, skips in self._waiting.items():
            if not reader.done() and not skips(block.height):
                reader.set_result(None)

    @property
    def height(self) -> int:
        """Return the height of the latest block, 0 before the first one."""
        return self.latest.height if self.latest else 0

    async def wait_newer(self, seen: int, seconds: float, skips: Callable[[int], bool] = _never) -> None:
        """Wait for a block above the height `seen`, at most `seconds`.

        Blocks at whose height `skips` returns True are not waited for. It is called at each block, for each reader.
        """
        if self.height > seen and not skips(self.height):
            return
        reader = asyncio.get_running_loop().create_future()
        self._waiting[reader] = skips
        try:
            async with asyncio.timeout(seconds):
                await reader
        except TimeoutError:
            return
        finally:
            del self._waiting[reader]
