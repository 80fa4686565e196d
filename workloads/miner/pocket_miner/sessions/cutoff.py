"""Up to which session end no new session is registered: its relays could not be claimed any more.

An owner closes the sessions that it knows. One whose very first relay comes late it does not know: what closes it is
the horizon, which the script that appends relays looks at (docs/fragile/recording.md).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pocket.protocol.sessions.windows import SharedParams, Windows
from pocket_miner.sessions.stages import seal_height

_BLOCKS_TO_CLAIM = 2  # what is found at the next block is sealed then, and in the block after that at the earliest


@dataclass(frozen=True, slots=True)
class SessionCutoff:
    """At `height`: sessions up to `session_end` take no first relay any more. It changes at `changes_at`."""

    session_end: int = 0
    changes_at: int = 0
    height: int = 0


def cutoff_height(windows: Windows, seal_after_blocks: int) -> int:
    """Height from which a session without relays takes none: when others are sealed, or while one can still be."""
    due = min(seal_height(windows, seal_after_blocks), windows.claim_close - _BLOCKS_TO_CLAIM)
    return max(windows.session_end, due)


async def cutoff_at(
    height: int, seal_after_blocks: int, shared_params: Callable[[int], Awaitable[SharedParams]]
) -> SessionCutoff:
    """The horizon at a height; raises what `shared_params` raises."""
    at, changes_at = height, height + 1
    while at > 0:
        params = await shared_params(at)
        windows = params.windows(at)
        due = cutoff_height(windows, seal_after_blocks)
        if due <= height:
            return SessionCutoff(windows.session_end, changes_at, height)
        at, changes_at = params.session_start(at) - 1, due
    return SessionCutoff(0, changes_at, height)
