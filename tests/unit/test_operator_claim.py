"""Two operators over one namespace: one manages, the other leaves it alone until the first one's Lease is dead."""

import contextlib
from datetime import UTC, datetime

import pytest

from pocket.kube.api_client import KubeError, ObjectNotFound
from pocket_operator.controller.operator_claim import OperatorClaim
from pocket_operator.controller.operator_conflicts import OperatorConflicts
from pocket_operator.decide.conditions import operator_conflict
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.reasons import ConditionReason


class Leases:
    """Holds the only Lease, or the error that reading it raises."""

    def __init__(self):
        self.renewed, self.error, self.reads = "1", None, 0

    async def get(self, kind, namespace, name):
        self.reads += 1
        assert (kind.name, namespace, name) == ("Lease", "first", "pocket-operator")
        if self.error is not None:
            raise self.error
        return {"spec": {"renewTime": self.renewed}}


class World:
    def __init__(self):
        self.leases, self.now = Leases(), 1000.0
        self.claim = OperatorClaim(self.leases, "second", lambda: self.now)

    async def other(self, operator="first", after=0.0):
        self.now += after
        return await self.claim.other({"status": {"operator": operator}})


async def test_an_operator_manages_what_no_other_one_does():
    world = World()
    assert [await world.other(name) for name in ("", "second")] == ["", ""]
    assert await world.claim.other({}) == ""
    assert world.leases.reads == 0


async def test_it_leaves_what_another_one_manages_while_that_ones_lease_is_renewed():
    world = World()
    for number in range(20):
        world.leases.renewed = str(number)
        assert await world.other(after=30.0) == "first"
    for _ in range(11):
        assert await world.other(after=5.0) == "first", "not yet a minute without a renewal"
    assert await world.other(after=5.0) == ""


async def test_a_lease_that_is_gone_is_evidence_and_one_that_may_not_be_read_is_none():
    world = World()
    world.leases.error = KubeError("forbidden", 403)
    assert await world.other() == await world.other(after=500.0) == "first"
    world.leases.error = ObjectNotFound("gone", 404)
    assert await world.other(after=5.0) == ""
    world.leases.error = KubeError("no answer", 0)
    with pytest.raises(KubeError):
        await world.other(after=5.0)


async def test_the_lease_is_not_read_at_every_reconciliation():
    world = World()
    for _ in range(100):
        await world.other(after=0.1)
    assert world.leases.reads <= 3


def test_the_condition_names_both_operators():
    found = operator_conflict("second", "first", ("ns", "main"))
    assert found.reason is ConditionReason.OTHER_OPERATOR
    assert "namespace first manages" in found.message
    assert "the one in second leaves it alone" in found.message
    assert "kubectl" not in found.message


async def test_an_operator_that_cannot_see_that_the_other_is_gone_says_how_to_hand_over():
    world = World()
    world.leases.error = KubeError("forbidden", 403)
    await world.other()
    assert not world.claim.is_readable("first")
    found = operator_conflict("second", "first", ("ns", "main"), readable=False)
    command = found.message.partition("If it is: ")[2]
    patch = """--subresource=status --type=merge -p '{"status":{"operator":""}}'"""
    assert command == f"kubectl -n ns patch rm main {patch}"
    world.leases.error = None
    await world.other(after=5.0)
    assert world.claim.is_readable("first")


@pytest.mark.parametrize("text", ["../../x", "a/b", "x?y=1", "\u00e9", "x" * 64, "-x", "A"])
async def test_what_cannot_be_a_namespace_is_no_other_operator(text):
    world = World()
    assert await world.other(text) == ""
    assert world.leases.reads == 0


@pytest.mark.parametrize(("status", "passed_on"), [(403, False), (422, False), (0, True), (503, True)])
async def test_a_refused_condition_of_two_operators_does_not_stop_a_reconciliation(status, passed_on):
    key, cache = ReconcileKey("ns", "main"), ObjectCache()
    old = {"type": "OperatorConflict", "status": "True", "reason": "OtherOperator", "message": ""}
    managers = [{"manager": "pocket.network/operator-of-second"}]
    metadata = {"name": "main", "namespace": "ns", "uid": "u", "managedFields": managers}
    cache.put("RelayMiner", {"metadata": metadata, "spec": {}, "status": {"conditions": [old]}})

    class Refusing:
        calls = 0

        async def call(self, *_, **__):
            self.calls += 1
            raise KubeError("refused", status)

    api = Refusing()
    conflicts = OperatorConflicts(api, cache, World().claim, "second", lambda: datetime(2026, 1, 1, tzinfo=UTC))
    for step in (conflicts.clear(key), conflicts.report(key, "first")):
        with pytest.raises(KubeError) if passed_on else contextlib.nullcontext():
            await step
    assert api.calls == 2


async def test_without_a_relay_miner_the_oldest_supplier_decides_who_manages_all():
    world, key, cache = World(), ReconcileKey("ns", "main"), ObjectCache()
    conflicts = OperatorConflicts(None, cache, world.claim, "second", lambda: datetime(2026, 1, 1, tzinfo=UTC))
    assert await conflicts.other(key) == ""
    for name, created, operator in (("bob", "2026-01-02", "second"), ("alice", "2026-01-01", "first")):
        metadata = {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": created}
        spec = {"relayMinerRef": {"name": "main"}, "operatorAddress": name}
        cache.put("Supplier", {"metadata": metadata, "spec": spec, "status": {"operator": operator}})
    assert await conflicts.other(key) == "first"
    world.now += 5.0
    world.leases.error = KubeError("forbidden", 403)
    assert await conflicts.other(key) == "", "nothing would tell that it is gone"
    world.now, world.leases.error = world.now + 5.0, None
    assert await conflicts.other(key) == "first"
    cache.put("RelayMiner", {"metadata": {"name": "main", "namespace": "ns", "uid": "u"}, "spec": {}})
    assert await conflicts.other(key) == "", "a new RelayMiner is free"
