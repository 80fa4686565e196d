"""Several keepers over one store, with clocks of their own, pauses, conflicts, lost replies and outages."""

import asyncio
import contextlib
import itertools
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from example_counts import examples
from lease_members import SHARDS, TIMING, Clock, MemoryStore, group, member, settled
from pocket.coordination.stores.lease_store import LeaseUnavailable


class Sharing(RuleBasedStateMachine):
    """Members that tick, hang, lose their connection or restart, each with its own rate of time."""

    @initialize(offsets=st.lists(st.floats(-60, 60), min_size=3, max_size=3))
    def start(self, offsets):
        self.loop = asyncio.new_event_loop()
        self.world = MemoryStore()
        self.known: dict[int, int] = {}
        rates = (1.0, 1.001, 0.999)
        self.clocks = [Clock(offset, rate) for offset, rate in zip(offsets, rates, strict=True)]
        self.members = [member(self.world, n, clock, self.known) for n, clock in enumerate(self.clocks)]
        self.now = 0.0
        self.frozen = [0.0] * 3
        self.epochs: set[tuple[int, int]] = set()

    def _tick(self, which):
        keeper, owner, _ = self.members[which]
        if self.now < self.frozen[which]:
            return
        with contextlib.suppress(LeaseUnavailable):
            self.loop.run_until_complete(keeper.tick())
        for held in owner.history:
            assert held not in self.epochs, "an epoch was given twice"
            self.epochs.add(held)
        owner.history.clear()

    @rule(seconds=st.floats(0.1, 20))
    def time_passes(self, seconds):
        self.now += seconds
        for clock in self.clocks:
            clock.now = self.now

    @rule(which=st.integers(0, 2))
    def a_member_ticks(self, which):
        self._tick(which)

    @rule(which=st.integers(0, 2), seconds=st.floats(0, 60))
    def a_member_hangs(self, which, seconds):
        self.frozen[which] = self.now + seconds

    @rule(which=st.integers(0, 2), down=st.booleans())
    def the_store_goes_away_for_one(self, which, down):
        self.members[which][2].down = down

    @rule(which=st.integers(0, 2))
    def a_reply_is_lost(self, which):
        self.members[which][2].lose_replies += 1

    @rule(which=st.integers(0, 2), writes=st.integers(1, 4))
    def another_client_writes_first(self, which, writes):
        self.members[which][2].writes_raced += writes

    @rule(which=st.integers(0, 2))
    def a_member_is_killed_and_starts_again(self, which):
        self.members[which] = member(self.world, which, self.clocks[which], self.known)
        self.frozen[which] = 0.0

    @rule(name=st.integers(0, SHARDS - 1))
    def somebody_deletes_a_lease(self, name):
        self.world.leases.pop(f"main-miner-shard-{name}", None)

    @rule(which=st.integers(0, 2))
    def a_member_stops_cleanly(self, which):
        keeper, owner, connection = self.members[which]
        if self.now >= self.frozen[which] and not connection.down:
            connection.lose_replies = connection.writes_raced = 0
            self.loop.run_until_complete(keeper.release_all())
            assert not owner.acts
            held = [s.record.holder for s in self.world.leases.values()]
            assert keeper.identity not in held

    @invariant()
    def of_two_that_act_on_a_shard_only_one_has_the_highest_epoch(self):
        if not hasattr(self, "members"):
            return
        for shard in range(SHARDS):
            acting = [owner.acts[shard] for _, owner, _ in self.members if shard in owner.acts]
            assert len(set(acting)) == len(acting), f"shard {shard} is acted on twice under one epoch"

    def teardown(self):
        if hasattr(self, "loop"):
            self.loop.close()


Sharing.TestCase.settings = settings(max_examples=examples(25), stateful_step_count=60)
TestSharing = Sharing.TestCase


async def test_three_members_share_equally_and_one_leads():
    _, clocks, members = group(3)
    await settled(members, clocks)
    assert sorted(len(owner.acts) for _, owner, _ in members) == [2, 2, 2]
    assert [keeper.leads for keeper, _, _ in members].count(True) == 1
    for keeper, owner, _ in members:
        assert dict(keeper.owned_shards) == owner.acts
        assert [await keeper.verify_lease(shard) for shard in owner.acts] == list(owner.acts.values())


