"""Ready means that relays are served and mined, for a RelayMiner and for each Supplier."""

from dataclasses import replace
from datetime import timedelta

import pytest

from pocket.api.status import as_status
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.served import Served
from pocket_operator.decide.snapshot import SecretView
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources import names
from resources import address, changed, key_of, supplier
from snapshots import ALICE, MINER_POD, NOW, POD, RM, miner_report, relayer_report, snapshot, with_uid

DIGESTS = plan(snapshot()).digests
SERVING = relayer_report(address("alice"))


def with_keys(*reports):
    """Return the reports of pods that have the published keys."""
    return tuple(
        Report.of(report.pod, report.answer.model_dump() | {"keys": DIGESTS[report.component]}, report.at)
        for report in reports
    )


def unserved_since(seconds):
    """Return the RelayMiner that was ready, with a status that has shown Suppliers as not served for some seconds."""
    since = (NOW - timedelta(seconds=seconds)).isoformat()
    row = {"type": "SuppliersServed", "status": "False", "reason": "SuppliersNotServed", "message": "0 of 1",
           "lastTransitionTime": since}  # fmt: skip
    return changed(RM, "status", {"conditions": [{"type": "Ready", "status": "True"}, row]})


def running(child):
    """Return a rendered workload as the API server shows it once its pods are ready."""
    number = child["spec"]["replicas"]
    counts = ("replicas", "readyReplicas", "updatedReplicas", "availableReplicas")
    metadata = {**child["metadata"], "generation": 1}
    return {**child, "metadata": metadata, "status": {"observedGeneration": 1, **dict.fromkeys(counts, number)}}


CHILDREN = {
    (child["kind"], child["metadata"]["name"]): running(child) if "replicas" in child.get("spec", {}) else child
    for child in plan(snapshot()).wanted
}


def ready(status):
    found = next(row for row in as_status(status)["conditions"] if row["type"] == "Ready")
    return found["status"], found["reason"]


def both(**world):
    seen = snapshot(children=CHILDREN, **world)
    decided = plan(seen)
    return ready(relay_miner_status(seen, decided)), ready(supplier_status(decided.key_checks[0], seen, decided))


def published(decided):
    name = names.keys("main", names.RELAYER)
    return next((set(child["data"]) for child in decided.wanted if child["metadata"]["name"] == name), set())


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(5, ("True", "Ready")), (60, ("False", "SuppliersNotServed"))],
    ids=["while a shard changes hands", "for a minute"],
)
def test_a_supplier_that_no_miner_mines_is_ready_only_while_its_shard_changes_hands(seconds, expected):
    reports = with_keys(SERVING, miner_report(owned=()))
    assert both(relay_miner=unserved_since(seconds), reports=reports) == (expected, expected)


def test_the_first_supplier_is_not_late_because_there_was_none_for_hours():
    row = {"type": "SuppliersServed", "status": "False", "reason": "NoSuppliers", "message": "",
           "lastTransitionTime": (NOW - timedelta(hours=5)).isoformat()}  # fmt: skip
    empty = changed(RM, "status", {"conditions": [{"type": "Ready", "status": "True", "reason": "NoSuppliers"}, row]})
    reports = with_keys(SERVING, miner_report(owned=()))
    for waited, expected in ((29.0, ("True", "Ready")), (30.0, ("False", "SuppliersNotServed"))):
        found = both(relay_miner=empty, reports=reports, clock=100.0, unserved_since=100.0 - waited)
        assert found == (expected, expected), waited


@pytest.mark.parametrize(
    ("rounds", "longest"),
    [((("alice",), ("alice", "bob"), ("alice",)), 0.0), ((("alice",), ("bob",), ("alice",)), 50.0),
     ((("alice", "bob"), ("bob",), ("bob", "alice")), 0.0), ((("alice",), (), ("bob",)), 50.0),
     ((("alice",), ()), None)],
    ids=["another joins", "they take turns", "the other is served", "all are served meanwhile", "all are served"],
)  # fmt: skip
def test_the_supplier_that_waits_longest_tells_since_when_suppliers_are_not_served(rounds, longest):
    check, since = plan(snapshot()).key_checks[0], {}
    for clock, missing in zip((0.0, 25.0, 50.0), rounds, strict=False):
        served = Served((), tuple(replace(check, supplier=supplier("ns", name)) for name in missing))
        since = served.missing_since(since, clock)
    assert min(since.values(), default=None) == longest


def test_a_new_operator_does_not_take_back_that_a_supplier_is_not_served():
    late = unserved_since(600)
    late["status"]["conditions"][0] = {"type": "Ready", "status": "False", "reason": "SuppliersNotServed"}
    reports = with_keys(SERVING, miner_report(owned=()))
    expected = ("False", "SuppliersNotServed")
    assert both(relay_miner=late, reports=reports, clock=5.0, unserved_since=5.0) == (expected, expected)


def test_what_is_served_and_mined_is_ready_whatever_the_last_status_was():
    reports = with_keys(SERVING, miner_report())
    assert both(relay_miner=unserved_since(60), reports=reports) == (("True", "Ready"), ("True", "Ready"))


def test_a_supplier_is_ready_while_another_relayer_starts():
    starting = replace(POD, name="main-relayer-2", uid="p3", ready=False)
    _, of_supplier = both(pods=(POD, starting, MINER_POD), reports=with_keys(SERVING, miner_report()))
    assert of_supplier == ("True", "Ready")


def test_a_supplier_that_cannot_be_protected_holds_up_no_other():
    bob = supplier("ns", "bob", operatorAddress=address("bob"), key={"secretRef": {"name": "bob-key", "key": "hex"}})
    keys = {f"{name}-key": SecretView({"hex": key_of(name)}) for name in ("alice", "bob")}
    owners = {address(name): name for name in ("alice", "bob")}
    refused = {("Supplier", "alice"): "denied by policy"}
    seen = snapshot(
        suppliers=(ALICE, with_uid(bob, "bob")), owners=owners, secrets=keys, unprotected=refused, published=None
    )
    decided = plan(seen)
    alice = supplier_status(decided.key_checks[0], seen, decided)
    assert ready(alice) == ("False", "APIServerRejected")
    assert "denied by policy" in str(alice.conditions)
    assert published(decided) == {address("bob")}
    kept = replace(seen, published=snapshot().published)
    assert published(plan(kept)) == {address("alice"), address("bob")}, "what was published before stays"


def test_a_relay_miner_that_cannot_be_protected_publishes_no_keys_and_says_why():
    seen = snapshot(unprotected={("ConfigMap", "main-drain"): "exceeded quota"})
    decided = plan(seen)
    assert decided.wanted == ()
    assert "ConfigMap main-drain: exceeded quota" in str(relay_miner_status(seen, decided).conditions)
