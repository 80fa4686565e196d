"""Limit chain queries for sessions that do not exist."""

from collections.abc import Callable, Collection
from typing import Final, Generic, TypeVar

from cachetools import LRUCache

from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.limits.token_bucket import TokenBucket

K = TypeVar("K")
_ADDRESSES: Final = 4096
_REFUSALS: Final = 8192


class ColdQueryBudget:
    """Limits the fruitless queries of each address.

    It allows `burst` at once and `per_second` in the long run. `too_many` is the text of the rejection.

    Only fruitless queries count, so many gateways behind one address can query as much as they need.
    """

    def __init__(self, clock: Callable[[], float], too_many: str, *, burst: float, per_second: float) -> None:
        self._clock = clock
        self._too_many = too_many
        self._burst = burst
        self._per_second = per_second
        self._buckets: LRUCache[str, TokenBucket] = LRUCache(_ADDRESSES)

    def check(self, address: str) -> None:
        """Raise Rejected for an address with too many fruitless queries.

        An unknown address is never limited.
        """
        if address in self._buckets and self._bucket(address).available(self._clock()) < 1:
            raise Rejected(RejectionReason.OVERLOADED, self._too_many)

    def strike(self, address: str) -> None:
        """Count a fruitless query."""
        if address:
            self._bucket(address).try_take(1, self._clock())

    def _bucket(self, address: str) -> TokenBucket:
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = TokenBucket(self._per_second, self._burst)
        return bucket


class NegativeCache(Generic[K]):
    """Caches what the chain denied until the next block, which may change it."""

    def __init__(self, height: Callable[[], int]) -> None:
        self._height = height
        self._known: LRUCache[K, tuple[int, Rejected]] = LRUCache(_REFUSALS)

    def check(self, key: K) -> None:
        """Raise the cached rejection if it is of the current height."""
        entry = self._known.get(key)
        if entry is not None and entry[0] == self._height():
            raise Rejected(entry[1].reason, entry[1].message)

    def is_confirmed(self, key: K, nodes: Collection[str]) -> bool:
        """Return True if a denial of these nodes is not a single answer.

        Two nodes gave it, or one at two blocks.
        """
        known = self._known.get(key)
        return len(nodes) > 1 or (known is not None and known[0] != self._height())

    def remember(self, key: K, rejected: Rejected) -> Rejected:
        """Cache a rejection and return it."""
        self._known[key] = (self._height(), rejected)
        return rejected
