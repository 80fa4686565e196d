"""Deletions that wait for a pause or a correction, and the annotation that ends all waiting."""

import pytest

from pocket_operator.decide.plan import plan
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources import names
from resources import address, changed
from snapshots import ALICE, RM, gone, miner_report, relayer_report, snapshot

QUIET = {address("alice"): 90.0}
IDLE = (relayer_report(), miner_report())


def test_a_paused_relay_miner_changes_nothing():
    for paused in (changed(RM, "spec.paused", True), gone(changed(RM, "spec.paused", True), 1_000_000)):
        found = plan(snapshot(relay_miner=paused, suppliers=(gone(ALICE),), reports=IDLE, quiet_since=QUIET))
        assert (found.wanted, found.protect, found.release, found.paused) == ((), (), (), True)
        told = supplier_status(found.key_checks[0], snapshot(relay_miner=paused, suppliers=(gone(ALICE),)), found)
        assert "waits while RelayMiner main is paused" in str(told.conditions)


@pytest.mark.parametrize(("path", "value"), [("spec.paused", True), ("spec.services", "none")])
def test_the_annotation_ends_a_drain_also_where_the_relay_miner_is_paused_or_not_valid(path, value):
    busy = (relayer_report(), miner_report(9))

    def released(relay_miner, supplier):
        found = plan(snapshot(relay_miner=relay_miner, suppliers=(supplier,), reports=busy))
        assert found.paused or found.blocked_by.reason is ConditionReason.INVALID_SPEC
        return [(change.kind, change.name, change.wanted) for change in found.release]

    def forced(resource):
        return changed(resource, "metadata.annotations", {names.ANNOTATION_FORCE_DELETE: "true"})

    odd = changed(RM, path, value)
    alice, whole = ("Supplier", "alice", False), ("RelayMiner", "main", False)
    assert released(odd, gone(ALICE)) == released(gone(odd), gone(ALICE)) == released(forced(odd), forced(ALICE)) == []
    assert released(odd, forced(gone(ALICE))) == [alice]
    # A pause suspends the deletion of the RelayMiner; one that is not valid goes once nothing is open.
    whole_too = [] if path == "spec.paused" else [whole]
    assert released(gone(odd), forced(gone(ALICE))) == [alice, *whole_too]
    assert released(forced(gone(odd)), gone(ALICE)) == [alice, whole]
    assert released(forced(gone(odd)), ALICE) == [whole]
    assert released(forced(gone(odd, held=False)), ALICE) == []


@pytest.mark.parametrize(("path", "value", "until"), [
    ("spec.paused", True, "no longer paused"), ("spec.services", "none", "valid again"),
])  # fmt: skip
def test_a_deletion_that_waits_tells_what_for_and_the_way_out(path, value, until):
    def told(relay_miner):
        seen = snapshot(relay_miner=relay_miner)
        status = relay_miner_status(seen, plan(seen))
        return next(row.message for row in status.conditions if row.type == "Ready")

    odd = changed(RM, path, value)
    assert f"goes on once it is {until}. pocket.network/force-delete=true" in told(gone(odd))
    assert "deleted" not in told(odd)
