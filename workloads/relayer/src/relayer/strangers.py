"""What sessions that do not exist may cost the chain's nodes: bounded by address, asked once a block."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from relayer.rejection import Reason, Rejected

K = TypeVar("K")
_ADDRESSES: Final = 4096
_REFUSALS: Final = 8192


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Budget:
    """Questions in vain that an address may cause: `burst` at once, `per_second` in the long run.

    Only what turned out to be invented counts, so many gateways behind one address ask as much as they need.
    """

    def __init__(self, clock: Callable[[], float], *, burst: float = 64.0, per_second: float = 2.0) -> None:
        self._clock = clock
        self._burst = burst
        self._per_second = per_second
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises Rejected for an address that asked in vain too often; unknown addresses are never held back."""
        if address in self._buckets and self._filled(address).tokens < 1:
            raise Rejected(Reason.OVERLOADED, "too many sessions that do not exist were asked for from this address")

    def strike(self, address: str) -> None:
        """A question in vain."""
        if address:
            bucket = self._filled(address)
            bucket.tokens = max(0.0, bucket.tokens - 1)

    def _filled(self, address: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(address, _Bucket(self._burst, now))
        self._buckets.move_to_end(address)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
        while len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        return bucket


class Refusals(Generic[K]):
    """What the chain denied, for the block at which it was asked: the next block may know more."""

    def __init__(self, height: Callable[[], int]) -> None:
        self._height = height
        self._known: OrderedDict[K, tuple[int, Rejected]] = OrderedDict()

    def check(self, key: K) -> None:
        """Raises Rejected as it was refused at this height."""
        found = self._known.get(key)
        if found is not None and found[0] == self._height():
            raise Rejected(found[1].reason, found[1].message)

    def remember(self, key: K, rejected: Rejected) -> Rejected:
        """Keeps a refusal; returns it."""
        self._known[key] = (self._height(), rejected)
        self._known.move_to_end(key)
        while len(self._known) > _REFUSALS:
            self._known.popitem(last=False)
        return rejected
