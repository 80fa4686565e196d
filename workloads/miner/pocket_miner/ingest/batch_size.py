"""Choose how many entries one read takes, so that its relays take bounded memory."""

from dataclasses import dataclass

_ROUND_BYTES = 8 * 1024 * 1024
_MOST_ENTRIES = 500
_SMALLEST_ENTRY = 256
_FIRST_ESTIMATE = 16 * 1024


@dataclass(slots=True)
class AdaptiveBatchSize:
    """Estimates the entry size from recent reads.

    It grows immediately and decays by half per read.
    """

    entry_bytes: float = _FIRST_ESTIMATE

    def next(self, streams: int) -> int:
        """Return the number of entries to read from each stream."""
        return max(1, min(_MOST_ENTRIES, int(_ROUND_BYTES / (max(1, streams) * self.entry_bytes))))

    def observe(self, entries: int, size: int) -> None:
        """Record the number of entries of a read and their size in bytes."""
        if entries:
            self.entry_bytes = max(size / entries, self.entry_bytes / 2, _SMALLEST_ENTRY)
