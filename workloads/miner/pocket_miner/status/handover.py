"""Let the operator read the last outcomes before a miner stops.

So its Suppliers' earnings include them.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

_POLLED_SECONDS: Final = 10.0
"""Time since the last report after which the reports are taken to be unread."""
_REPORT_SECONDS: Final = 5.0
_PAGE_SECONDS: Final = 1.0


class Handover:
    """The outcomes that the reader of /report has.

    They are the last one in a report, and the last one in a page.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reported = 0
        self._reported_at: float | None = None
        self._shown = 0
        self._read = asyncio.Event()

    def reported(self, number: int) -> None:
        """Record that a report with this last outcome was read."""
        self._reported, self._reported_at = number, self._clock()
        self._read.set()

    def shown(self, number: int) -> None:
        """Record that the operator read outcomes up to this number."""
        self._shown = number
        self._read.set()

    async def wait(self, number: int) -> None:
        """Wait until the reader has the outcome of this number.

        It waits if reports are polled, for six seconds at most. A reader that counted it before reads no page: it gets
        a second after the report to ask for one.
        """
        if self._reported_at is None or self._clock() - self._reported_at > _POLLED_SECONDS:
            return
        await self._until(lambda: self._reported >= number, _REPORT_SECONDS)
        if self._reported >= number and (left := self._reported_at + _PAGE_SECONDS - self._clock()) > 0:
            await self._until(lambda: self._shown >= number, left)

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not done():
                    self._read.clear()
                    await self._read.wait()
