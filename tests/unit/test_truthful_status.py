"""Status tells the truth: what is not served, what goes on, and what is nobody's fault."""

import base64
from dataclasses import replace
from datetime import timedelta

import pytest

from pocket_operator.decide.conditions import events_to_emit
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.snapshot import Rejection, SecretView
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources import names
from resources import address, changed, supplier
from snapshots import ALICE, MINER_POD, NOW, POD, RM, gone, miner_report, relayer_report, snapshot, with_uid

BOB = with_uid(supplier("ns", "bob"), "bob")
SERVED = (relayer_report(address("alice")), miner_report())


def workload(kind, name, *, wanted, ready, updated, replicas):
    return (kind, name), {
        "metadata": {"name": name, "generation": 2, "annotations": {}, "labels": {}},
        "spec": {"replicas": wanted, "template": {"spec": {"containers": [{"image": "i"}]}}},
        "status": {"observedGeneration": 2, "readyReplicas": ready, "updatedReplicas": updated, "replicas": replicas},
    }


def pods_of(*, ready=4, updated=4, replicas=4, miners=1):
    relayers = workload("Deployment", names.relayer("main"), wanted=4, ready=ready, updated=updated, replicas=replicas)
    one_miner = workload("StatefulSet", names.miner("main"), wanted=1, ready=miners, updated=1, replicas=1)
    return dict([relayers, one_miner])


def whole(**more):
    seen = snapshot(**{"children": pods_of(), "reports": SERVED, **more})
    status = relay_miner_status(seen, plan(seen))
    return status, {c.type: c for c in status.conditions}


def one(**more):
    seen = snapshot(**{"reports": SERVED, **more})
    found = plan(seen)
    return {c.type: c for c in supplier_status(found.key_checks[0], seen, found).conditions}


def test_a_relay_miner_is_not_ready_while_one_of_its_suppliers_has_no_key():
    status, found = whole(suppliers=(ALICE, BOB))
    assert status.served == "1/2"
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "SuppliersNotReady")
    assert (found["SuppliersServed"].status, found["SuppliersServed"].reason) == ("False", "SuppliersNotServed")
    assert "bob" in found["SuppliersServed"].message
    status, found = whole()
    assert (status.served, found["SuppliersServed"].status, found["Ready"].status) == ("1/1", "True", "True")


def test_the_key_of_a_pod_that_ends_does_not_stand_in_for_the_missing_one_of_its_successor():
    digests = plan(snapshot()).digests
    ending, miner = (
        Report.of(report.pod, report.answer.model_dump() | {"keys": digests[report.component]}, report.at)
        for report in SERVED
    )
    successor = replace(POD, name="main-relayer-2", uid="p3", ready=False)
    pods = (replace(POD, deleting=True), successor, MINER_POD)
    for more, loaded in (((), "1/2"), ((replace(ending, pod="main-relayer-2"),), "2/2")):
        reports = {"pods": pods, "reports": (ending, miner, *more)}
        status, found = whole(**reports)
        seen = snapshot(children=pods_of(), **reports)
        alice = supplier_status(plan(seen).key_checks[0], seen, plan(seen))
        assert (status.keys.loaded_by, alice.loaded_by) == (loaded, loaded)
        assert found["KeysLoaded"].status == ("True" if more else "False")


@pytest.mark.parametrize(
    ("stated", "cost"), [("aof", "append-only file"), ("managed", "is not paid"), ("none", "begin again"), (None, "")]
)
def test_what_the_owner_states_about_redis_is_in_the_condition_with_what_it_costs(stated, cost):
    redis = {"url": "redis://r:1/0", **({"durability": stated} if stated else {})}
    _, found = whole(relay_miner=changed(RM, "spec.redis", redis))
    assert found["RedisReachable"].status == "True"
    assert found["RedisReachable"].message.startswith("The miners reach Redis.")
    assert cost in found["RedisReachable"].message
    assert bool(stated) == ("owner states" in found["RedisReachable"].message)


def test_pods_of_a_stateful_set_that_cannot_be_created_are_named_with_the_api_servers_message():
    children = pods_of(miners=0)
    quota = {("StatefulSet", "main-miner"): "pods main-miner-0 is forbidden: exceeded quota"}
    _, found = whole(children=children, failed_creates=quota)
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "PodsNotReady")
    assert "StatefulSet main-miner cannot be created: pods main-miner-0 is forbidden" in found["Ready"].message


