"""What the operator decides, from snapshots alone."""

import base64
from dataclasses import replace
from datetime import timedelta

import pytest

from pocket.keys.loading import KeySet
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket_operator.decide.drift import (
    drifted,
    force_replace_patch,
    foreign_fields,
    is_subset,
    replicas_to_keep,
    with_digest,
)
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.plan import drifted_children, key_digest, plan
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.snapshot import SecretView
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources import names
from resources import address, changed, key_of, relay_miner
from snapshots import ALICE, MINER_POD, NOW, POD, RM, gone, miner_report, relayer_report, snapshot, with_uid


def published(found, component) -> set[str]:
    name = names.keys("main", component)
    return next((set(c["data"]) for c in found.wanted if c["metadata"]["name"] == name), set())


def test_a_key_is_published_only_after_the_finalizer_protects_its_supplier():
    found = plan(snapshot())
    assert {(c.kind, c.wanted) for c in found.protect} == {("Supplier", True), ("RelayMiner", True)}
    assert published(found, "relayer") == published(found, "miner") == {address("alice")}


def test_the_key_digest_is_the_one_that_workloads_report():
    keys = {address(n): PrivateKey.from_hex(key_of(n)) for n in ("alice", "bob")}
    assert key_digest([key_of("alice"), key_of("bob")]) == KeySet(keys).digest
    assert key_digest([]) == ""


ALICES = address("alice")
A_RELAYER_RESTARTED = (replace(POD, ready=False, restarts=1), MINER_POD)
A_RELAYER_NEVER_RAN = (replace(POD, ready=False), MINER_POD)
QUIET = {address("alice"): 90.0}
IDLE = (relayer_report(), miner_report())


@pytest.mark.parametrize(
    ("change", "done", "why"),
    [
        ({"reports": ()}, False, "waiting for a report of main-relayer-1"),
        ({"reports": (miner_report(),), "pods": A_RELAYER_RESTARTED}, False, "waiting for a report of main-relayer-1"),
        ({"reports": (miner_report(),), "pods": A_RELAYER_NEVER_RAN}, True, "nothing is open"),
        ({"reports": (relayer_report(address("alice")), miner_report())}, False, "still serves it"),
        ({"reports": (relayer_report(leaving=[ALICES]), miner_report())}, False, "has relays of it to record"),
        ({"reports": (relayer_report(complete=False), miner_report())}, False, "has relays of it to record"),
        ({"reports": (relayer_report(),)}, False, "no miner reports that it mines for it"),
        ({"reports": (relayer_report(), miner_report(owned=()))}, False, "no miner reports that it mines for it"),
        ({"reports": (relayer_report(), miner_report(3))}, False, "3 sessions"),
        ({"reports": (relayer_report(), miner_report(last_scan_began=None))}, False, "yet to scan for the last relays"),
        ({"reports": (relayer_report(), miner_report(last_scan_began=92.5))}, False, "yet to scan for the last relays"),
        ({"reports": (relayer_report(), miner_report(last_scan_began=92.6))}, True, "nothing is open"),
        ({"quiet_since": {}}, False, "yet to scan for the last relays"),
        ({"quiet_since": {}, "published": None}, False, "yet to scan for the last relays"),
        ({}, True, "nothing is open"),
    ],
)  # fmt: skip
def test_a_supplier_leaves_when_no_relayer_may_record_for_it_and_its_miner_looked_once_more(change, done, why):
    found = plan(snapshot(suppliers=(gone(ALICE),), **{"reports": IDLE, "quiet_since": QUIET, **change}))
    drain = found.drains[address("alice")]
    assert (drain.done, why in drain.reason) == (done, True), drain
    assert bool(found.release) == done
    assert published(found, "relayer") == set()
    assert published(found, "miner") == (set() if done else {address("alice")})


def test_a_relayer_that_records_again_starts_the_wait_anew():
    quiet = plan(snapshot(suppliers=(gone(ALICE),), reports=(relayer_report(), miner_report(2))))
    assert quiet.drains[address("alice")].quiet_since == 100.0
    busy = snapshot(suppliers=(gone(ALICE),), reports=(relayer_report(leaving=[address("alice")]),), quiet_since=QUIET)
    assert plan(busy).drains[address("alice")].quiet_since is None


