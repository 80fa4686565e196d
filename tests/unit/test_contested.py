"""Another client that changes what the operator owns, again and again, is named."""

import pytest

from pocket_operator.decide.contested import Repairs
from pocket_operator.decide.drift import with_digest

WANTED = with_digest(
    {"kind": "Deployment", "metadata": {"name": "main-relayer"}, "spec": {"replicas": 1, "template": {"a": "b"}}}
)
SCALED = {
    **WANTED, "spec": {"replicas": 7, "template": {"a": "b"}},
    "metadata": {**WANTED["metadata"], "managedFields": [
        {"manager": "pocket.network/operator", "time": "3", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        {"manager": "kubectl", "time": "1", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        {"manager": "hpa", "subresource": "scale", "time": "2", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        {"manager": "other", "time": "4", "fieldsV1": {"f:spec": {"f:template": {}}}},
    ]},
}  # fmt: skip


def repaired(observed, times, wanted=WANTED):
    """Return what is told of repairs at these seconds, which is the same wherever the clock began."""
    told = []
    for begun in (0.0, 1e6):
        repairs = Repairs()
        assert not repairs.record(wanted, None, begun), "it was not applied before"
        told.append([repairs.record(wanted, observed, begun + at) for at in times])
    assert told[0] == told[1]
    return told[0]


def test_the_third_repair_in_ten_minutes_names_who_set_the_field_last():
    *before, third = repaired(SCALED, (1.0, 2.0, 590.0))
    assert before == ["", ""]
    assert third.startswith("Deployment main-relayer: hpa (subresource scale) sets spec.replicas again and again")


@pytest.mark.parametrize("times", [(1.0, 2.0), (1.0, 300.0, 601.0), (1.0, 700.0, 1400.0)])
def test_rare_repairs_are_no_contest(times):
    assert not any(repaired(SCALED, times))


def test_a_child_that_is_deleted_again_and_again_is_contested():
    assert "deletes it again and again" in repaired(None, (1.0, 2.0, 3.0))[-1]


def test_a_change_by_the_owner_is_no_repair():
    repairs = Repairs()
    for at, replicas in enumerate(range(1, 9)):
        wanted = with_digest({**WANTED, "spec": {"replicas": replicas}})
        assert not repairs.record(wanted, SCALED, float(at))


def test_a_foreign_entry_in_a_map_of_ours_is_named():
    wanted = with_digest({"kind": "Secret", "metadata": {"name": "main-miner-keys"}, "data": {"a": "AAAA"}})
    fields = [{"manager": "vault", "fieldsV1": {"f:data": {"f:eve": {}}}}]
    observed = {**wanted, "data": {"a": "AAAA", "eve": "AAAA"}}
    observed["metadata"] = {**wanted["metadata"], "managedFields": fields}
    assert "vault sets data.eve" in repaired(observed, (1.0, 2.0, 3.0), wanted)[-1]


def test_a_field_that_somebody_removed_has_no_known_client():
    observed = {**WANTED, "metadata": {"name": "main-relayer", "managedFields": None}}
    assert "another client sets metadata.annotations" in repaired(observed, (1.0, 2.0, 3.0))[-1]