def test_a_rollout_stalls_at_its_deadline_and_is_ready_while_as_many_pods_serve_as_should():
    for children, ready, cause in ((pods_of(updated=1, replicas=5), "True", "events and logs"),
                                   (pods_of(ready=2), "False", "events and logs")):  # fmt: skip
        _, early = whole(children=children, rolling_since=100.0 - 899.0)
        assert (early["Stalled"].status, early["Reconciling"].reason) == ("False", "RollingOut")
        _, late = whole(children=children, rolling_since=100.0 - 900.0)
        assert (late["Stalled"].status, late["Ready"].status) == ("True", ready)
        assert late["Stalled"].reason == late["Reconciling"].reason == "ProgressDeadlineExceeded"
        assert "not all pods became ready within 900 s" in late["Stalled"].message.lower()
        assert cause in late["Stalled"].message
    shorter = changed(RM, "spec.progressDeadlineSeconds", 30)
    _, found = whole(relay_miner=shorter, children=pods_of(ready=2), rolling_since=100.0 - 30.0)
    assert found["Stalled"].status == "True"
    quota = {("StatefulSet", "main-miner"): "exceeded quota"}
    _, found = whole(children=pods_of(miners=0), failed_creates=quota, rolling_since=-800.0)
    assert found["Ready"].reason == "PodsNotReady"
    assert "exceeded quota" in found["Stalled"].message


def test_a_relay_miner_that_goes_says_draining_whatever_its_suppliers_lack():
    status, found = whole(suppliers=(ALICE, BOB), relay_miner=gone(RM))
    assert status.served == "0/0"
    assert {found[kind].reason for kind in ("Ready", "Reconciling", "SuppliersServed")} == {"Draining"}


@pytest.mark.parametrize("reports", [(), (relayer_report(address("alice")),), (miner_report(),)])
def test_a_supplier_is_served_only_while_a_relayer_has_its_key_and_a_miner_mines_for_it(reports):
    status, found = whole(reports=reports)
    assert (status.served, found["SuppliersServed"].status) == ("0/1", "False")


@pytest.mark.parametrize(
    ("change", "served"),
    [
        ({"suppliers": (gone(ALICE),)}, "0/0"),
        ({"owners": {address("alice"): "another"}}, "0/1"),
        ({"relay_miner": changed(RM, "spec.paused", True)}, "1/1"),
        ({"relay_miner": changed(RM, "spec.chain.nodes", [])}, "1/1"),
    ],
)
def test_who_leaves_is_not_counted_nor_one_whose_address_is_anothers_and_trouble_changes_nothing(change, served):
    assert whole(**change)[0].served == served


def test_a_relay_miner_with_all_pods_ready_is_ready_while_it_rolls_out():
    _, found = whole(children=pods_of(updated=1, replicas=5))
    assert (found["Ready"].status, found["Reconciling"].status) == ("True", "True")
    for short in (pods_of(ready=3, updated=1), pods_of(updated=1, miners=0), {}):
        _, found = whole(children=short)
        assert (found["Ready"].status, found["Ready"].reason) == ("False", "RollingOut")


def test_only_ready_says_that_all_is_well():
    for found in (whole()[1], one(), one(secrets={"alice-key": None})):
        assert not [c.type for c in found.values() if c.reason == "Ready" and c.type != "Ready"]


def test_events_are_for_changes_of_ready_and_for_warnings():
    _, found = whole()
    rows = tuple(found.values())
    assert events_to_emit(rows, []) == [], "at first sight nothing has changed"
    _, later = whole(suppliers=(ALICE, BOB), now=NOW + timedelta(seconds=9))
    before = [row.model_dump(by_alias=True) for row in rows]
    told = {(n.reason, n.warning) for n in events_to_emit(later.values(), before)}
    assert told == {("SuppliersNotReady", True), ("SuppliersNotServed", True)}


def test_a_relay_miner_that_starts_warns_of_nothing():
    _, found = whole(children={}, reports=())
    assert events_to_emit(found.values(), []) == []


NO_BLOCK = {"problems": ({"code": "NoNewBlock", "message": "no new block for 300 s"},)}