@pytest.mark.parametrize("report", [relayer_report(address("alice")), miner_report(3)])
def test_a_supplier_whose_published_key_somebody_deleted_is_not_taken_for_one_that_was_never_published(report):
    assert not plan(snapshot(suppliers=(gone(ALICE),), published=None, reports=(report,))).release


def test_the_deadline_and_the_annotation_end_a_drain():
    short = changed(RM, "spec.deletion", {"drainDeadlineSeconds": 5})
    stuck = (relayer_report(), miner_report(9))
    assert plan(snapshot(relay_miner=short, suppliers=(gone(ALICE),), reports=stuck)).release
    assert not plan(snapshot(relay_miner=short, suppliers=(gone(ALICE, 4.9),), reports=stuck)).release
    assert plan(snapshot(relay_miner=short, suppliers=(gone(ALICE, 5.0),), reports=stuck)).release
    forced = changed(gone(ALICE), "metadata.annotations", {names.ANNOTATION_FORCE_DELETE: "true"})
    assert plan(snapshot(suppliers=(forced,), reports=stuck)).release


def test_a_deleted_relay_miner_lets_go_only_when_every_supplier_is_done():
    deleted = gone(RM)
    busy = plan(snapshot(relay_miner=deleted, reports=(relayer_report(), miner_report(1))))
    assert not busy.release
    assert {c["kind"] for c in busy.wanted} >= {"StatefulSet", "Secret"}
    assert not [c for c in busy.wanted if c["kind"] == "Deployment"]
    done = plan(snapshot(relay_miner=deleted, reports=IDLE, quiet_since=QUIET))
    assert [(c.kind, c.wanted) for c in done.release] == [("RelayMiner", False)]


def test_suppliers_of_a_relay_miner_that_is_gone_are_let_go():
    found = plan(snapshot(relay_miner=None, suppliers=(gone(ALICE),), drain_anchor_uid=""))
    assert [(c.kind, c.name, c.wanted) for c in found.release] == [("Supplier", "alice", False)]


def test_where_somebody_removed_the_relay_miners_finalizer_its_suppliers_drain():
    left = {"relay_miner": None, "suppliers": (gone(ALICE),)}
    for reports in ((), (relayer_report(), miner_report(1)), (relayer_report(),)):
        assert not plan(snapshot(**left, reports=reports, quiet_since=QUIET)).release
    assert plan(snapshot(**left, reports=IDLE, quiet_since=QUIET)).release


def test_children_of_ours_that_are_not_wanted_are_deleted_and_those_of_others_are_not():
    owned = {"metadata": {"ownerReferences": [{"controller": True, "uid": "rm"}]}}
    other = {"metadata": {"ownerReferences": [{"controller": True, "uid": "another"}]}}
    children = {("Ingress", "main-relayer"): owned, ("Ingress", "x"): other, ("Service", "y"): {"metadata": {}}}
    assert plan(snapshot(children=children)).delete == (("Ingress", "main-relayer"),)


def test_pods_are_annotated_once_per_change_of_what_they_should_have():
    found = plan(snapshot())
    assert set(found.annotate) == {"main-relayer-1", "main-miner-0"}
    pods = tuple(replace(p, keys_digest=found.annotate[p.name]) for p in (POD, MINER_POD))
    assert plan(snapshot(pods=pods)).annotate == {}


@pytest.mark.parametrize(
    ("field", "reference"),
    [
        ("credentialsSecretRef", {"name": "r"}),
        ("caBundle", {"secretRef": {"name": "r", "key": "password"}}),
    ],
)
def test_a_missing_secret_that_pods_mount_for_redis_is_named(field, reference):
    resource = changed(RM, "spec.redis", {"url": "rediss://r:1/0", field: reference})
    for secrets, problem in (({}, "does not exist"), ({"r": SecretView({"other": "x"})}, "has no entry password")):
        found = plan(snapshot(relay_miner=resource, secrets=secrets)).blocked_by
        assert (found.reason, field in found.message, problem in found.message) == ("RedisSecretMissing", True, True)
    there = plan(snapshot(relay_miner=resource, secrets={"r": SecretView({"password": "secret"})}))
    assert there.blocked_by is None
    assert "secret" not in repr(there.blocked_by)


