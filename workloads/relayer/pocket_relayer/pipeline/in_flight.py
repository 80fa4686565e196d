"""Count relays in flight, which may be recorded after their key is removed."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class InFlight:
    """Counts the relays in flight of one worker by supplier."""

    def __init__(self) -> None:
        self._numbers: Counter[str] = Counter()

    @contextmanager
    def relay_of(self, supplier: str) -> Iterator[None]:
        """Count a relay while it is served, streamed or open for further responses."""
        self._numbers[supplier] += 1
        try:
            yield
        finally:
            self._numbers[supplier] -= 1
            if not self._numbers[supplier]:
                del self._numbers[supplier]

    @property
    def suppliers(self) -> set[str]:
        """Return the suppliers with relays in flight."""
        return set(self._numbers)
