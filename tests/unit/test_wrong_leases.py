"""Answers about Leases that are wrong: one without them, and a duration that no member writes."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lease_members import SHARDS, group, member, settled
from pocket.coordination.elector import LeaseRecord
from pocket.coordination.lease_names import LeaseNames
from pocket.coordination.stores.kubernetes_leases import KubeLeaseStore
from pocket.coordination.stores.lease_store import LeaseConflict
from pocket.kube.api_client import Conflict


async def test_one_answer_without_leases_ends_no_ownership_and_two_do(monkeypatch):
    world, clocks, members = group(2)
    await settled(members, clocks)
    (keeper, owner, connection), _ = members
    before, leases = dict(owner.acts), dict(world.leases)

    async def nothing():
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(connection, "read", nothing)
        await keeper.tick()
    assert owner.acts == before
    await settled(members, clocks, ticks=3)
    assert owner.acts == before
    shards = LeaseNames("main-miner", SHARDS).shards
    assert all(world.leases[name].record.transitions == leases[name].record.transitions for name in shards)
    with monkeypatch.context() as patch:
        patch.setattr(connection, "read", nothing)
        for _ in range(2):
            await keeper.tick()
    assert not owner.acts


async def test_shards_whose_leases_the_store_has_lost_are_left_to_their_live_holder():
    world, clocks, members = group(2)
    await settled(members, clocks)
    (other, taker, _), (_, owner, _) = members
    before, taken = dict(owner.acts), dict(taker.acts)
    world.leases.clear()
    await other.tick()
    assert taker.acts.keys() == taken.keys()
    await settled(members[::-1], clocks, ticks=2)
    assert (owner.acts.keys(), taker.acts.keys()) == (before.keys(), taken.keys())


@pytest.mark.parametrize("other_lives", [True, False])
async def test_a_member_that_restarts_beside_one_that_seems_to_live_acts_on_all_that_it_held(other_lives):
    world, clocks, members = group(2)
    await settled(members, clocks)
    lost = clocks[1]
    for _ in range(20):  # the other one ends, and its shards are taken
        lost.now = clocks[0].now = clocks[0].now + 2.0
        await members[0][0].tick()
    assert len(members[0][1].acts) == SHARDS
    if other_lives:
        await members[1][0].tick()  # it comes back, and its Lease is fresh
    again = member(world, 0, clocks[0], members[0][1].known)
    for _ in range(3):
        await again[0].tick()
    assert again[1].acts.keys() == set(range(SHARDS)), "the Leases name it: nobody else takes them before they expire"
    await settled([again, members[1]] if other_lives else [again], clocks, ticks=20)
    assert len(again[1].acts) == (SHARDS // 2 if other_lives else SHARDS)


@pytest.mark.parametrize(("every", "in_a_row"), [(4, 1), (6, 2), (8, 3)])
async def test_answers_without_leases_do_not_put_off_the_takeover_from_a_member_that_is_gone(
    monkeypatch, every, in_a_row
):
    _, clocks, members = group(2)
    await settled(members, clocks)
    (survivor, owner, connection), clock, read = members[0], clocks[0], members[0][2].read
    answers = 0

    async def now_and_then_nothing():
        nonlocal answers
        answers += 1
        return {} if answers % every < in_a_row else await read()

    monkeypatch.setattr(connection, "read", now_and_then_nothing)
    gone_at = clock.now
    while len(owner.acts) < SHARDS:
        clock.now += 1.0
        await survivor.tick()
        assert clock.now - gone_at < 20, "takeover is promised within 20 s"


async def test_a_lease_with_a_duration_that_no_member_writes_is_taken_once_its_holder_is_gone():
    world, clocks, members = group(1)
    await settled(members, clocks)
    name = "main-miner-shard-0"
    world.put(name, replace(world.leases[name].record, holder="gone_uid_1", lease_seconds=10**9))
    await settled(members, clocks, ticks=20)
    assert 0 not in members[0][1].acts, "it may be alive"
    await settled(members, clocks, ticks=20)
    assert 0 in members[0][1].acts


class LeaseApi:
    """An API server with Leases, which takes a change of the version that it has, and no other."""

    def __init__(self):
        self.leases, self.version = {}, 0

    async def call(self, method, path, *, body=None, query=None, timeout_seconds=None):
        if method == "GET":
            (selector,) = query.values()
            name, _, value = selector.partition("=")
            return {"items": [row for row in self.leases.values() if row["metadata"]["labels"].get(name) == value]}
        name = body["metadata"]["name"]
        known = self.leases.get(name, {"metadata": {"resourceVersion": None}})
        if (method == "POST") != (name not in self.leases) or (
            method == "PUT" and body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"]
        ):
            raise Conflict("a stale version")
        self.version += 1
        self.leases[name] = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self.leases[name]


async def test_a_lease_is_written_in_place_of_the_version_that_the_decision_was_made_by():
    api, now = LeaseApi(), datetime(2026, 11, 30, tzinfo=UTC)
    store, other = (KubeLeaseStore(api, "ns", "miner", call_seconds=1.0) for _ in range(2))
    record = LeaseRecord("a_1_x", 15, now, now, 1)
    known = await store.write("miner-shard-0", record, None)
    assert await other.read() == {"miner-shard-0": known}
    await other.write("miner-shard-0", replace(record, holder="b_1_x", transitions=2), known)
    await store.read()  # a later answer than that of the decision
    with pytest.raises(LeaseConflict):
        await store.write("miner-shard-0", replace(record, renewed=now), known)
    with pytest.raises(LeaseConflict):
        await store.write("miner-shard-0", record, None)
    latest = (await store.read())["miner-shard-0"]
    assert (latest.record.holder, latest.record.transitions) == ("b_1_x", 2)
    assert (await store.write("miner-shard-0", record, latest)).record == record
