"""Assignment of shards to members, pure (docs/fragile/ownership.md).

Every member computes the same shares from the same view. Views that differ for a moment only delay a move: a shard is
taken by compare-and-set and released by its holder alone.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pocket.coordination.rendezvous import weight


def rendezvous_order(shard: int, members: Collection[str]) -> list[str]:
    """Return members in the order in which they should own a shard.

    The second is the first's standby.
    """
    return sorted(members, key=lambda member: weight(shard, member), reverse=True)


def standby_of(shard: int, holder: str, members: Collection[str]) -> str | None:
    """Return the standby of a shard's holder, None without another member."""
    return next((member for member in rendezvous_order(shard, members) if member != holder), None)


@dataclass(frozen=True, slots=True)
class RebalancePlan:
    """The shards that a member takes, in order of preference, and releases."""

    take: tuple[int, ...] = ()
    release: tuple[int, ...] = ()


def fair_shares(members: Collection[str], held: Mapping[str, int], shards: int) -> dict[str, int]:
    """Return how many shards each member should hold.

    Shares differ by at most one. The surplus stays with the members that hold most already.
    """
    least, surplus = divmod(shards, len(members))
    order = sorted(members, key=lambda member: (-held.get(member, 0), member))
    return {member: least + (number < surplus) for number, member in enumerate(order)}


def plan_rebalance(
    me: str,
    members: Collection[str],
    holders: Sequence[str],
    mine: Sequence[int],
    *,
    former: Sequence[int] = (),
    renewing: Collection[str] | None = None,
) -> RebalancePlan:
    """Decide which shards to take and to release.

    `holders` names each shard's holder, '' where it can be taken. `mine` are the shards that I hold, oldest first. A
    shard moves only when its holder is gone or holds more than its share, so scaling moves as few as equal shares
    allow. The shard taken last is released first: it has the least to lose.

    `former` are the shards that I held before a restart. Until their Leases expire no other member can take them, so
    they are taken first, however many they are. `renewing` are the members that were seen to renew their Leases, all of
    them by default: nothing is released to one that may have ended.
    """
    if me not in members:
        return RebalancePlan()
    held = {member: sum(holder == member for holder in holders) for member in members}
    others = members if renewing is None else {me, *renewing}
    kept = fair_shares(others, held, len(holders))[me]
    if len(mine) > kept and not former:
        return RebalancePlan(release=tuple(reversed(mine[kept:])))
    free = [shard for shard, holder in enumerate(holders) if not holder and shard not in former]
    # The best-ranked member takes a shard first, so members that act at the same time seldom compete.
    free.sort(key=lambda shard: (rendezvous_order(shard, members).index(me), shard))
    more = fair_shares(members, held, len(holders))[me] - len(mine) - len(former)
    return RebalancePlan(take=(*former, *free[: max(0, more)]))
