"""Compute the cut-off: the session end up to which no new session is registered.

An owner closes the sessions that it knows. It does not know a session whose very first relay arrives late, and that
relay could not be claimed any more. The script that appends relays checks the cut-off and rejects it
(docs/fragile/recording.md).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pocket.protocol.sessions.windows import SharedParams, Windows

_BLOCKS_TO_CLAIM = 2  # discovered and sealed at the next block, included in the one after it at the earliest


@dataclass(frozen=True, slots=True)
class SessionCutoff:
    """At `height`, sessions up to `session_end` accept no first relay.

    It changes at `changes_at`.
    """

    session_end: int = 0
    changes_at: int = 0
    height: int = 0


def cutoff_height(windows: Windows, seal_after_blocks: int) -> int:
    """Return the height from which a session without relays accepts none.

    It is the height at which sessions are sealed, or earlier if a claim could not be included in time otherwise.
    """
    due = min(windows.seal_height(seal_after_blocks), windows.claim_close - _BLOCKS_TO_CLAIM)
    return max(windows.session_end, due)


async def cutoff_at(
    height: int, seal_after_blocks: int, shared_params: Callable[[int], Awaitable[SharedParams]]
) -> SessionCutoff:
    """Return the cut-off at a height.

    Raises the errors of `shared_params`.
    """
    at, changes_at = height, height + 1
    while at > 0:
        params = await shared_params(at)
        windows = params.windows(at)
        due = cutoff_height(windows, seal_after_blocks)
        if due <= height:
            return SessionCutoff(windows.session_end, changes_at, height)
        at, changes_at = params.session_start(at) - 1, due
    return SessionCutoff(0, changes_at, height)
