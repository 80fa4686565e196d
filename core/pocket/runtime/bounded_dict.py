"""A dictionary of limited size that forgets its oldest entries."""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """A dictionary that holds at most `limit` entries.

    cachetools' FIFOCache does the same at five times the cost of a lookup, and a relay makes several. Entries
    are set by item assignment only.
    """

    __slots__ = ("_limit",)

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        """Set an entry, which becomes the newest one."""
        self.pop(key, None)
        super().__setitem__(key, value)
        if len(self) > self._limit:
            del self[next(iter(self))]
