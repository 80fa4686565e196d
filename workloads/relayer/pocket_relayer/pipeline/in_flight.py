"""Count relays in flight, which may be recorded after their key is removed."""

from collections import Counter


class _RelayInFlight:
    """Counts one relay of a supplier while it is entered."""

    __slots__ = ("_numbers", "_supplier")

    def __init__(self, numbers: Counter[str], supplier: str) -> None:
        self._numbers = numbers
        self._supplier = supplier

    def __enter__(self) -> None:
        self._numbers[self._supplier] += 1

    def __exit__(self, *_: object) -> None:
        numbers, supplier = self._numbers, self._supplier
        numbers[supplier] -= 1
        if not numbers[supplier]:
            del numbers[supplier]


class InFlight:
    """Counts the relays in flight of one worker by supplier."""

    def __init__(self) -> None:
        self._numbers: Counter[str] = Counter()

    def relay_of(self, supplier: str) -> _RelayInFlight:
        """Return the context of a relay while it is served or streamed.

        Or while it is open for further responses.
        """
        return _RelayInFlight(self._numbers, supplier)

    def any(self) -> bool:
        """Return True while a relay is in flight."""
        return bool(self._numbers)

    @property
    def suppliers(self) -> set[str]:
        """Return the suppliers with relays in flight."""
        return set(self._numbers)
