"""Sleep until multiples of a period, so that loops of one process wake together.

To wake a sleeping process costs more than what most of its periodic loops do then.
"""

import asyncio
import math
from typing import Final

_TOO_NEAR: Final = 0.1
"""Share of a period. A nearer tick is skipped, as it may be the one of a timer that fired a little early."""


def next_tick(time: float, seconds: float) -> float:
    """Return the next multiple of `seconds` after a time, 0.1 to 1.1 of them away."""
    return (math.floor(time / seconds + _TOO_NEAR) + 1) * seconds


async def sleep_to_tick(seconds: float, after: float | None = None) -> None:
    """Sleep until the next multiple of `seconds`.

    It is the next after now, or after a later time (loop's clock).
    """
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(next_tick(now if after is None else after, seconds) - now)
