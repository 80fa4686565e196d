"""A supplier leaves on a positive statement alone: what vanished says nothing."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket_operator.decide.draining import REPORT_LATENCY_SECONDS, open_without_relay_miner
from pocket_operator.decide.plan import plan
from pocket_operator.decide.snapshot import SecretView
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources import names
from resources import address, changed, key_of
from snapshots import ALICE, MINER_POD, POD, RM, gone, miner_report, relayer_report, snapshot

ALICES = address("alice")
QUIET = {ALICES: 90.0}
HERE = SecretView({ALICES: key_of("alice")})
VANISHED = {"published": None, "reports": (), "pods": (), "secrets": {"alice-key": None}}


def recorded(resource, generation=1):
    return {**resource, "status": {"publishedGeneration": generation}}


@pytest.mark.parametrize("supplier", [gone(ALICE), recorded(gone(ALICE)), recorded(gone(ALICE, held=False))])
@pytest.mark.parametrize("lost", [
    VANISHED, {**VANISHED, "published": SecretView({})}, {**VANISHED, "published": HERE},
    {"published": None, "reports": ()}, {"published": None, "reports": (relayer_report(),)},
    {"published": SecretView({}), "reports": (relayer_report(),)}, {"published": None, "quiet_since": {}},
], ids=range(7))  # fmt: skip
def test_keys_pods_and_reports_that_vanish_together_let_no_supplier_go(supplier, lost):
    seen = snapshot(suppliers=(supplier,), **{"quiet_since": QUIET, **lost})
    found = plan(seen)
    assert not found.drains[ALICES].done
    assert found.release == ()
    whole = replace(seen, relay_miner=gone(RM))
    assert plan(whole).release == ()


@pytest.mark.parametrize("trace", [
    {"published": HERE}, {"reports": (relayer_report(ALICES),)}, {"reports": (miner_report(0, last_scan_began=99.0),)},
], ids=["published", "at a relayer", "at a miner"])  # fmt: skip
def test_one_trace_of_a_published_key_is_enough_to_wait_where_supplier_and_status_lost_theirs(trace):
    seen = snapshot(suppliers=(gone(ALICE, held=False),), **{**VANISHED, "quiet_since": QUIET, **trace})
    assert plan(seen).drains[ALICES].reason != "its key was never published"


def test_what_is_waited_for_and_the_way_out_are_told():
    seen = snapshot(suppliers=(gone(ALICE),), **VANISHED)
    told = str(supplier_status(plan(seen).key_checks[0], seen, plan(seen)).conditions)
    assert "its open sessions are unknown" in told
    assert "pocket.network/force-delete=true" in told


def test_a_lost_key_set_is_made_again_for_what_drains_so_that_a_miner_can_tell():
    found = plan(snapshot(suppliers=(gone(ALICE),), published=None, reports=()))
    keys = {child["metadata"]["name"]: set(child["data"]) for child in found.wanted if child["kind"] == "Secret"}
    assert keys == {names.keys("main", "miner"): {ALICES}, names.keys("main", "relayer"): set()}


def test_the_annotation_and_the_deadline_let_go_also_where_all_has_vanished():
    forced = changed(gone(ALICE), "metadata.annotations", {names.ANNOTATION_FORCE_DELETE: "true"})
    assert plan(snapshot(suppliers=(forced,), **VANISHED)).release
    assert plan(snapshot(suppliers=(gone(ALICE, 1_000_000),), **VANISHED)).release


@pytest.mark.parametrize("value", ["false", "", "True", "yes"])
def test_an_annotation_with_another_value_forces_nothing(value):
    kept = changed(gone(ALICE), "metadata.annotations", {names.ANNOTATION_FORCE_DELETE: value})
    assert plan(snapshot(suppliers=(kept,), **VANISHED)).release == ()


def test_every_miner_that_mines_for_a_supplier_has_to_report_its_sessions():
    both = (relayer_report(), miner_report(0, last_scan_began=99.0), miner_report(0, pod="main-miner-1"))
    silent = replace(both[2], answer=both[2].answer.model_copy(update={"suppliers": {}}))
    seen = snapshot(suppliers=(gone(ALICE),), quiet_since=QUIET, reports=both)
    assert plan(seen).drains[ALICES].done
    found = plan(replace(seen, reports=(*both[:2], silent)))
    assert not found.drains[ALICES].done
    assert found.release == ()


def test_a_published_key_of_another_address_is_not_handed_to_pods_again():
    for published, kept in ((key_of("alice"), key_of("alice")), (key_of("bob"), None), ("no key", None)):
        seen = snapshot(secrets={"alice-key": None}, published=SecretView({ALICES: published}))
        assert plan(seen).key_checks[0].key_hex == kept


@pytest.mark.parametrize("more", [{"published": None, "reports": ()}, {"published": SecretView({})}])
def test_a_supplier_that_was_never_published_holds_no_relay_miner(more):
    """The finalizer comes before the key, and the status records it: without both no pod ever had it."""
    found = plan(snapshot(relay_miner=gone(RM), secrets={"alice-key": None}, **more))
    assert found.drains[ALICES].reason == "its key was never published"
    assert [(change.kind, change.wanted) for change in found.release] == [("RelayMiner", False)]


def test_that_a_key_was_published_is_recorded_and_stays_recorded():
    seen = snapshot()
    status = supplier_status(plan(seen).key_checks[0], seen, plan(seen))
    assert status.published_generation == 1
    later = {"suppliers": (recorded(gone(ALICE), 3),)}
    for lost in ({}, VANISHED, {"relay_miner": None}, {"relay_miner": changed(RM, "spec.paused", True)}):
        seen = snapshot(**{**later, **lost})
        assert supplier_status(plan(seen).key_checks[0], seen, plan(seen)).published_generation >= 1
    for never in ({"secrets": {"alice-key": None}, "published": None}, {"owners": {ALICES: "older"}}):
        seen = snapshot(**never)
        assert supplier_status(plan(seen).key_checks[0], seen, plan(seen)).published_generation == 0


def test_open_sessions_are_those_that_were_reported_last_while_nobody_reports():
    supplier = {**ALICE, "status": {"openSessions": 3}}
    for reports, told in ((), 3), ((miner_report(2),), 2), ((miner_report(0),), 0):
        seen = snapshot(suppliers=(supplier,), reports=reports)
        assert supplier_status(plan(seen).key_checks[0], seen, plan(seen)).open_sessions == told


def test_a_relay_miner_waits_for_open_sessions_of_suppliers_that_somebody_removed():
    def released(relay_miner, *reports):
        return bool(plan(snapshot(relay_miner=relay_miner, suppliers=(), reports=reports)).release)

    forced = changed(gone(RM), "metadata.annotations", {names.ANNOTATION_FORCE_DELETE: "true"})
    assert not released(gone(RM), miner_report(3))
    assert released(gone(RM), miner_report(0))
    assert released(gone(RM), miner_report(3, owned=()))
    assert released(forced, miner_report(3))
    assert released(gone(RM, 1_000_000), miner_report(3))


def test_two_miners_that_both_mine_for_a_supplier_must_both_have_nothing_open():
    def released(*reports):
        return plan(snapshot(suppliers=(gone(ALICE),), reports=(relayer_report(), *reports), quiet_since=QUIET)).release

    idle, busy = miner_report(), miner_report(3, pod="main-miner-1")
    assert released(idle)
    assert not released(idle, busy)
    assert not released(busy, idle)
    assert not released(idle, miner_report(pod="main-miner-1", last_scan_began=91.0))
    assert released(idle, miner_report(pod="main-miner-1"))


relayers = st.sampled_from([
    relayer_report(), relayer_report(ALICES), relayer_report(leaving=[ALICES]), relayer_report(complete=False),
])  # fmt: skip
miners = st.builds(
    miner_report, st.integers(0, 2), pod=st.sampled_from(["main-miner-0", "main-miner-1"]),
    last_scan_began=st.sampled_from([None, 85.0, 92.5, 92.6, 99.0]), owned=st.sampled_from([(), ("alice",), ("bob",)]),
)  # fmt: skip


@settings(max_examples=examples(80), deadline=None)
@given(
    held=st.booleans(), published=st.sampled_from([None, SecretView({}), HERE]), deleted=st.booleans(),
    key=st.sampled_from([None, SecretView({}), SecretView({"hex": key_of("alice")})]),
    reports=st.lists(relayers | miners, max_size=4),
    pods=st.sets(st.sampled_from([POD, replace(POD, ready=False), replace(POD, ready=False, restarts=1), MINER_POD])),
    quiet=st.sampled_from([{}, QUIET]),
)  # fmt: skip
def test_whatever_is_lost_nothing_goes_before_every_miner_of_it_says_that_nothing_is_open(
    held, published, deleted, key, reports, pods, quiet
):
    supplier = recorded(gone(ALICE, held=held))
    found = plan(snapshot(
        suppliers=(supplier,), relay_miner=gone(RM) if deleted else RM, published=published,
        secrets={"alice-key": key}, reports=tuple(reports), pods=tuple(pods), quiet_since=quiet,
    ))  # fmt: skip
    owners = [report for report in reports if report.owns(ALICES)]
    since = quiet.get(ALICES, 100.0)
    settled = owners and all(
        report.supplier(ALICES).open == 0 and report.last_scan_began(ALICES) > since + REPORT_LATENCY_SECONDS
        for report in owners
    )
    if not settled:
        assert not found.drains[ALICES].done
        assert found.release == ()


def test_miners_without_their_relay_miner_go_on_until_every_one_reports_that_nothing_is_open():
    def waits(quiet_since=50.0, **more):
        left = {"relay_miner": None, "suppliers": (), "pods": (MINER_POD,)}
        return open_without_relay_miner(snapshot(**{**left, **more}), quiet_since)

    idle, busy = miner_report(0), miner_report(1)
    assert "still runs" in waits(pods=(POD, MINER_POD), reports=(idle,))
    assert "has not reported" in waits(reports=())
    assert "has not reported" in waits(reports=(idle,), quiet_since=99.0)
    assert "1 sessions" in waits(reports=(busy,))
    assert "has yet to scan" in waits(reports=(miner_report(last_scan_began=51.0),))
    assert not waits(reports=(idle,))
    assert not waits(pods=(), reports=())
