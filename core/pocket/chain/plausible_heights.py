"""Decide whether a reported block can be the chain's. Pure, with the time passed in.

Blocks take time. A height that the elapsed time does not allow comes from another network, or from a damaged node. It
is not believed until it repeats. A height that was believed without a reference is dropped when others contradict it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pocket.chain.model import Block

_FASTEST: Final = 0.2  # of the observed time between blocks
_SLACK_BLOCKS: Final = 3
_REPEATS: Final = 3  # observations in a row after which an implausible height is believed
_CONTRADICTIONS: Final = 2  # observations in a row that contradict a height believed without a reference
_SLOWEST_SECONDS: Final = 600.0
_SHARE: Final = 0.2  # of a new observation in the mean


class Belief(StrEnum):
    """Decision about a reported block."""

    NEWER = "newer"  # it continues the chain
    KNOWN = "known"  # not above the known height
    IMPLAUSIBLE = "implausible"  # it cannot be that far by now
    REPLACED = "replaced"  # the height known so far is wrong, this one is right


@dataclass(slots=True)
class HeightGuard:
    """Tracks the latest block. `block_seconds` is the measured time between blocks."""

    block_seconds: float
    block: Block | None = None
    _seen_at: float = 0.0
    _confirmed: bool = False  # a later block followed it at the chain's pace
    _doubted: Block | None = None
    _doubts: int = 0
    _contradictions: int = 0

    @property
    def height(self) -> int:
        """Return the believed height, 0 before the first block."""
        return self.block.height if self.block else 0

    def observe(self, block: Block, now: float) -> Belief:
        """Judge a node's latest block at a moment, seconds of any clock that only grows."""
        known = self.block
        if known is None:
            return self._believe(block, now, confirmed=False)
        if block.height <= known.height:
            return self._not_above(block, now)
        if self._possible(known, block, now):
            self._measure(known, block)
            return self._believe(block, now, confirmed=True)
        same = self._doubted is not None and block.height >= self._doubted.height
        self._doubts = self._doubts + 1 if same else 1
        self._doubted = block
        if self._doubts < _REPEATS:
            return Belief.IMPLAUSIBLE
        return self._believe(block, now, confirmed=False)

    def _possible(self, known: Block, block: Block, now: float) -> bool:
        """Return whether the elapsed time allows that many blocks.

        Time is measured here or between the blocks' own clocks, whichever is longer.
        """
        between = (block.time.nanoseconds - known.time.nanoseconds) / 1e9
        seconds = max(now - self._seen_at, between)
        return block.height - known.height <= _SLACK_BLOCKS + seconds / (_FASTEST * self.block_seconds)

    def _not_above(self, block: Block, now: float) -> Belief:
        self._doubted, self._doubts = None, 0
        known = self.height
        if self._confirmed or known - block.height <= _SLACK_BLOCKS + (now - self._seen_at) / self.block_seconds:
            self._contradictions = 0
            return Belief.KNOWN
        self._contradictions += 1
        if self._contradictions < _CONTRADICTIONS:
            return Belief.KNOWN
        self._believe(block, now, confirmed=False)
        return Belief.REPLACED

    def _believe(self, block: Block, now: float, *, confirmed: bool) -> Belief:
        self.block, self._seen_at, self._confirmed = block, now, confirmed
        self._doubted, self._doubts, self._contradictions = None, 0, 0
        return Belief.NEWER

    def _measure(self, known: Block, block: Block) -> None:
        """Take the time between two blocks, by the blocks' own clocks, into the mean."""
        blocks = block.height - known.height
        seconds = (block.time.nanoseconds - known.time.nanoseconds) / 1e9 / blocks
        if 0 < seconds < _SLOWEST_SECONDS:
            self.block_seconds += (seconds - self.block_seconds) * _SHARE
