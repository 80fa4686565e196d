"""Candidates for one Lease of an API server that fails, loses replies and refuses stale versions."""

import asyncio
import copy
import random
from datetime import UTC, datetime, timedelta

import pytest

from pocket.coordination import leader_lease
from pocket.coordination.elector import LeaseTiming
from pocket.coordination.leader_lease import LeaseElector
from pocket.kube.api_client import Conflict, KubeError, ObjectNotFound

TIMING = LeaseTiming()
BEFORE, AFTER = "before", "after"


class LeaseApi:
    """One Lease, as an API server keeps it. `faults` are taken by the next calls, one each."""

    def __init__(self):
        self.lease, self.version, self.faults, self.calls = None, 0, [], []

    async def call(self, method, path, body=None, timeout_seconds=None):
        assert timeout_seconds == TIMING.call
        self.calls.append(method)
        fault = self.faults.pop(0) if self.faults else None
        if callable(fault):
            fault()
        if fault == BEFORE:
            raise KubeError("the API server is away")
        answer = self._answer(method, body)
        if fault == AFTER:
            raise KubeError("the reply is lost")
        return fault if isinstance(fault, dict) else copy.deepcopy(answer)

    def _answer(self, method, body):
        if method == "GET":
            if self.lease is None:
                raise ObjectNotFound("no such Lease")
            return self.lease
        if method == "POST" if self.lease is not None else method == "PUT":
            raise Conflict("another candidate was faster")
        if method == "PUT" and body["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict("a stale version")
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return self.lease

    def take(self, holder="two_b_2"):
        """Let another candidate take the Lease."""
        self.version += 1
        metadata = {"name": "leader", "resourceVersion": str(self.version)}
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 9}
        self.lease = {"metadata": metadata, "spec": spec}


class Time:
    """A clock that only waiting candidates move. `until` ends a wait that would last for ever."""

    def __init__(self):
        self.seconds, self.actions = 0.0, []

    def at(self, seconds, action):
        self.actions.append((seconds, action))

    async def sleep(self, _, seconds):
        assert 0 < seconds <= TIMING.lease
        self.seconds += seconds
        for due in [row for row in self.actions if row[0] <= self.seconds]:
            self.actions.remove(due)
            await due[1]()


@pytest.fixture
def world(monkeypatch):
    time = Time()
    monkeypatch.setattr(leader_lease, "_sleep", time.sleep)
    monkeypatch.setattr(leader_lease, "_RELEASE_PAUSE_SECONDS", 0)
    return LeaseApi(), time


def candidate(world, name):
    api, time = world
    return LeaseElector(
        api, "pocket", "leader", name, timing=TIMING, clock=lambda: time.seconds, rng=random.Random(name),
        wall_clock=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=time.seconds),
    )  # fmt: skip


async def leader(world, name):
    found = candidate(world, name)
    assert await found.acquire(asyncio.Event())
    return found


async def test_a_lease_is_taken_once_it_is_not_renewed_and_under_a_greater_epoch(world):
    first = await leader(world, "one_a_1")
    second = await leader(world, "two_b_2")
    assert TIMING.lease <= world[1].seconds <= TIMING.lease + TIMING.retry
    assert not first.leads, "it has not renewed for longer than it may"
    assert second.epoch > first.epoch
    assert (second.holder, second.leads) == (second.identity, True)


async def test_a_released_lease_is_taken_at_once(world):
    first = await leader(world, "one_a_1")
    await first.release()
    assert not first.leads
    second = await leader(world, "two_b_2")
    assert world[1].seconds == 0
    await first.release()
    assert second.leads, "it is not the first one's any more"
    assert world[0].lease["spec"]["holderIdentity"] == second.identity


async def test_a_holder_renews_until_it_is_told_to_stop(world):
    holder, stop = await leader(world, "one_a_1"), asyncio.Event()

    async def end():
        stop.set()

    world[1].at(10 * TIMING.lease, end)
    assert await holder.hold(stop) == ""
    assert holder.leads
    assert world[0].calls.count("PUT") >= 10 * TIMING.lease / TIMING.renew
    assert world[0].calls[:2] == ["GET", "POST"]
    assert "GET" not in world[0].calls[2:], "a holder knows what it wrote: one round trip a renewal"


