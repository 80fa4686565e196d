"""Suppliers of whose relays some are on their way: what is admitted may still be recorded after the key is gone."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class InFlight:
    """Of one worker."""

    def __init__(self) -> None:
        self._numbers: Counter[str] = Counter()

    @contextmanager
    def relay_of(self, supplier: str) -> Iterator[None]:
        """While a relay of a supplier is served, streamed, or open for further answers."""
        self._numbers[supplier] += 1
        try:
            yield
        finally:
            self._numbers[supplier] -= 1
            if not self._numbers[supplier]:
                del self._numbers[supplier]

    @property
    def suppliers(self) -> set[str]:
        """Those with relays on their way."""
        return set(self._numbers)
