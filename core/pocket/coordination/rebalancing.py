"""Which shards a member should hold: pure (docs/fragile/ownership.md).

Every member computes the same targets from the same view; views that differ for a moment only delay a move, since a
shard is taken by compare and set and given up by its holder alone.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


def _weight(first: object, second: object) -> bytes:
    return hashlib.sha256(f"{first}\0{second}".encode()).digest()


def ranked(shard: int, members: Collection[str]) -> list[str]:
    """Members in the order in which they should own a shard: the second is the natural standby of the first."""
    return sorted(members, key=lambda member: _weight(shard, member), reverse=True)


def standby_of(shard: int, holder: str, members: Collection[str]) -> str | None:
    """Who tails a shard beside its holder; None without another member."""
    return next((member for member in ranked(shard, members) if member != holder), None)


@dataclass(frozen=True, slots=True)
class RebalancePlan:
    """What one member should do now: shards to try to take, in order of preference, and shards to give up."""

    take: tuple[int, ...] = ()
    release: tuple[int, ...] = ()


def targets(members: Collection[str], held: Mapping[str, int], shards: int) -> dict[str, int]:
    """How many shards each member should hold: equal but for one, the surplus with those who hold most already."""
    least, surplus = divmod(shards, len(members))
    order = sorted(members, key=lambda member: (-held.get(member, 0), member))
    return {member: least + (number < surplus) for number, member in enumerate(order)}


def moves(me: str, members: Collection[str], holders: Sequence[str], mine: Sequence[int]) -> RebalancePlan:
    """`holders` names each shard's holder, empty where it can be taken; `mine` is what I hold, oldest first.

    A shard moves only when its holder is gone or holds more than its target, so scaling moves the least that equal
    shares allow. What was taken last is given up first: it has the least to lose.
    """
    if me not in members:
        return RebalancePlan()
    held = {member: sum(holder == member for holder in holders) for member in members}
    target = targets(members, held, len(holders))[me]
    if len(mine) > target:
        return RebalancePlan(release=tuple(reversed(mine[target:])))
    free = [shard for shard, holder in enumerate(holders) if not holder]
    # Whoever would own a shard by rank takes it first: members that act at once seldom want the same.
    free.sort(key=lambda shard: (ranked(shard, members).index(me), shard))
    return RebalancePlan(take=tuple(free[: target - len(mine)]))