@pytest.mark.parametrize(
    ("fields", "reason", "said"),
    [({"redis": "Redis refused the connection."}, "RedisUnreachable", "main-miner-0: Redis refused"),
     (NO_BLOCK, "ChainUnreachable", "main-miner-0: no new block")],
)  # fmt: skip
@pytest.mark.parametrize("owned", [("alice",), ()])
def test_a_supplier_is_not_ready_while_its_miner_cannot_mine(fields, reason, said, owned):
    owner = miner_report(owned=owned)
    cut_off = Report.of(owner.pod, owner.answer.model_dump() | fields, owner.at)
    reports = (relayer_report(address("alice")), cut_off)
    ready = one(reports=reports)["Ready"]
    assert (ready.status, ready.reason) == ("False", reason)
    assert said in ready.message
    status, found = whole(reports=reports)
    assert (status.served, found["SuppliersServed"].status) == ("0/1", "False")


def test_a_supplier_stays_ready_while_only_a_standby_is_cut_off():
    standby = miner_report(pod="main-miner-1", owned=())
    standby = Report.of(standby.pod, standby.answer.model_dump() | {"redis": "refused"}, standby.at)
    assert one(reports=(*SERVED, standby))["Ready"].status == "True"


READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize("reports", [(), (relayer_report(address("alice")), miner_report(owned=()))])
def test_a_relay_miner_is_ready_only_once_its_suppliers_are_served(reports):
    """Pods are ready before the operator has asked them, and keys are loaded before a miner takes its shards."""
    for children in (pods_of(), pods_of(updated=1, replicas=5)):
        _, found = whole(reports=reports, children=children)
        assert (found["Ready"].status, found["Reconciling"].status) == ("False", "True")
        _, found = whole(reports=reports, children=children, relay_miner={**RM, "status": {"conditions": READY}})
        assert found["Ready"].status == "True", "a new Supplier does not end what serves"


def test_pods_that_never_report_are_named_and_the_relay_miner_is_not_ready():
    since = (NOW - timedelta(seconds=301)).isoformat()
    before = [*READY, {"type": "SuppliersServed", "status": "False", "lastTransitionTime": since}]
    known = {**RM, "status": {"conditions": before}}
    for waited, reason in ((299.0, "LoadingKeys"), (300.0, "SuppliersNotServed")):
        _, found = whole(reports=(miner_report(),), relay_miner=known, unserved_since=100.0 - waited)
        assert found["SuppliersServed"].reason == reason
        assert found["Ready"].status == ("True" if reason == "LoadingKeys" else "False")
    assert "No report from main-relayer-1" in found["Ready"].message
    assert "port 9090" in found["Ready"].message
    assert found["Reconciling"].status == "False"
    assert "No report from main-relayer-1" in one(reports=(miner_report(),))["KeysLoaded"].message
    loads = (relayer_report(), miner_report())
    assert "Without it: main-relayer-1." in one(reports=loads)["KeysLoaded"].message


def test_an_entry_that_is_not_text_is_not_called_missing():
    raw = SecretView.of({"data": {"hex": base64.b64encode(b"\xff\xfe").decode()}})
    found = one(secrets={"alice-key": raw})
    assert "Secret alice-key has an entry hex that is not text." in found["KeysLoaded"].message
    assert "has no entry hex" in one(secrets={"alice-key": SecretView({})})["KeysLoaded"].message


def test_a_key_that_cannot_be_published_is_not_called_published():
    refused = {("Secret", names.keys("main", names.RELAYER)): Rejection("exceeded quota")}
    unloaded = {"reports": (), "rejections": refused}
    for found in (one(**unloaded)["KeysLoaded"], whole(**unloaded)[1]["KeysLoaded"]):
        assert (found.status, found.reason) == ("False", "APIServerRejected")
        assert "cannot be published: Secret main-relayer-keys: exceeded quota" in found.message
    assert one(rejections=refused)["KeysLoaded"].status == "True", "the pods have it from before"


def test_a_finalizer_that_cannot_be_removed_is_named_until_it_is_gone():
    leaving, held = gone(ALICE), {("Supplier", "alice"): "held by a policy", ("RelayMiner", "main"): "held, too"}
    found = one(suppliers=(leaving,), unreleased=held)["Ready"]
    assert (found.status, found.reason) == ("False", "APIServerRejected")
    assert "Its finalizer cannot be removed: held by a policy" in found.message
    _, rows = whole(relay_miner=gone(RM), suppliers=(leaving,), unreleased=held)
    assert (rows["Ready"].reason, rows["Stalled"].status) == ("APIServerRejected", "True")
    assert "held, too" in rows["Ready"].message
    assert one(unreleased={("Supplier", "bob"): "held"})["Ready"].status == "True"
