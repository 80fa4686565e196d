"""Remember results that are valid for one moment.

It lasts while nothing that they were computed from can have changed.
"""

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_MOST: Final = 4096


class MomentMemo(Generic[K, V]):
    """Remembers results until the next moment.

    `moment` returns what the results depend on, such as the block height. Without it nothing is remembered.
    """

    def __init__(self, moment: Callable[[], Hashable] | None, capacity: int = _MOST) -> None:
        self._moment = moment
        self._capacity = capacity
        self._now: Hashable = None
        self._values: dict[K, V] = {}

    def now(self) -> Hashable:
        """Return the current moment, to be passed to `put` once the result is known."""
        now = None if self._moment is None else self._moment()
        if now != self._now:
            self._now = now
            self._values.clear()
        return now

    def get(self, key: K) -> V | None:
        """Return the result of the moment that `now` returned last, or None."""
        return self._values.get(key)

    def put(self, now: Hashable, key: K, value: V) -> None:
        """Remember a result, unless its moment has passed."""
        if now is not None and now == self._now and len(self._values) < self._capacity:
            self._values[key] = value
