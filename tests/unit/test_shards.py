"""Sharing shards: equal shares, the least movement, the same answer everywhere."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.coordination.rebalancing import fair_shares, plan_rebalance, rendezvous_order, standby_of
from pocket.coordination.rendezvous import shard_of

MEMBERS = [f"main-miner-{number}" for number in range(9)]


def settle(holders, members, *, rounds=20):
    """Run the members in turn until nothing moves, and return the number of moves between them."""
    order = {member: [s for s, holder in enumerate(holders) if holder == member] for member in members}
    holders = [holder if holder in members else "" for holder in holders]
    moved = holders.count("")
    for _ in range(rounds):
        before = list(holders)
        for member in members:
            found = plan_rebalance(member, members, holders, order[member])
            for shard in found.release:
                holders[shard] = ""
                order[member].remove(shard)
            moved += len(found.release)
            for shard in found.take:
                assert holders[shard] == ""
                holders[shard] = member
                order[member].append(shard)
        if holders == before:
            return holders, moved
    raise AssertionError("it does not settle")


@given(st.integers(1, 64), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_whatever_the_number_of_members_shares_become_equal_and_every_shard_has_one_holder(shards, sizes):
    holders = [""] * shards
    for size in sizes:
        holders, _ = settle(holders, MEMBERS[:size])
        counts = Counter(holders)
        assert "" not in counts
        assert max(counts.values()) - (min(counts.values()) if len(counts) == size else 0) <= 1


@pytest.mark.parametrize(
    ("before", "after", "fewest"),
    # 16 shards: what must move is what the new ones get, or what the gone ones held.
    [(1, 5, 12), (5, 2, 9), (2, 3, 5), (3, 2, 5), (4, 4, 0), (1, 2, 8)],
)
def test_scaling_moves_the_fewest_shards_that_equal_shares_allow(before, after, fewest):
    holders, _ = settle([""] * 16, MEMBERS[:before])
    _, moved = settle(holders, MEMBERS[:after])
    assert moved == fewest


def test_what_was_taken_last_is_given_up_first():
    found = plan_rebalance("a", {"a", "b"}, ["a"] * 4, [2, 0, 3, 1])
    assert found.release == (1, 3)


@given(st.sets(st.integers(0, 15)), st.sets(st.integers(0, 15)), st.sets(st.sampled_from(MEMBERS[1:])))
def test_what_a_member_held_before_a_restart_is_taken_first_and_released_only_to_those_that_renew(mine, former, others):
    me, mine, former = MEMBERS[0], sorted(mine - former), sorted(former)
    holders = [me if shard in mine else "" for shard in range(16)]
    found = plan_rebalance(me, {me, *others}, holders, mine, former=former, renewing=set())
    assert found.release == ()
    if former:
        assert found.take[: len(former)] == tuple(former)
    assert len(mine) + len(found.take) == max(
        len(mine) + len(former), fair_shares({me, *others}, {me: len(mine)}, 16)[me]
    )
    waiting = plan_rebalance(me, {me, *others}, holders, mine, former=former, renewing=others)
    assert not (former and waiting.release), "what is taken back is counted before anything is given away"
    renewed = plan_rebalance(me, {me, *others}, holders, mine, renewing=others)
    assert renewed == plan_rebalance(me, {me, *others}, holders, mine)


def test_who_is_not_known_to_live_takes_nothing():
    assert plan_rebalance("a", {"b"}, ["", ""], []).take == ()


def test_members_that_start_together_want_different_shards_first():
    first = [plan_rebalance(member, MEMBERS[:4], [""] * 16, []).take[0] for member in MEMBERS[:4]]
    assert len(set(first)) == 4


@given(st.lists(st.sampled_from(MEMBERS), min_size=2, unique=True), st.integers(0, 63))
def test_the_standby_is_another_member_and_the_next_in_rank(members, shard):
    first = rendezvous_order(shard, members)[0]
    assert standby_of(shard, first, members) == rendezvous_order(shard, members)[1]
    assert standby_of(shard, "gone", members) == first
    assert standby_of(shard, members[0], members[:1]) is None


def test_targets_leave_the_surplus_with_those_who_hold_most():
    assert fair_shares(["a", "b", "c"], {"c": 9, "b": 1}, 10) == {"c": 4, "b": 3, "a": 3}


def test_the_shard_of_an_address_never_changes():
    """A change of these values would move every supplier of every installation."""
    addresses = ["pokt1" + "q" * 38, "pokt1" + "p" * 38, "pokt1" + "z" * 38]
    assert [shard_of(a, 16) for a in addresses] == PINNED
    spread = Counter(shard_of(f"pokt1{number:038d}", 16) for number in range(3200))
    assert len(spread) == 16
    assert max(spread.values()) < 2 * min(spread.values())


PINNED = [11, 5, 7]