async def test_every_shard_has_a_standby_that_is_not_its_holder():
    _, clocks, members = group(3)
    await settled(members, clocks)
    followed = [shard for keeper, _, _ in members for shard in keeper.standby_for()]
    assert sorted(followed) == list(range(SHARDS))
    for keeper, owner, _ in members:
        assert not keeper.standby_for() & set(owner.acts)


async def test_a_killed_members_shards_are_taken_once_its_leases_have_run_out_and_not_before():
    _, clocks, members = group(2)
    await settled(members, clocks)
    (survivor, owner, _), clock = members[0], clocks[0]
    lost_at = clock.now
    while len(owner.acts) < SHARDS:
        clock.now += 0.5
        await survivor.tick()
        if clock.now - lost_at < TIMING.lease - 2.5:
            assert len(owner.acts) == SHARDS / 2
        assert clock.now - lost_at < 20, "takeover is promised within 20 s"


async def test_a_member_that_stops_cleanly_is_followed_at_once():
    _, clocks, members = group(2)
    await settled(members, clocks)
    await members[1][0].release_all()
    await members[0][0].tick()
    assert len(members[0][1].acts) == SHARDS


async def test_members_stay_known_for_a_while_though_the_store_lost_all_leases():
    world, clocks, members = group(2)
    await settled(members, clocks)
    (first, _, _), (second, _, _) = members
    world.leases.clear()
    for _ in range(2):  # one answer without a Lease shows nothing
        assert second.identity in first.members
        await first.tick()
        world.leases.clear()
    assert first.members <= {first.identity}
    assert first.recent_members >= {second.identity}
    clocks[0].now += 2 * TIMING.lease + 1
    await first.tick()
    assert first.recent_members == first.members == {first.identity}


async def test_a_restarted_pod_takes_its_own_shards_back_at_once():
    world, clocks, members = group(2)
    await settled(members, clocks)
    before = set(members[1][1].acts)
    again = member(world, 1, clocks[1], members[1][1].known)
    for _ in range(2):
        await again[0].tick()
    assert set(again[1].acts) == before


async def test_a_fence_above_our_epoch_makes_the_holder_write_a_higher_one():
    _, clocks, members = group(1)
    await settled(members, clocks)
    keeper, owner, _ = members[0]
    for reported in ([owner.acts[2] + 1], [40, 20], [39]):
        before = owner.acts[2]
        for epoch in reported:
            keeper.report_stale_epoch(2, epoch)
        await keeper.tick()
        assert owner.acts[2] == (max(reported) + 1 if max(reported) > before else before)


async def test_a_member_that_stops_releases_leases_of_which_a_cancelled_renewal_arrived():
    world, clocks, members = group(1)
    await settled(members, clocks)
    keeper = members[0][0]
    for name, stored in list(world.leases.items()):
        world.put(name, stored.record)
    await keeper.release_all()
    assert keeper.identity not in {stored.record.holder for stored in world.leases.values()}


async def test_an_outage_of_the_store_ends_nothing_but_is_not_confirmed():
    _, clocks, members = group(1)
    await settled(members, clocks)
    keeper, owner, connection = members[0]
    connection.down = True
    clocks[0].now += 60
    stop = asyncio.Event()
    task = asyncio.create_task(keeper.run(stop))
    await asyncio.sleep(0)
    assert len(owner.acts) == SHARDS
    with pytest.raises(LeaseUnavailable):
        await keeper.verify_lease(0)
    stop.set()
    await task
    assert not owner.acts


async def test_a_lease_that_was_lost_or_is_anothers_confirms_nothing():
    world, clocks, members = group(2)
    await settled(members, clocks)
    (keeper, owner, _), (other, others, _) = members
    mine, theirs = next(iter(owner.acts)), next(iter(others.acts))
    assert await keeper.verify_lease(mine) == owner.acts[mine]
    assert await keeper.verify_lease(theirs) == 0
    name = f"main-miner-shard-{mine}"
    taken = world.leases[name].record
    world.put(name, replace(taken, holder=other.identity, transitions=taken.transitions + 1))
    clocks[0].now += 0.1
    assert await keeper.verify_lease(mine) == 0
    del world.leases[name]
    clocks[0].now += 0.1
    assert await keeper.verify_lease(mine) == 0
    lost = owner.acts[mine]
    for _ in range(2):
        await keeper.tick()
    assert owner.acts.get(mine) != lost, "it acts on it only under another epoch"


