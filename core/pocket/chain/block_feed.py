"""Follow the chain's latest block through node outages."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain.model import Block
from pocket.chain.plausible_heights import Belief, HeightGuard
from pocket.errors import ChainUnavailable, PocketError
from pocket.runtime.backoff import Backoff

_LOG: FilteringBoundLogger = structlog.get_logger()
_ANNOUNCEMENTS = 16
_LOOKS = 4
_BACKOFF = Backoff()
_PATIENCE = 1.5  # times the measured time between blocks
_DOUBT_PATIENCE = 0.25  # the same while a height is not believed: further ones may show that it is right


class BlockSource(Protocol):
    """A source of blocks and of announced heights."""

    async def block(self, height: int | None = None) -> Block:
        """Return a block, the latest without a height."""

    def heights(self) -> AsyncIterator[int]:
        """Heights as they are announced."""


class BlockFeed:
    """Calls `on_block` with each latest block and never ends on its own.

    An announcement only triggers a query of the node's latest block, so a burst collapses to its newest height. While
    nothing is announced for longer than a block takes, the feed polls. If a poll finds a block that was not announced,
    the feed subscribes again. Heights only grow, unless a believed height turns out to be wrong
    (`pocket.chain.plausible_heights`).
    """

    def __init__(
        self,
        source: BlockSource,
        on_block: Callable[[Block], Awaitable[None]],
        *,
        poll_seconds: float = 1.0,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_error: Callable[[PocketError], None] = lambda error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the expected block time as `poll_seconds`.

        It is also the longest pause between retries.
        """
        self._source = source
        self._on_block = on_block
        self._poll = poll_seconds
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not cryptography
        self._sleep = sleep
        self._on_error = on_error
        self._clock = clock
        self._guard = HeightGuard(poll_seconds)

    @property
    def height(self) -> int:
        """Height of the latest block that is believed."""
        return self._guard.height

    @property
    def block_seconds(self) -> float:
        """Return the measured time between blocks in seconds."""
        return self._guard.block_seconds

    async def refresh(self) -> bool:
        """Deliver the latest block if it is new. Returns whether the node answered."""
        try:
            block = await self._source.block()
        except PocketError as error:
            self._on_error(error)
            return False
        belief = self._guard.observe(block, self._clock())
        if belief in (Belief.NEWER, Belief.REPLACED):
            if belief is Belief.REPLACED:
                _LOG.error("nodes contradict the known height, going back", height=block.height)
            await self._on_block(block)
        elif belief is Belief.IMPLAUSIBLE:
            _LOG.warning(
                "a node reports a height that the elapsed time does not allow",
                height=block.height,
                known_height=self.height,
            )
        return True

    async def run(self) -> None:
        """Follow announcements, poll while there are none."""
        failures = 0
        while True:
            failures += 1
            try:
                if await self._follow():
                    failures = 1
            except PocketError as error:
                self._on_error(error)
            await self.refresh()
            await self._sleep(min(self._poll, _BACKOFF.pause(failures, self._rng)))

    async def _follow(self) -> bool:
        """Follow one subscription until it ends or is silent.

        Returns whether it announced anything.
        """
        queue: asyncio.Queue[int | PocketError | None] = asyncio.Queue(_ANNOUNCEMENTS)
        listener = asyncio.create_task(self._listen(queue))
        announced = False
        try:
            await self.refresh()
            while True:
                try:
                    patience = _DOUBT_PATIENCE if self._guard.doubts else _PATIENCE
                    async with asyncio.timeout(patience * self.block_seconds):
                        news = await queue.get()
                except TimeoutError:
                    if await self._overdue():
                        raise ChainUnavailable("the subscription no longer announces blocks") from None
                    continue
                if not isinstance(news, int):
                    if news is not None:
                        raise news
                    return announced
                announced = True
                if news > self.height:
                    await self.refresh()
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _overdue(self) -> bool:
        """Poll for a block that was not announced.

        Several nodes may answer in turn behind one address, hence several attempts.
        """
        before = self.height
        for _ in range(_LOOKS):
            await self.refresh()
            if self.height > before:
                return True
            await self._sleep(self.block_seconds * self._rng.uniform(0.02, 0.1))
        return False

    async def _listen(self, queue: "asyncio.Queue[int | PocketError | None]") -> None:
        """Put announced heights into the queue, then what ended the subscription.

        That is an error. The newest heights replace the oldest in a full queue.
        """
        ended: PocketError | None = None
        try:
            async with contextlib.aclosing(self._source.heights()) as heights:  # type: ignore[type-var]  # a generator
                async for height in heights:
                    _put(queue, height)
        except PocketError as error:
            ended = error
        _put(queue, ended)


def _put(queue: "asyncio.Queue[int | PocketError | None]", row: int | PocketError | None) -> None:
    if queue.full():
        queue.get_nowait()  # heights only say that something happened
    queue.put_nowait(row)
