"""The block feed: monotonic, gap-filling, alive through every outage of a node."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from shannon.chain.model import Block
from shannon.errors import PocketError


class BlockSource(Protocol):
    """Where blocks come from."""

    async def block(self, height: int | None = None) -> Block:
        """A block, the latest without height."""

    def heights(self) -> AsyncIterator[int]:
        """Heights as they are announced."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing pauses with jitter, in seconds."""

    first: float = 0.2
    longest: float = 5.0

    def pause(self, attempt: int, chance: random.Random) -> float:
        """Pause before the attempt after `attempt` failures."""
        return float(min(self.longest, self.first * 2 ** min(attempt, 16)) * chance.uniform(0.5, 1.0))


class BlockFeed:
    """Calls `on_block` with strictly increasing heights; never ends by itself.

    Announcements only say that something happened: what is delivered is always the node's latest block,
    so a burst collapses to its newest height (stages are level-triggered). When the subscription is down
    the feed polls.
    """

    def __init__(
        self,
        source: BlockSource,
        on_block: Callable[[Block], Awaitable[None]],
        *,
        poll_seconds: float = 1.0,
        chance: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_error: Callable[[PocketError], None] = lambda error: None,
    ) -> None:
        self._source = source
        self._on_block = on_block
        self._poll = poll_seconds
        self._chance = chance or random.Random()  # noqa: S311 - jitter, not cryptography
        self._sleep = sleep
        self._on_error = on_error
        self.height = 0

    async def refresh(self) -> bool:
        """Delivers the latest block if it is new; whether the node answered."""
        try:
            block = await self._source.block()
        except PocketError as error:
            self._on_error(error)
            return False
        if block.height > self.height:
            self.height = block.height
            await self._on_block(block)
        return True

    async def run(self) -> None:
        """Follows announcements, polls while there are none."""
        attempt = 0
        while True:
            announcements = self._source.heights()
            try:
                async with contextlib.aclosing(announcements) as heights:  # type: ignore[type-var]  # an async generator
                    await self.refresh()
                    async for height in heights:
                        attempt = 0
                        if height > self.height:
                            await self.refresh()
            except PocketError as error:
                self._on_error(error)
            await self.refresh()
            await self._sleep(min(self._poll, Backoff().pause(attempt, self._chance)))
            attempt += 1
