"""What the operator tells and counts at the bounds of its rules, and of what is not reported at all."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.api.miner_status import EndedSession
from pocket.api.status import MOST_RECIPIENTS, OTHERS
from pocket_operator.decide.books import Books
from pocket_operator.decide.conditions import few
from pocket_operator.decide.draining import REPORT_LATENCY_SECONDS, open_without_relay_miner
from pocket_operator.decide.earned import earnings
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import PodReportBody, RecentRelays, Report, ReportedDay, ReportedSupplier
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.schemas import GROUP, VERSION, Schemas
from pocket_operator.decide.snapshot import LONGEST_PROBLEM, Pod
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.decide.workloads import (
    annotation_of,
    image_of,
    is_rolling,
    partition_of,
    serves,
    wanted_replicas,
)
from pocket_operator.resources import names
from resources import address, changed
from snapshots import ALICE, MINER_POD, RM, gone, miner_report, relayer_report, snapshot

SITUATIONS = runpy.run_path(str(Path(__file__).with_name("test_condition_reasons.py")))["SITUATIONS"]
ABNORMAL = ("Reconciling", "Stalled", "Paused")


@pytest.mark.parametrize(("of", "change"), [row[:2] for row in SITUATIONS])
def test_an_abnormal_condition_has_a_message_exactly_while_it_holds(of, change):
    seen = snapshot(**change)
    decided = plan(seen)
    status = relay_miner_status(seen, decided) if of == "rm" else supplier_status(decided.key_checks[0], seen, decided)
    for row in status.conditions:
        if row.type in ABNORMAL:
            assert bool(row.message) == (row.status == "True"), row
            assert row.reason.startswith("Not") == (row.status == "False"), row
        elif row.type not in ("OperatorConflict", "SchemaCurrent"):
            assert row.message, row


@pytest.mark.parametrize("number", range(9))
def test_five_names_are_listed_and_how_many_more_there_are(number):
    listed = few([f"x{at}" for at in range(number)], "; ")
    assert listed.count("x") == min(number, 5)
    assert listed.partition(" and ")[2] == (f"{number - 5} more" if number > 5 else "")
    assert listed.count(";") == max(0, min(number, 5) - 1)


def test_what_a_report_does_not_name_counts_as_nothing():
    """An older miner lacks what a newer one reports."""
    row, day, recent = ReportedSupplier(open=0), ReportedDay(date="2026-01-01"), RecentRelays()
    assert (row.closing, row.lost_recently, row.staked, row.balance_upokt, row.fees_per_day_upokt) == (
        0,
        0,
        *[None] * 3,
    )
    assert (day.fees_upokt, day.settled, day.lost) == (0, 0, 0)
    assert (recent.served, recent.failed, recent.timed, recent.seconds) == (0, 0, 0, 0)
    body = PodReportBody(component=names.MINER)
    assert (body.height, body.complete, body.keys, body.problems, body.owned) == (0, True, "", (), frozenset())
    assert not Report(MINER_POD.name, body, 0.0).owns(address("alice"))
    sums = row.sessions.model_dump()
    assert not any(sums.values()), sums
    assert Report.of(MINER_POD.name, {"component": names.MINER}).at == 0.0


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("number", [MOST_RECIPIENTS - 1, MOST_RECIPIENTS, MOST_RECIPIENTS + 1])
def test_earnings_are_the_largest_and_the_sum_of_the_rest_and_nothing_is_lost(number, others):
    total = {f"pokt1{at:04}": at + 1 for at in range(number)} | ({OTHERS: 7} if others else {})
    rows = earnings([total])
    assert len(rows) == min(number + others, MOST_RECIPIENTS)
    assert sum(row.upokt for row in rows) == sum(total.values())
    own = [row for row in rows if row.recipient != OTHERS]
    assert [row.upokt for row in own] == list(range(number, number - len(own), -1))


@pytest.mark.parametrize("end", [90, None])
def test_outcomes_up_to_the_counted_number_are_not_counted_again(end):
    """Without its height a session is not remembered: only its number tells that it was counted."""
    rows = [
        EndedSession(
            number=number, supplier="s", session_id=f"{number}" * 64, end=end, height=100, time="2026-01-01T00:00:00Z",
            outcome="settled", paid=True, earned_by={"owner": 10}, fees_upokt=1,
        )
        for number in (1, 2, 3)
    ]  # fmt: skip
    once = Books().counted("trail", rows)
    assert sum(once.earned_by.values()) == 30
    for again in (rows[2:], rows[1:], rows):
        assert once.counted("trail", again) == once
    assert Books().counted("trail", rows[:2]).counted("trail", rows[1:]) == once


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 50), st.booleans(), st.booleans()), max_size=30),
    st.integers(0, 5),
)  # fmt: skip
def test_days_and_fees_are_the_sums_of_their_outcomes_and_the_mean_is_of_complete_days(outcomes, adopted):
    rows = [
        EndedSession(
            number=number, supplier="s", session_id=f"{number:064}", end=number, height=number, fees_upokt=fees,
            outcome="settled", paid=paid, lost=lost, earned_by={"owner": 3}, time=f"2026-01-{day:02}T00:00:00Z",
        )
        for number, (day, fees, paid, lost) in enumerate(sorted(outcomes), start=1)
    ]  # fmt: skip
    books = Books().counted("trail", rows)
    by_day = {}
    for day, *_ in outcomes:
        by_day[f"2026-01-{day:02}"] = sum(fees for other, fees, *_ in outcomes if other == day)
    last = dict(sorted(by_day.items())[-8:])
    assert books.fees == last
    complete = list(last.values())[:-1]
    assert books.fees_per_day_upokt == (-(-sum(complete) // len(complete)) if complete else None)
    if outcomes:
        newest = max(day for day, *_ in outcomes)
        of_it = [row for row in outcomes if row[0] == newest]
        assert (books.day.date, books.day.fees_upokt) == (f"2026-01-{newest:02}", sum(row[1] for row in of_it))
        assert (books.day.settled, books.day.lost) == (sum(row[2] for row in of_it), sum(row[3] for row in of_it))
        assert books.day.earned_by == {"owner": 3 * len(of_it)}
    report = ReportedSupplier(open=0, fees_by_day={"2026-01-12": adopted}, earned_by={"owner": 5})
    both = books.adopted("another", 9, report)
    assert both.fees == dict(sorted({**last, "2026-01-12": last.get("2026-01-12", 0) + adopted}.items())[-8:])
    assert both.earned_by == {"owner": 3 * len(rows) + 5}


@pytest.mark.parametrize(("late", "waits"), [(0.0, True), (0.1, False)])
def test_a_report_and_a_scan_count_only_if_they_began_after_the_last_relayer_was_gone(late, waits):
    since = 50.0 + REPORT_LATENCY_SECONDS + late
    left = snapshot(relay_miner=None, suppliers=(), pods=(MINER_POD,))
    arrived = replace(miner_report(last_scan_began=None), at=since)
    found = open_without_relay_miner(replace(left, reports=(arrived,)), 50.0)
    assert ("has not reported" in found) == waits
    scanned = miner_report(last_scan_began=since)
    assert ("has yet to scan" in open_without_relay_miner(replace(left, reports=(scanned,)), 50.0)) == waits


def api_pod(**status):
    return Pod.of(
        {"metadata": {"name": "p", "uid": "u", "labels": {names.LABEL_COMPONENT: names.MINER}}, "status": status}
    )


def test_a_pod_is_read_as_kubernetes_writes_it():
    empty = api_pod()
    assert (empty.ready, empty.restarts, empty.problem, empty.ready_changed_at, empty.deleting) == (
        False,
        0,
        "",
        None,
        False,
    )
    for state in ("True", "False", "Unknown"):
        found = api_pod(conditions=[{"type": "Ready", "status": state, "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        assert found.ready == (state == "True")
        assert found.ready_changed_at is not None
    several = api_pod(
        containerStatuses=[{"name": "a", "restartCount": 2}, {"name": "b", "restartCount": 3}, {"name": "c"}]
    )
    assert several.restarts == 5


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"conditions": [{"type": "PodScheduled", "status": "True", "reason": "R", "message": "m"}]}, ""),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "R", "message": "m"}]}, "R: m"),
        ({"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, ""),
        ({"initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]}, ""),
        ({"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ErrImagePull"}}}]}, "c: ErrImagePull"),
        (
            {"containerStatuses": [{
                "name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"message": "first\nwhat it died of\n"}},
            }]},
            "c: CrashLoopBackOff: what it died of",
        ),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "message": "x" * 9999}]}, LONGEST_PROBLEM),
    ],
)  # fmt: skip
def test_the_first_thing_that_prevents_a_pod_is_told_in_kubernetes_words(status, told):
    found = api_pod(**status).problem
    assert found == told if isinstance(told, str) else len(found) == told


def test_the_published_endpoint_is_the_one_that_the_service_has():
    for relay_miner in (RM, changed(RM, "spec.relayer.service", {"port": 8080})):
        seen = snapshot(relay_miner=relay_miner)
        decided = plan(seen)
        (service,) = (
            child for child in decided.wanted
            if child["kind"] == "Service" and child["metadata"]["name"] == names.relayer("main")
        )  # fmt: skip
        port = service["spec"]["ports"][0]["port"]
        assert relay_miner_status(seen, decided).endpoint == f"http://main-relayer.ns.svc:{port}"


WHOLE = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3}


def controlled(without="", **status):
    """Return a workload of three replicas as its controller reports it, which leaves out zeros."""
    reported = {name: number for name, number in {**WHOLE, **status}.items() if number and name != without}
    return {"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": reported}


@pytest.mark.parametrize(
    ("workload", "rolling", "serving"),
    [
        (controlled(), False, True), (controlled(observedGeneration=1), True, True),
        (controlled(replicas=4), True, True),
        (controlled(updatedReplicas=2), True, True), (controlled(readyReplicas=2), True, False),
        *((controlled(without=name), True, name != "readyReplicas") for name in WHOLE if name != "replicas"),
        (None, True, False), ({"metadata": {}, "spec": {"replicas": 0}}, False, False),
        ({"metadata": {}, "spec": {"replicas": 1}, "status": {"readyReplicas": 1}}, True, True),
    ],
)  # fmt: skip
def test_a_workload_rolls_until_its_controller_has_seen_updated_and_readied_all(workload, rolling, serving):
    assert (is_rolling(workload), serves(workload)) == (rolling, serving)


def test_what_the_controllers_count_of_a_missing_workload_is_none():
    assert (wanted_replicas(None), partition_of(None), image_of(None), annotation_of(None, "a")) == (0, 0, "", "")
    assert (wanted_replicas({}), partition_of({"spec": {}}), image_of({"spec": {}})) == (0, 0, "")


@pytest.mark.parametrize(
    ("pod", "told"),
    [
        (replace(MINER_POD, ready=False, problem="ErrImage"), True),
        (replace(MINER_POD, ready=False, problem="ErrImage", deleting=True), False),
        (replace(MINER_POD, problem="a sidecar waits"), False),
        (replace(MINER_POD, ready=False, problem="ErrImage", component=names.CONSOLE), False),
    ],
)
def test_the_problem_of_a_pod_that_should_be_ready_is_told(pod, told):
    seen = snapshot(pods=(pod,), reports=(relayer_report(address("alice")), miner_report()))
    found = {row.type: row for row in relay_miner_status(seen, plan(seen)).conditions}["Ready"]
    assert ((found.reason, pod.problem in found.message) == ("PodsNotReady", True)) == told


@pytest.mark.parametrize("published", [True, False])
def test_a_broken_source_says_whether_the_last_good_key_stays_in_use(published):
    known = {} if published else {"published": None}
    seen = snapshot(secrets={"alice-key": None}, **known)
    check = plan(seen).key_checks[0]
    assert (check.key_hex is not None, "The last good key stays in use." in check.message) == (published, published)


def test_open_sessions_of_a_supplier_that_nobody_has_reported_are_none():
    seen = snapshot(reports=())
    assert supplier_status(plan(seen).key_checks[0], seen, plan(seen)).open_sessions == 0


def test_a_workload_without_a_status_has_no_ready_pods():
    made = {("Deployment", names.relayer("main")): {
        "metadata": {"name": names.relayer("main"), "generation": 1},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [{"image": "i"}]}}},
    }}  # fmt: skip
    seen = snapshot(children=made)
    status = relay_miner_status(seen, plan(seen))
    assert (status.relayers.summary, status.relayers.ready, status.relayers.replicas) == ("0/3", 0, 0)
    assert (status.miners.summary, status.miners.ready) == ("", 0)


def test_a_document_with_the_same_kinds_or_more_covers_another():
    two, one = Schemas({"RelayMiner": {}, "Supplier": {}}), Schemas({"RelayMiner": {}})
    assert [two.covered_by(two), one.covered_by(two), two.covered_by(one)] == [True, True, False]
    assert [Schemas().covered_by(Schemas()), Schemas().covered_by(one)] == [False, True]


HELD = changed(ALICE, "metadata.finalizers", [names.FINALIZER])


@pytest.mark.parametrize(
    ("relay_miner", "supplier", "added"),
    [
        (RM, ALICE, {"Supplier", "RelayMiner"}),
        (RM, HELD, {"RelayMiner"}),
        (changed(RM, "metadata.finalizers", [names.FINALIZER]), HELD, set()),
        (changed(RM, "metadata.finalizers", [names.FINALIZER]), ALICE, {"Supplier"}),
        (RM, gone(ALICE, held=False), {"RelayMiner"}),
        (gone(RM), ALICE, {"Supplier"}),
        (gone(RM, held=False), HELD, set()),
    ],
)
def test_finalizers_are_added_once_and_to_nothing_that_goes(relay_miner, supplier, added):
    found = plan(snapshot(relay_miner=relay_miner, suppliers=(supplier,), reports=(relayer_report(), miner_report(1))))
    assert {change.kind for change in found.protect} == added
    assert all(change.wanted for change in found.protect)


@pytest.mark.parametrize(("replicas", "canary"), [(None, True), (1, True), (0, False)])
def test_a_canary_needs_relayers_that_a_bad_revision_could_harm(replicas, canary):
    steady = changed(RM, "spec.relayer", {"rollout": {"strategy": "Canary"}, "workers": 2})
    steady = steady if replicas is None else changed(steady, "spec.relayer.replicas", replicas)
    children = {(row["kind"], row["metadata"]["name"]): row for row in plan(snapshot(relay_miner=steady)).wanted}
    edited = changed(steady, "spec.relayer.workers", 3)
    assert (plan(snapshot(relay_miner=edited, children=children)).rollout.canary is not None) == canary


@pytest.mark.parametrize("known", [True, False])
def test_the_address_of_a_supplier_is_shown_once_its_key_is_proven(known):
    seen = snapshot() if known else snapshot(secrets={"alice-key": None}, published=None)
    assert supplier_status(plan(seen).key_checks[0], seen, plan(seen)).address == (address("alice") if known else "")


@pytest.mark.parametrize(
    ("group", "version", "fields"),
    [
        ("other", VERSION, ("spec",)),
        (GROUP, "v1", ("spec",)),
        (GROUP, VERSION, ("items",)),
        (GROUP, VERSION, ("spec",)),
    ],
)
def test_a_definition_is_ours_by_group_version_and_a_spec(group, version, fields):
    named = {"group": group, "version": version, "kind": "Supplier"}
    schema = {"x-kubernetes-group-version-kind": [named], "properties": {name: {} for name in fields}}
    found = Schemas.of({"components": {"schemas": {"x": schema}}})
    assert bool(found.installed) == ((group, version, fields) == (GROUP, VERSION, ("spec",)))


@pytest.mark.parametrize(("services", "handed"), [(["eth"], ("eth",)), (None, ())])
def test_a_key_is_handed_to_pods_with_the_services_that_it_is_limited_to(services, handed):
    limited = changed(ALICE, "spec.services", services) if services else ALICE
    (published,) = plan(snapshot(suppliers=(limited,))).context.suppliers
    assert (published.services, published.draining) == (handed, False)


def test_no_finalizer_is_added_where_no_key_is_published():
    assert plan(snapshot(secrets={"alice-key": None}, published=None)).protect == ()
