"""Sleep until multiples of a period, so that loops of one process wake together.

To wake a sleeping process costs more than what most of its periodic loops do then.
"""

import asyncio
import contextvars
import math
from typing import Final
from weakref import WeakKeyDictionary

_TOO_NEAR: Final = 0.1
"""Share of a period. A nearer tick is skipped, as it may be the one of a timer that fired a little early."""

_Sleepers = dict[float, list["asyncio.Future[None]"]]
_SLEEPERS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Sleepers]] = WeakKeyDictionary()
"""Those that sleep, by loop and moment."""


def next_tick(time: float, seconds: float) -> float:
    """Return the next multiple of `seconds` after a time, 0.1 to 1.1 of them away."""
    return (math.floor(time / seconds + _TOO_NEAR) + 1) * seconds


async def sleep_to_tick(seconds: float, after: float | None = None) -> None:
    """Sleep until the next multiple of `seconds`.

    It is the next after now, or after a later time (loop's clock).
    """
    now = asyncio.get_running_loop().time()
    await _sleep_until(next_tick(now if after is None else after, seconds))


async def sleep_near_tick(seconds: float) -> None:
    """Sleep for a time, to a hundredth of a second.

    Those that sleep until the same moment share a timer.
    """
    await _sleep_until(round(asyncio.get_running_loop().time() + seconds, 2))


async def _sleep_until(moment: float) -> None:
    """Sleep until a moment of the loop's clock.

    All that do share one timer: those of uvloop for one moment fire some milliseconds apart.
    """
    loop = asyncio.get_running_loop()
    sleepers = _SLEEPERS.setdefault(loop, {})
    if moment not in sleepers:
        sleepers[moment] = []
        # In a context of its own: it is the timer of all of them, not of the one that came first.
        loop.call_at(moment, _wake, sleepers, moment, context=contextvars.Context())
    sleeper = loop.create_future()
    sleepers[moment].append(sleeper)
    await sleeper


def _wake(sleepers: _Sleepers, moment: float) -> None:
    for sleeper in sleepers.pop(moment):
        if not sleeper.done():  # otherwise its task was cancelled
            sleeper.set_result(None)