def test_a_missing_redis_secret_is_waited_for_without_touching_what_runs():
    resource = changed(RM, "spec.redis", {"urlSecretRef": {"name": "r", "key": "url"}})
    found = plan(snapshot(relay_miner=resource, secrets={"r": None}))
    assert found.blocked_by is not None
    assert (found.blocked_by.reason, found.wanted, found.delete) == (ConditionReason.REDIS_SECRET_MISSING, (), ())
    there = plan(snapshot(relay_miner=resource, secrets={"r": SecretView({"url": "redis://u:secret@r:1"})}))
    assert there.blocked_by is None
    assert "secret@" not in repr(there)


def test_a_resource_that_an_older_schema_let_in_stalls_with_the_field():
    broken = changed(RM, "spec.redis", {})
    found = plan(snapshot(relay_miner=broken))
    status = relay_miner_status(snapshot(relay_miner=broken), found)
    stalled = next(c for c in status.conditions if c.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "InvalidSpec")
    assert "spec.redis" in stalled.message


OF_ANOTHER_VERSION = changed(ALICE, "spec.key", {"vault": "a source that this version does not know"})


@pytest.mark.parametrize(
    ("spec", "serving"),
    [({}, True), ({"services": ["eth"]}, True), ({"services": "eth"}, False), ({"services": [7]}, False)],
)
def test_a_supplier_that_an_older_schema_let_in_stalls_and_goes_on_as_far_as_it_is_understood(spec, serving):
    resource = changed(OF_ANOTHER_VERSION, "spec", {**OF_ANOTHER_VERSION["spec"], **spec})
    seen = snapshot(suppliers=(resource,))
    found = plan(seen)
    assert published(found, "miner") == {address("alice")}
    assert published(found, "relayer") == ({address("alice")} if serving else set())
    assert (found.key_checks[0].reason, found.release) == (ConditionReason.INVALID_SPEC, ())
    stalled = next(c for c in supplier_status(found.key_checks[0], seen, found).conditions if c.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "InvalidSpec")


def test_a_supplier_of_another_version_gets_no_key_that_was_not_published_and_none_that_is_anothers():
    unpublished = plan(snapshot(suppliers=(OF_ANOTHER_VERSION,), published=None))
    anothers = plan(snapshot(suppliers=(OF_ANOTHER_VERSION,), owners={address("alice"): "older"}))
    for found, reason in ((unpublished, ConditionReason.INVALID_SPEC), (anothers, ConditionReason.KEY_IN_USE)):
        assert (published(found, "miner"), found.key_checks[0].reason) == (set(), reason)


def test_the_deletion_of_one_of_two_suppliers_with_the_same_address_does_not_drain_the_other():
    twin = changed(with_uid(gone(ALICE), "twin"), "metadata.name", "twin")
    seen = snapshot(
        suppliers=(ALICE, twin), owners={address("alice"): "alice"}, reports=(relayer_report(), miner_report(3))
    )
    found = plan(seen)
    told = [{c.reason for c in supplier_status(check, seen, found).conditions} for check in found.key_checks]
    assert ("Draining" in told[0], "KeyInUse" in told[1]) == (False, True)
    assert (published(found, "relayer"), [change.name for change in found.release]) == ({address("alice")}, ["twin"])


def test_a_supplier_whose_address_an_older_one_claims_is_mined_to_its_end_before_it_is_let_go():
    outdone = {**ALICE, "metadata": {**ALICE["metadata"], "finalizers": [names.FINALIZER]}}
    world = {"suppliers": (outdone,), "owners": {address("alice"): "o"}, "owner_names": {address("alice"): "eu/old"}}
    busy = snapshot(**world, reports=(relayer_report(), miner_report(2)), quiet_since={address("alice"): 10.0})
    found = plan(busy)
    assert (published(found, "relayer"), published(found, "miner")) == (set(), {address("alice")})
    assert found.release == ()
    ready = next(c for c in supplier_status(found.key_checks[0], busy, found).conditions if c.type == "Ready")
    assert ready.reason == "KeyInUse"
    assert "2 sessions are on their way" in ready.message
    assert "the older Supplier eu/old" in ready.message
    done = plan(snapshot(**world, reports=(relayer_report(), miner_report(0)), quiet_since={address("alice"): 10.0}))
    assert (published(done, "miner"), [change.name for change in done.release]) == (set(), ["alice"])


