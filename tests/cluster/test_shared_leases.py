"""Miners' Leases on a real API server: shares, takeover, foreign clients, and what a miner's Role allows."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from kube import eventually
from pocket.coordination.elector import timing_for_blocks
from pocket.coordination.lease_names import LeaseNames
from pocket.coordination.shard_leases import ShardLeaseManager
from pocket.coordination.stores.kubernetes_leases import GROUP_LABEL, KubeLeaseStore
from pocket.coordination.stores.lease_store import LeaseConflict, LeaseUnavailable
from pocket.kube.api_client import ResourceKind

LEASES = ResourceKind("coordination.k8s.io/v1", "leases", "Lease")
GROUP, SHARDS = "main-miner", 4
TIMING = timing_for_blocks(0.5)


@dataclass
class Acting:
    acts: dict[int, int] = field(default_factory=dict)
    epochs: list[tuple[int, int]] = field(default_factory=list)
    known: int = 0

    async def known_epoch(self, shard):
        return self.known

    async def on_acquired(self, shard, epoch):
        self.acts[shard] = epoch
        self.epochs.append((shard, epoch))

    async def on_lost(self, shard):
        self.acts.pop(shard, None)


class Running:
    """A member that runs in a task.

    `kill` leaves its Leases as they are.
    """

    def __init__(self, api, namespace, number):
        self.owner, self.stop = Acting(), asyncio.Event()
        store = KubeLeaseStore(api, namespace, GROUP, call_seconds=TIMING.call)
        self.keeper = ShardLeaseManager(
            store, LeaseNames(GROUP, SHARDS), f"{GROUP}-{number}_uid_{number}", self.owner, TIMING
        )
        self.task = asyncio.create_task(self.keeper.run(self.stop))

    async def end(self):
        self.stop.set()
        await self.task

    async def kill(self):
        async def nothing():
            """SIGKILL gives nothing up."""

        self.keeper.release_all = nothing
        self.task.cancel()
        await asyncio.wait({self.task})


async def acts(*members):
    return [len(m.owner.acts) for m in members]


async def test_members_share_take_over_and_hand_over_through_the_api_server(api, namespace, capsys):
    first = Running(api, namespace, 0)

    async def alone():
        return await acts(first) == [4]

    await eventually(alone, 20)
    second = Running(api, namespace, 1)

    async def shared():
        return await acts(first, second) == [2, 2]

    await eventually(shared, 20)
    leases = (await api.call("GET", LEASES.path(namespace), query={"labelSelector": f"{GROUP_LABEL}={GROUP}"}))["items"]
    shards = {row["metadata"]["name"]: row["spec"] for row in leases if "-shard-" in row["metadata"]["name"]}
    assert len(shards) == SHARDS
    for spec in shards.values():
        assert spec["leaseDurationSeconds"] == round(TIMING.lease)
        assert spec["leaseTransitions"] >= 1
        assert datetime.fromisoformat(spec["renewTime"]) >= datetime.fromisoformat(spec["acquireTime"])
    begun = asyncio.get_running_loop().time()
    await second.kill()

    async def taken():
        return await acts(first) == [4]

    await eventually(taken, 20)
    seconds = asyncio.get_running_loop().time() - begun
    with capsys.disabled():
        print(f"\nmember killed: its shards taken after {seconds:.1f} s, lease {TIMING.lease:g} s")  # noqa: T201 - a figure
    assert seconds <= TIMING.lease + 2.5
    third = Running(api, namespace, 2)

    async def shared_again():
        return await acts(first, third) == [2, 2]

    await eventually(shared_again, 20)
    await first.end()

    async def handed_over():
        return await acts(third) == [4]

    begun = asyncio.get_running_loop().time()
    await eventually(handed_over, 20)
    assert asyncio.get_running_loop().time() - begun < TIMING.lease, "a clean stop hands over without waiting"
    every = first.owner.epochs + second.owner.epochs + third.owner.epochs
    assert len(set(every)) == len(every), "an epoch was given twice"
    await third.end()


async def test_a_lease_that_another_client_renews_is_respected_and_taken_after_it_ran_out(api, namespace):
    """As client-go writes it: microseconds, no label of ours on the fields that it owns."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    await api.create(LEASES, namespace, {
        "metadata": {"name": f"{GROUP}-shard-1", "labels": {GROUP_LABEL: GROUP}},
        "spec": {"holderIdentity": "client-go_1", "leaseDurationSeconds": 5, "acquireTime": now, "renewTime": now,
                 "leaseTransitions": 6},
    })  # fmt: skip
    member = Running(api, namespace, 0)

    async def others():
        return sorted(member.owner.acts) == [0, 2, 3]

    await eventually(others, 20)
    assert 1 not in member.owner.acts

    async def all_of_them():
        return sorted(member.owner.acts) == [0, 1, 2, 3]

    await eventually(all_of_them, 20)
    assert member.owner.acts[1] == 7
    await member.end()


async def test_a_deleted_lease_is_made_again_above_every_epoch_that_was_known(api, namespace):
    member = Running(api, namespace, 0)

    async def all_of_them():
        return len(member.owner.acts) == SHARDS

    await eventually(all_of_them, 20)
    member.owner.known = 30
    await api.delete(LEASES, namespace, f"{GROUP}-shard-2")

    async def higher():
        return member.owner.acts.get(2, 0) > 30

    await eventually(higher, 20)
    await member.end()


async def test_the_store_tells_conflicts_from_outages(api, namespace):
    store = KubeLeaseStore(api, namespace, GROUP, call_seconds=2)
    names = LeaseNames(GROUP, SHARDS)
    keeper = ShardLeaseManager(store, names, "a_1_1", Acting(), TIMING)
    await keeper.tick()
    stored = await store.read()
    leader = stored[names.leader]
    later = replace(leader.record, renewed=leader.record.renewed + timedelta(seconds=1))
    await store.write(names.leader, later, leader)
    with pytest.raises(LeaseConflict):
        await store.write(names.leader, leader.record, leader)
    with pytest.raises(LeaseConflict):
        await store.write(names.leader, leader.record, None)
    impatient = KubeLeaseStore(api, namespace, GROUP, call_seconds=0.000001)
    with pytest.raises(LeaseUnavailable):
        await impatient.write("x", leader.record, None)
    with pytest.raises(LeaseUnavailable):
        await impatient.read()
