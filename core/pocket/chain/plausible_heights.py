"""Decide whether a reported block can be the chain's.

Pure, with the time passed in. Blocks take time. A height that the elapsed time does not allow comes from another
network, or from a damaged node. It is not believed until its chain grows for as long as several blocks take. A height
that was believed without a reference is dropped when others contradict it. Any height is dropped for a lower chain that
grows and whose blocks are younger: a node that lags has older ones.
"""

import statistics
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pocket.chain.model import Block

_FASTEST: Final = 0.2  # of the observed time between blocks
_SLACK_BLOCKS: Final = 3
_GROWTH: Final = 3  # blocks in a row, at the chain's pace, after which another chain than the known one is believed
_CONTRADICTIONS: Final = 2  # observations in a row that contradict a height believed without a reference
_SLOWEST_SECONDS: Final = 600.0
_PACES: Final = 7  # latest observations, of which the median is the measured time between blocks
_EXPECTED_PACES: Final = 2  # as many observations as the expected time counts for at first


class Belief(StrEnum):
    """Decision about a reported block."""

    NEWER = "newer"  # it continues the chain
    KNOWN = "known"  # not above the known height
    IMPLAUSIBLE = "implausible"  # it cannot be that far by now
    REPLACED = "replaced"  # the height known so far is wrong, this one is right


@dataclass(slots=True)
class _Rival:
    """Blocks that contradict the known one, if they are of one chain that grows."""

    block_seconds: float
    last: Block | None = None
    _seen_at: float = 0.0
    _grown: int = 0

    def observe(self, block: Block, now: float) -> bool:
        """Return whether the chain of this block grew for as long as several blocks take.

        A height that repeats is not evidence, and neither is one that jumps or comes before its time.
        """
        last = self.last
        if last is not None and block.height == last.height:
            return False
        elapsed = now - self._seen_at
        allowed = _SLACK_BLOCKS + elapsed / (_FASTEST * self.block_seconds)
        if last is None or not 0 < block.height - last.height <= allowed:
            self._grown = 0
        elif elapsed >= _FASTEST * self.block_seconds:
            self._grown += 1
        else:
            return False  # too early to count
        self.last, self._seen_at = block, now
        return self._grown >= _GROWTH


@dataclass(slots=True)
class HeightGuard:
    """Tracks the latest block.

    `block_seconds` is the measured time between blocks, at first the expected one. It is a median: a chain that halted
    for an hour makes its blocks as fast as before, and a mean would take that hour into account for many blocks.
    """

    block_seconds: float
    block: Block | None = None
    _paces: deque[float] = field(init=False)
    _seen_at: float = 0.0
    _confirmed: bool = False  # a later block followed it at the chain's pace
    _contradictions: int = 0
    _above: _Rival | None = None
    _below: _Rival | None = None

    def __post_init__(self) -> None:
        self._paces = deque([self.block_seconds] * _EXPECTED_PACES, _PACES)

    @property
    def doubts(self) -> bool:
        """Return True if a height was reported that is not believed yet."""
        return self._above is not None

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
        self._above = self._above or _Rival(self.block_seconds)
        if not self._above.observe(block, now):
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
        known = self.height
        if known - block.height <= _SLACK_BLOCKS + (now - self._seen_at) / self.block_seconds:
            self._contradictions, self._above, self._below = 0, None, None
            return Belief.KNOWN
        self._contradictions += 1
        self._below = self._below or _Rival(self.block_seconds)
        grows = self._below.observe(block, now) and self._is_younger(block)
        if not grows and (self._confirmed or self._contradictions < _CONTRADICTIONS):
            return Belief.KNOWN
        self._believe(block, now, confirmed=False)
        return Belief.REPLACED

    def _is_younger(self, block: Block) -> bool:
        return self.block is None or block.time.nanoseconds > self.block.time.nanoseconds

    def _believe(self, block: Block, now: float, *, confirmed: bool) -> Belief:
        self.block, self._seen_at, self._confirmed = block, now, confirmed
        self._contradictions, self._above, self._below = 0, None, None
        return Belief.NEWER

    def _measure(self, known: Block, block: Block) -> None:
        """Take the time between two blocks, by the blocks' own clocks, into the median."""
        blocks = block.height - known.height
        seconds = (block.time.nanoseconds - known.time.nanoseconds) / 1e9 / blocks
        if 0 < seconds < _SLOWEST_SECONDS:
            self._paces.append(seconds)
            self.block_seconds = statistics.median(self._paces)
