"""Choose timeout timestamps of unordered transactions.

They are based on block time and unique per supplier.
"""

from dataclasses import dataclass, field

from pocket.protocol.transactions.build import Timestamp

MINIMUM_SECONDS = 120
MAXIMUM_SECONDS = 590  # the chain rejects more than ten minutes after the block time
CLOCK_SKEW_SECONDS = 60


def timeout_duration_seconds(remaining_blocks: int | None, block_seconds: float) -> float:
    """Return the timeout in seconds after the last block time.

    It is the rest of the window less a buffer for clock skew, at least 2 minutes and at most 9:50 minutes.
    """
    if remaining_blocks is None:
        return MINIMUM_SECONDS
    wanted = remaining_blocks * block_seconds - CLOCK_SKEW_SECONDS
    return min(max(wanted, MINIMUM_SECONDS), MAXIMUM_SECONDS)


@dataclass(slots=True)
class UnorderedNonceAllocator:
    """Allocates timestamps that are unique per supplier.

    The pair (signer, timestamp) is the nonce of an unordered transaction.

    `offset` separates processes that may sign for one supplier (an old and a new owner): it fills the
    nanosecond digits below one microsecond, so that two offsets never collide.
    """

    offset: int = 0
    _last: dict[str, int] = field(default_factory=dict)

    def next_timeout(self, supplier: str, block_time: Timestamp, duration_seconds: float) -> Timestamp:
        """Return a timestamp about `duration_seconds` after the block time.

        This allocator gives each timestamp to a supplier only once. A timestamp that the chain would reject as too far
        ahead, after a block with a wrong time, is not continued from.
        """
        wanted = block_time.nanoseconds + int(duration_seconds * 1_000_000_000)
        value = wanted // 1000 * 1000 + self.offset % 1000
        last = self._last.get(supplier)
        if last is not None and value <= last < value + MAXIMUM_SECONDS * 1_000_000_000:
            value = last + 1000
        self._last[supplier] = value
        return Timestamp.of_nanoseconds(value)