def test_conditions_keep_the_time_of_their_last_transition():
    first = supplier_status(plan(snapshot()).key_checks[0], snapshot(), plan(snapshot()))
    before = changed(ALICE, "status", first.model_dump(by_alias=True, mode="json", exclude_none=True))
    later = snapshot(now=NOW + timedelta(hours=1), suppliers=(before,))
    again = supplier_status(plan(later).key_checks[0], later, plan(later))
    assert [c.last_transition_time for c in again.conditions] == [c.last_transition_time for c in first.conditions]
    served = snapshot(
        now=NOW + timedelta(hours=1), suppliers=(before,), pods=(POD,),
        reports=(relayer_report(address("alice")), miner_report()),
    )  # fmt: skip
    well = supplier_status(plan(served).key_checks[0], served, plan(served))
    ready = next(c for c in well.conditions if c.type == "Ready")
    assert (ready.status, ready.last_transition_time) == ("True", "2026-01-01T01:00:00Z")


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        ({"staked": False}, "Staked", "NotStaked"),
        ({"stake": {"services": []}}, "Staked", "ServicesNotStaked"),
        ({"stake": {"services": ["eth"], "unstake_session_end_height": 9}}, "Staked", "Unstaking"),
        ({"lost_recently": 1, "last": {"loss": "s at 9: claim_missed: late"}}, "ClaimsHealthy", "SessionLost"),
        ({"balance_upokt": 999_999}, "ClaimsHealthy", "BalanceLow"),
        ({"balance_upokt": 10**7, "public_key_on_chain": False}, "ClaimsHealthy", "PublicKeyMissing"),
    ],
)
def test_what_the_chain_and_the_miner_say_becomes_a_condition_with_a_remedy(row, kind, reason):
    limited = changed(ALICE, "spec.services", ["eth"])
    seen = snapshot(suppliers=(limited,), reports=(relayer_report(address("alice")), miner_report(**row)))
    status = supplier_status(plan(seen).key_checks[0], seen, plan(seen))
    found = next(c for c in status.conditions if c.type == kind)
    assert (found.status, found.reason) == ("False", reason)
    assert found.message


@pytest.mark.parametrize(
    ("limit", "row", "told"),
    [
        (["eth"], {}, None),
        (["eth"], {"transports": {"eth": [3]}}, None),
        ([], {"stake": {"services": ["base", "eth"]}}, "base."),
        (["eth"], {"transports": {"eth": [1, 2, 3]}}, "eth over grpc, eth over webSocket."),
        ([], {"stake": {"services": ["base"]}, "transports": {"base": [3], "eth": [9]}}, "base, eth over type 9."),
    ],
)
def test_a_stake_for_more_than_is_served_is_told_and_hinders_nothing(limit, row, told):
    limited = changed(ALICE, "spec.services", limit) if limit else ALICE
    seen = snapshot(suppliers=(limited,), reports=(relayer_report(address("alice")), miner_report(**row)))
    status = supplier_status(plan(seen).key_checks[0], seen, plan(seen))
    found = next(c for c in status.conditions if c.type == "Staked")
    assert (found.status, found.reason) == ("True", "Staked" if told is None else "StakedServiceNotConfigured")
    assert told is None or f"served here: {told}" in found.message


@pytest.mark.parametrize(
    ("told", "status", "reason", "text"),
    [
        ([], "True", "Reachable", "Blocks arrive."),
        ([("ChainNodesDisagree", "n1"), ("GasPriceTooLow", "raise it")], "False", "GasPriceTooLow", "raise it"),
        ([("ChainNodesDisagree", "n1"), ("ClockSkewed", "slow")], "True", "ClockSkewed", "slow"),
        (
            [("ChainNodesDisagree", "n1"), ("ChainNodesDisagree", "n0")],
            "True",
            "ChainNodesDisagree",
            "Blocks arrive. n0 n1",
        ),
        ([("FromALaterVersion", "x")], "True", "Reachable", "Blocks arrive."),
    ],
)
def test_what_miners_say_of_the_nodes_is_told_and_only_refused_claims_make_it_not_ready(told, status, reason, text):
    miner = miner_report(chain=[{"reason": reason, "text": text} for reason, text in told])
    seen = snapshot(reports=(relayer_report(address("alice")), miner))
    conditions = {c.type: c for c in relay_miner_status(seen, plan(seen)).conditions}
    found = conditions["ChainReachable"]
    assert (found.status, found.reason) == (status, reason)
    assert text in found.message
    assert (conditions["Ready"].reason == "GasPriceTooLow") == (status == "False")


