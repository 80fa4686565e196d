"""Session boundaries and windows in block heights.

Source: docs/protocol/sessions.md, sections 1 and 2.

A value of `SharedParams` is one params record. Grid and windows of a session must come from the record
effective inside that session, never from the live one.
"""

from dataclasses import dataclass
from typing import Final

_SEAL_MARGIN: Final = 3  # blocks left in the claim window


@dataclass(frozen=True, slots=True)
class SharedParams:
    """The shared module's parameters.

    Offsets are in blocks, unbonding periods in sessions.
    """

    num_blocks_per_session: int = 10
    grace_period_end_offset_blocks: int = 1
    claim_window_open_offset_blocks: int = 1
    claim_window_close_offset_blocks: int = 4
    proof_window_open_offset_blocks: int = 0
    proof_window_close_offset_blocks: int = 4
    supplier_unbonding_period_sessions: int = 1
    application_unbonding_period_sessions: int = 1
    gateway_unbonding_period_sessions: int = 1
    compute_units_to_tokens_multiplier: int = 42_000_000
    compute_unit_cost_granularity: int = 1_000_000
    session_grid_anchor_height: int = 1
    session_number_at_anchor: int = 1

    def _anchor(self, height: int) -> tuple[int, int]:
        if self.session_grid_anchor_height <= 0 or self.session_grid_anchor_height > height:
            return 1, 1
        return self.session_grid_anchor_height, max(self.session_number_at_anchor, 1)

    def session_start(self, height: int) -> int:
        """Return the first block of the session that holds `height`, or 0 below height 1."""
        if height <= 0:
            return 0
        anchor, _ = self._anchor(height)
        return anchor + (height - anchor) // self.num_blocks_per_session * self.num_blocks_per_session

    def session_end(self, height: int) -> int:
        """Last block of the session that holds `height`."""
        return 0 if height <= 0 else self.session_start(height) + self.num_blocks_per_session - 1

    def session_number(self, height: int) -> int:
        """Return the number of the session that holds `height`."""
        if height <= 0:
            return 0
        anchor, number = self._anchor(height)
        return number + (height - anchor) // self.num_blocks_per_session

    @property
    def window_blocks(self) -> int:
        """Return the sum of the four window offsets.

        It is the number of blocks from a session's end to the close of the proof window, less one.
        """
        return (
            self.claim_window_open_offset_blocks
            + self.claim_window_close_offset_blocks
            + self.proof_window_open_offset_blocks
            + self.proof_window_close_offset_blocks
        )

    @property
    def pending_sessions(self) -> int:
        """Return the greatest number of sessions that await settlement at once."""
        return -(-self.window_blocks // self.num_blocks_per_session)

    def windows(self, height: int) -> "Windows":
        """Windows of the session that holds `height`."""
        return Windows.after(self.session_end(height), self)


@dataclass(frozen=True, slots=True)
class Windows:
    """Heights of one session's later life.

    The chain takes both ends of a window as inclusive.
    """

    session_end: int
    grace_end: int
    claim_open: int
    claim_close: int
    proof_open: int
    proof_close: int

    @classmethod
    def after(cls, session_end: int, params: SharedParams) -> "Windows":
        """Return the windows of a session by the params effective at its end."""
        claim_open = session_end + params.claim_window_open_offset_blocks + 1
        claim_close = claim_open + params.claim_window_close_offset_blocks
        proof_open = claim_close + params.proof_window_open_offset_blocks
        return cls(
            session_end,
            session_end + params.grace_period_end_offset_blocks,
            claim_open,
            claim_close,
            proof_open,
            proof_open + params.proof_window_close_offset_blocks,
        )

    @property
    def proof_seed(self) -> int:
        """Height whose block hash seeds proof requirement and proof path."""
        return self.proof_open - 1

    @property
    def settlement(self) -> int:
        """Height in whose end blocker the session settles."""
        return self.proof_close

    @property
    def earliest_claim_commit(self) -> int:
        """Return the first height at which any supplier may claim.

        The chain gives every supplier the same height.
        """
        return self.claim_open

    @property
    def earliest_proof_commit(self) -> int:
        """First height at which any supplier may prove."""
        return self.proof_open

    def seal_height(self, seal_after_blocks: int) -> int:
        """Return the height from which a miner seals the session.

        It is late, but leaves three blocks.
        """
        return max(self.claim_open, min(self.claim_open + seal_after_blocks, self.claim_close - _SEAL_MARGIN))

    def grace_elapsed(self, height: int) -> bool:
        """Return whether relays of the session are rejected at `height`."""
        return height > self.grace_end