@pytest.mark.parametrize(
    "faults", [[BEFORE], [AFTER], [None, AFTER], [None, BEFORE, AFTER], [{}], [None, {"kind": "Status"}]]
)
async def test_a_failure_or_a_lost_reply_ends_no_leadership(world, faults):
    holder, stop = await leader(world, "one_a_1"), asyncio.Event()

    async def fail():
        world[0].faults[:] = faults

    async def end():
        stop.set()

    world[1].at(1, fail)
    world[1].at(3 * TIMING.lease, end)
    assert await holder.hold(stop) == ""
    assert holder.leads
    assert world[0].faults == []


async def test_a_renewal_whose_reply_was_lost_is_followed_by_a_read(world):
    holder = await leader(world, "one_a_1")
    world[0].faults[:] = [AFTER]
    with pytest.raises(KubeError):
        await holder.attempt()
    world[0].calls.clear()
    assert await holder.attempt()
    assert await holder.attempt()
    assert world[0].calls == ["GET", "PUT", "PUT"]


async def test_leadership_ends_before_the_lease_can_be_taken_where_it_is_not_renewed(world):
    holder = await leader(world, "one_a_1")
    world[0].faults[:] = [BEFORE] * 100
    assert await holder.hold(asyncio.Event()) == (
        "the Lease leader could not be renewed for 10 s: the API server is away"
    )
    assert not holder.leads
    assert world[1].seconds < TIMING.lease


async def test_a_holder_whose_lease_was_taken_names_the_new_one(world):
    holder = await leader(world, "one_a_1")

    async def take():
        world[0].take()

    world[1].at(1, take)
    assert await holder.hold(asyncio.Event()) == "the Lease leader is held by two_b_2"
    assert not holder.leads


async def test_a_refused_renewal_shows_at_once_who_has_the_lease(world):
    holder = await leader(world, "one_a_1")
    world[0].take()
    assert not await holder.attempt(), "though the Lease that it had would last for some seconds"
    assert (holder.leads, holder.holder) == (False, "two_b_2")


async def test_a_holder_whose_lease_was_deleted_creates_it_again_and_leads_on(world):
    holder, stop = await leader(world, "one_a_1"), asyncio.Event()

    async def delete():
        world[0].lease = None

    async def end():
        stop.set()

    world[1].at(1, delete)
    world[1].at(20, delete)
    world[1].at(3 * TIMING.lease, end)
    assert await holder.hold(stop) == ""
    assert holder.leads
    assert world[0].lease["spec"]["holderIdentity"] == "one_a_1"


async def test_of_a_deleted_lease_who_creates_it_first_leads(world):
    holder = await leader(world, "one_a_1")
    world[0].lease = None
    other = candidate(world, "two_b_2")
    assert await other.attempt()
    assert await holder.hold(asyncio.Event()) == "the Lease leader is held by two_b_2"


async def test_a_candidate_waits_through_an_outage_and_of_two_that_create_one_leads(world):
    world[0].faults[:] = [BEFORE, AFTER, BEFORE]
    first, second = candidate(world, "one_a_1"), candidate(world, "two_b_2")
    stop = asyncio.Event()
    assert await first.acquire(stop)
    assert not await second.attempt()
    stop.set()
    assert not await second.acquire(stop)


@pytest.mark.parametrize("exists", [False, True])
async def test_of_two_that_write_at_once_one_leads(world, exists):
    if exists:
        await (await leader(world, "three_c_3")).release()
    late = candidate(world, "one_a_1")
    world[0].faults[:] = [None, world[0].take]
    assert not await late.attempt()
    assert not await late.attempt()
    assert late.holder == "two_b_2"


async def test_a_lease_that_another_one_took_is_not_released(world):
    first = await leader(world, "one_a_1")
    world[0].take()
    await first.release()
    assert world[0].lease["spec"]["holderIdentity"] == "two_b_2"


@pytest.mark.parametrize("faults", [[BEFORE], [AFTER], [None, BEFORE], [None, AFTER]])
async def test_a_release_that_fails_costs_time_only(world, faults):
    first = await leader(world, "one_a_1")
    world[0].faults[:] = faults
    await first.release()
    assert not first.leads
    assert world[0].lease["spec"]["holderIdentity"] == ""
