"""The relays that a worker mined last, to count those that are mined twice."""

from collections import OrderedDict
from typing import Final

_MAX_RELAYS: Final = 50_000


class RecentlyMined:
    """Remembers the newest relays of a worker by their hash."""

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def is_duplicate(self, digest: bytes) -> bool:
        """Remember a relay. Returns True if this worker mined the same one before.

        The trie holds it once (docs/relaying.md).
        """
        key = digest[:16]
        if key in self._keys:
            return True
        self._keys[key] = None
        if len(self._keys) > _MAX_RELAYS:
            self._keys.popitem(last=False)
        return False
