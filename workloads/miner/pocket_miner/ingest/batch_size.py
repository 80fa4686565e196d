"""How many entries one round of tailing reads, so that its relays take bounded memory whatever their size."""

from dataclasses import dataclass

_ROUND_BYTES = 8 * 1024 * 1024
_MOST_ENTRIES = 500
_SMALLEST_ENTRY = 256


@dataclass(slots=True)
class AdaptiveBatchSize:
    """Guesses the size of an entry from what came; the guess rises at once and falls by half a round."""

    entry_bytes: float = 16 * 1024

    def next(self, streams: int) -> int:
        """Entries to ask of each stream."""
        return max(1, min(_MOST_ENTRIES, int(_ROUND_BYTES / (max(1, streams) * self.entry_bytes))))

    def observe(self, entries: int, size: int) -> None:
        """What a round brought: entries and their bytes."""
        if entries:
            self.entry_bytes = max(size / entries, self.entry_bytes / 2, _SMALLEST_ENTRY)
