"""Find the sealed leaves of a session on a volume that also holds later ones.

A Redis that lost its data no longer knows that a session is closed, and a relayer that was frozen may record relays in
it. A standby that does not know the seal stores them. If it takes over before the proof, it has to set them aside: the
proof must be built from the leaves of the claim.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from pocket.protocol.smst.bulk import LeafSet
from pocket.protocol.smst.digest import Root

_MAX_ATTEMPTS: Final = 200
_MAX_HASHED_LEAVES: Final = 4_000_000  # in all attempts together, a few seconds


def sealed_leaves(
    rows: Sequence[tuple[bytes, bytes]], arrivals: Callable[[], Sequence[bytes]], root: bytes
) -> list[tuple[bytes, bytes]] | None:
    """Return those of the (path, digest) rows that have the sealed root.

    The rows are sorted by path.

    `arrivals` returns the paths in the order in which they were stored. Leaves that arrived last are left out first.
    Returns None if the rows are no more than those of the root, or if no selection has it.
    """
    surplus = len(rows) - Root(root).count
    if surplus <= 0:
        return None
    for left_out in _selections(arrivals(), surplus):
        selected = [row for row in rows if row[0] not in left_out]
        if LeafSet(selected).root() == root:
            return selected
    return None


def _selections(arrivals: Sequence[bytes], surplus: int) -> Iterator[frozenset[bytes]]:
    attempts = max(1, min(_MAX_ATTEMPTS, _MAX_HASHED_LEAVES // len(arrivals)))
    latest_first = itertools.combinations(reversed(arrivals), surplus)
    return map(frozenset, itertools.islice(latest_first, attempts))