async def test_writes_at_rest_are_bounded():
    """Each Lease is renewed once in a fifth of its duration at most: shards, leader and members."""
    _, clocks, members = group(3)
    await settled(members, clocks)
    before = sum(keeper.writes for keeper, _, _ in members)
    await settled(members, clocks, ticks=60, seconds=1.0)
    writes = sum(keeper.writes for keeper, _, _ in members) - before
    assert writes <= (SHARDS + 1 + 3) * 60 / (TIMING.lease * 0.2)


@pytest.mark.parametrize(("number", "longest"), [(1, 0.3 * TIMING.lease), (2, TIMING.retry)])
async def test_a_member_that_is_alone_waits_longer_unless_the_store_was_away(number, longest):
    _, clocks, members = group(number)
    await settled(members, clocks)
    keeper, _, _ = members[0]
    paused = [keeper._pause_seconds() for _ in range(50)]
    assert 0.7 * longest <= min(paused) <= max(paused) <= longest
    assert max(paused) > 0.9 * longest
    keeper._complained = "the store was away"
    assert keeper._pause_seconds() <= TIMING.retry


async def test_a_shard_is_given_up_before_another_member_can_take_it():
    _, clocks, members = group(2)
    await settled(members[:1], clocks)
    _, owner, connection = members[0]
    held_while_written = []
    write = connection.write

    async def noted(name, record, known):
        if not record.holder:
            held_while_written.append(int(name.rpartition("-")[2]) in owner.acts)
        return await write(name, record, known)

    connection.write = noted
    await settled(members, clocks)
    assert len(owner.acts) == SHARDS // 2
    assert held_while_written == [False] * (SHARDS // 2)


async def test_a_write_of_which_no_reply_came_is_reported_and_gives_no_shard():
    _, clocks, members = group(1)
    await settled(members, clocks, ticks=1)
    keeper, owner, connection = members[0]
    connection.lose_replies = 100
    clocks[0].now += 2.0
    with pytest.raises(LeaseUnavailable):
        await keeper.tick()
    assert owner.acts == {}


async def test_a_shard_whose_lease_is_over_once_it_is_written_is_not_acted_on():
    _, clocks, members = group(1)
    await settled(members, clocks, ticks=1)
    keeper, owner, connection = members[0]
    write_all = connection.write_all

    async def slow(writes):
        found = await write_all(writes)
        clocks[0].now += TIMING.renew
        return found

    connection.write_all = slow
    await keeper.tick()
    assert owner.acts == {}
    connection.write_all = write_all
    await settled(members, clocks)
    assert len(owner.acts) == SHARDS


async def test_what_is_held_is_renewed_while_other_shards_are_taken_slowly():
    world, clock, known = MemoryStore(), Clock(), {}
    keeper, owner, connection = member(world, 0, clock, known)
    written = []

    async def slow_write(name, record, stored, write=connection.write):
        written.append((name, clock.now))
        if stored is None:  # it is taken
            clock.now += TIMING.lease / 4
        return await write(name, record, stored)

    connection.write = slow_write
    for _ in range(2):
        await keeper.tick()
    assert set(owner.acts) == set(range(SHARDS))
    mine = keeper._names.member(keeper.identity.partition("_")[0])
    times = [at for name, at in written if name == mine]
    assert len(times) >= SHARDS - 1
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= TIMING.renew


async def test_epochs_of_all_wanted_shards_are_read_at_the_same_time():
    keeper, owner, _ = member(MemoryStore(), 0, Clock(), {})
    everyone = asyncio.Barrier(SHARDS)

    async def known_epoch(shard):
        async with everyone:
            return 0

    owner.known_epoch = known_epoch
    async with asyncio.timeout(30):
        for _ in range(2):
            await keeper.tick()
    assert set(owner.acts) == set(range(SHARDS))


async def test_a_member_that_is_not_able_leaves_its_shards_to_live_ones_and_takes_its_share_again():
    _, clocks, members = group(2)
    (first, owner, _), (_, other, _) = members
    await settled(members, clocks)
    able = False
    first._is_able = lambda: able
    await settled(members, clocks, ticks=2)
    assert (len(owner.acts), len(other.acts)) == (0, SHARDS)
    able = True
    await settled(members, clocks)
    assert len(owner.acts) == SHARDS / 2


async def test_a_member_that_is_not_able_keeps_its_shards_while_no_other_one_is_live():
    _, clocks, [(keeper, owner, _)] = group(1)
    keeper._is_able = lambda: False
    await settled([(keeper, owner, None)], clocks)
    assert len(owner.acts) == SHARDS