def test_earnings_and_events_are_gathered_from_all_miners_that_ever_mined():
    first = miner_report(earned_by={"op": 2, "owner": 3}, last={"claim": "a at 9", "settlement": "a at 20"})
    standby = miner_report(pod="main-miner-1", owned=(), earned_by={"owner": 6, "others": 1}, last={"claim": "b at 30"})
    seen = snapshot(reports=(relayer_report(address("alice")), first, standby))
    status = supplier_status(plan(seen).key_checks[0], seen, plan(seen))
    assert (status.earned_upokt, status.last.claim, status.last.settlement) == (12, "b at 30", "a at 20")
    assert [(row.recipient, row.upokt) for row in status.earned] == [("owner", 9), ("op", 2), ("others", 1)]


def test_recipients_in_the_status_are_bounded_and_nothing_of_them_is_lost():
    many = {f"shareholder {number}": number for number in range(1, 41)}
    seen = snapshot(reports=(relayer_report(address("alice")), miner_report(earned_by={**many, "others": 5})))
    status = supplier_status(plan(seen).key_checks[0], seen, plan(seen))
    assert len(status.earned) == 16
    assert sum(row.upokt for row in status.earned) == status.earned_upokt == sum(many.values()) + 5
    assert (status.earned[0].upokt, status.earned[-1].recipient) == (40, "others")


def test_nothing_that_is_printed_of_a_snapshot_or_plan_shows_a_key():
    text = repr(snapshot()) + repr(plan(snapshot()))
    assert key_of("alice") not in text
    assert base64.b64encode(key_of("alice").encode()).decode() not in text


def test_an_applied_child_as_the_api_server_returns_it_has_not_drifted():
    found = plan(snapshot())
    observed = {}
    for child in found.wanted:
        server = {**child, "status": {}, "metadata": {**child["metadata"], "uid": "u", "managedFields": []}}
        observed[child["kind"], child["metadata"]["name"]] = server
    assert drifted_children(found, observed) == []


@pytest.mark.parametrize(
    ("observed", "wanted", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"cpu": "500m"}, {"cpu": "0.5"}, True),
        ({"memory": "1Gi"}, {"memory": "1024Mi"}, True),
        ({"memory": "1Gi"}, {"memory": "1G"}, False),
        ({"a": True}, {"a": 1.0}, True),
        ({}, {"a": {}}, True),
        ({}, {"a": []}, True),
        ({}, {"a": 0}, False),
        ([{"name": "x", "v": 1}, {"name": "sidecar"}], [{"name": "x", "v": 1}], True),
        ([{"name": "y"}], [{"name": "x"}], False),
        (["a", "b"], ["a"], False),
        (["b", "a"], ["a", "b"], False),
        (None, {"a": 1}, False),
        ({}, {"a": False}, True),
        ({}, {"a": True}, False),
    ],
)
def test_what_others_add_is_no_drift_and_what_they_change_is(observed, wanted, same):
    assert is_subset(observed, wanted) is same


def test_a_field_that_is_no_longer_wanted_shows_in_the_digest():
    long, short = ({"metadata": {"name": "x"}, "spec": spec} for spec in ({"a": 1, "b": 2}, {"a": 1}))
    assert not drifted(with_digest(long), with_digest(long))
    assert drifted(with_digest(short), with_digest(long))
    assert drifted(with_digest(short), None)


