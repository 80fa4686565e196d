"""Free what a failed request read at once, without a garbage collection.

An exception keeps the frames that it passed, and they keep what they read. If the exception itself is kept, by the
stream that it broke or by the exception that follows it, that is a cycle of many megabytes.
"""

import traceback
from collections.abc import Iterator


def clear_frames_of(error: BaseException | None) -> None:
    """Clear the local variables of the ended frames of an exception and of its causes."""
    for one in _chain(error):
        traceback.clear_frames(one.__traceback__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