@pytest.mark.parametrize(("wanted", "row", "kept"), [
    ({"template": {}}, {"manager": "m", "operation": "Apply"}, 5),
    ({"template": {}, "replicas": 1}, {"manager": "m", "operation": "Apply"}, None),
    ({"ports": []}, {"manager": "m", "operation": "Apply"}, None),
    ({"template": {}}, {"manager": "other", "operation": "Apply"}, None),
    ({"template": {}}, {"manager": "m", "operation": "Update"}, None),
    ({"template": {}}, {"manager": "m", "operation": "Apply", "fieldsV1": {"f:spec": {}}}, None),
    ({"template": {}}, {"manager": "m", "operation": "Apply", "subresource": "scale"}, None),
])  # fmt: skip
def test_replicas_that_we_own_are_handed_over_before_they_are_left_to_an_autoscaler(wanted, row, kept):
    fields = {"fieldsV1": {"f:spec": {"f:replicas": {}}}}
    observed = {"metadata": {"managedFields": [{**fields, **row}]}, "spec": {"replicas": 5}}
    assert replicas_to_keep({"spec": wanted}, observed, "m") == kept
    assert replicas_to_keep({"spec": wanted}, None, "m") is None


def child(kind, **body):
    return {"kind": kind, "apiVersion": "v1", "metadata": {"name": "n", "resourceVersion": "7"}, **body}


@pytest.mark.parametrize(("wanted", "observed", "patch"), [
    (child("Secret", data={"a": "1"}), child("Secret", data={"a": "1"}), None),
    (child("Secret", data={"a": "1"}), child("Secret", data={"a": "1", "b": "2"}), {"data": {"b": None}}),
    (child("Secret", data={}), child("Secret", data={"b": "2", "c": ""}), {"data": {"b": None, "c": None}}),
    (child("ConfigMap", data={"a": "1"}), child("ConfigMap", data={"a": "1"}, binaryData={"b": "2"}),
     {"binaryData": {"b": None}}),
    (child("Service", spec={"selector": {"a": "1"}}),
     child("Service", spec={"selector": {"x": "1"}, "type": "ClusterIP"}), {"spec": {"selector": {"x": None}}}),
    (child("PodDisruptionBudget", spec={"maxUnavailable": 1, "selector": {"matchLabels": {"a": "1"}}}),
     child("PodDisruptionBudget", spec={"minAvailable": 1, "selector": {"matchLabels": {"a": "1", "b": "2"}}}),
     {"spec": {"minAvailable": None, "selector": {"matchLabels": {"b": None}}}}),
    (child("Deployment", spec={"paused": False}), child("Deployment", spec={"more": 1}), None),
])  # fmt: skip
def test_entries_more_in_what_is_ours_alone_are_taken_out(wanted, observed, patch):
    assert foreign_fields(wanted, observed) == patch
    if patch is not None:
        assert drifted(wanted, observed)


def test_a_replacement_names_the_version_it_replaces_and_leaves_an_autoscaler_its_replicas():
    wanted = child("Deployment", spec={"template": {"spec": {}}})
    observed = child("Deployment", spec={"replicas": 5, "template": {"spec": {"added": "x"}}})
    version, spec = force_replace_patch(wanted, observed)
    assert version == {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
    assert spec == {"op": "add", "path": "/spec", "value": {"replicas": 5, "template": {"spec": {}}}}
    fixed = child("Deployment", spec={"replicas": 2, "template": {}})
    assert force_replace_patch(fixed, observed)[1]["value"]["replicas"] == 2


def test_a_relay_miner_whose_prefix_belongs_to_another_starts_nothing_and_finishes_what_is_deleted():
    found = plan(snapshot(prefix_owner="team/eu-main"))
    assert (found.blocked_by.reason, found.wanted, found.delete) == (ConditionReason.PREFIX_IN_USE, (), ())
    assert "the older RelayMiner team/eu-main" in found.blocked_by.message
    going = plan(snapshot(prefix_owner="team/eu-main", relay_miner=gone(RM)))
    assert going.blocked_by is None
    assert going.wanted


def test_relay_miners_with_the_same_default_prefix_concern_each_other():
    cache = ObjectCache()
    rows = [relay_miner("team", "eu-main"), relay_miner("team-eu", "main"), relay_miner("team-eu", "other")]
    for number, body in enumerate(rows):
        cache.put("RelayMiner", with_uid(body, str(number)))
    assert [row["metadata"]["namespace"] for row in cache.same_prefix(rows[0])] == ["team-eu"]
    both = {ReconcileKey("team", "eu-main"), ReconcileKey("team-eu", "main")}
    assert cache.drop("RelayMiner", with_uid(rows[0], "0")) == both
    assert cache.same_prefix(rows[1]) == []
