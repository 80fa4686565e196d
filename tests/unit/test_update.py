"""New default images reach one RelayMiner after the other, relayers before miners, and miners one at a time."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket_operator.decide.plan import plan
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.snapshot import Pod, Settings, Turn, UpdateStep
from pocket_operator.decide.update import UpdatePhase, candidate_of, next_turn, plan_update, target_of
from pocket_operator.resources import names
from pocket_operator.resources.context import Images
from resources import changed
from snapshots import RM, miner_report, snapshot

OLD = Images(relayer="r:1", miner="m:1")
NEW = Images(relayer="r:2", miner="m:2")
RELEASE = Settings(images=NEW)
TARGET = target_of(RELEASE)
GO = Turn(True)
DELAY = 60.0


def workload(kind, component, image, replicas=1, **status):
    full = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas}
    return {
        "kind": kind, "metadata": {"name": f"main-{component}", "generation": 1,
                                  "annotations": {names.ANNOTATION_RENDERING: RELEASE.rendering}},
        "spec": {"replicas": replicas, "updateStrategy": {"rollingUpdate": {"partition": 0}},
                 "template": {"spec": {"containers": [{"image": image}]}}},
        "status": full | status | ({"replicas": status["pods"]} if "pods" in status else {}),
    }  # fmt: skip


def deployment(image="r:1", replicas=2, **status):
    return {("Deployment", "main-relayer"): workload("Deployment", "relayer", image, replicas, **status)}


def stateful(image="m:1", replicas=3, partition=0, to="", **status):
    found = workload("StatefulSet", "miner", image, replicas, **status)
    found["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = partition
    if to:
        found["metadata"]["annotations"][names.ANNOTATION_UPDATE] = to
    return {("StatefulSet", "main-miner"): found}


def update(children, other_release=(), **more):
    seen = snapshot(**{"settings": RELEASE, "children": children, "turn": GO, "pods": (), **more})
    return plan_update(seen, other_release, 600)


def images(found):
    return found.images.relayer, found.images.miner


def test_an_image_that_somebody_changed_by_hand_is_not_an_older_release():
    changed_by_hand = deployment("r:2") | stateful("m:2")
    for child in changed_by_hand.values():
        child["metadata"].setdefault("annotations", {})[names.ANNOTATION_IMAGE] = child["spec"]["template"]["spec"][
            "containers"
        ][0]["image"]
        child["spec"]["template"]["spec"]["containers"][0]["image"] = "somebody's"
    found = update(changed_by_hand)
    assert (images(found), found.phase) == (("r:2", "m:2"), UpdatePhase.NONE)


def test_new_relay_miners_and_own_images_are_not_staged():
    assert update({}) == update(deployment("r:2") | stateful("m:2"))
    assert update({}).phase is UpdatePhase.NONE
    own = changed(changed(RM, "spec.relayer.image", "r:1"), "spec.miner.image", "m:1")
    assert update(deployment() | stateful(), relay_miner=own).phase is UpdatePhase.NONE
    own_miner = changed(RM, "spec.miner.image", "m:1")
    for turn, phase in ((GO, UpdatePhase.RELAYERS), (Turn(False, "another"), UpdatePhase.QUEUED)):
        found = update(deployment() | stateful(partition=2), relay_miner=own_miner, turn=turn)
        assert (found.phase, found.partition) == (phase, 0), "its owner's image reaches every miner"


def test_without_its_turn_nothing_changes_and_the_status_names_the_one_before():
    found = update(deployment() | stateful(), turn=Turn(False, "RelayMiner ns/a is updated first"))
    assert (images(found), found.phase, found.started) == (("r:1", "m:1"), UpdatePhase.QUEUED, False)
    assert found.message == "RelayMiner ns/a is updated first"


def test_a_supervised_relay_miner_waits_for_the_approval_of_this_very_update():
    supervised = changed(RM, "spec.updateStrategy", "supervised")
    for value in ("", target_of(Settings(images=OLD))):
        waiting = changed(supervised, "metadata.annotations", {names.ANNOTATION_APPROVE_UPDATE: value})
        found = update(deployment() | stateful(), relay_miner=waiting)
        assert (images(found), found.phase) == (("r:1", "m:1"), UpdatePhase.AWAITING_APPROVAL)
        assert f"kubectl -n ns annotate rm main pocket.network/approve-update={TARGET} --overwrite" in found.message
        assert not candidate_of(("ns", "main"), waiting, deployment() | stateful(), RELEASE, idle=False).may_start
    begun = deployment("r:2") | stateful(to=TARGET)
    assert update(begun, relay_miner=supervised).phase is UpdatePhase.MINERS  # what began is finished
    approved = changed(supervised, "metadata.annotations", {names.ANNOTATION_APPROVE_UPDATE: TARGET})
    assert update(deployment() | stateful(), relay_miner=approved).phase is UpdatePhase.RELAYERS
    assert candidate_of(("ns", "main"), approved, deployment() | stateful(), RELEASE, idle=False).may_start


@pytest.mark.parametrize("status", [
    {"readyReplicas": 1}, {"updatedReplicas": 1}, {"pods": 3}, {"observedGeneration": 0},
])  # fmt: skip
def test_miners_wait_until_all_relayers_are_replaced(status):
    found = update(deployment("r:2", **status) | stateful(to=TARGET))
    assert (images(found), found.phase, found.partition) == (("r:2", "m:1"), UpdatePhase.RELAYERS, 0)


def test_miners_wait_for_the_canary_of_the_relayers_and_its_failure_is_the_updates():
    canary = {("Deployment", "main-relayer-canary"): workload("Deployment", "relayer", "r:2")}
    children = deployment() | stateful(to=TARGET) | canary
    assert images(update(children)) == ("r:2", "m:1")
    canary["Deployment", "main-relayer-canary"]["metadata"]["annotations"][names.ANNOTATION_FAILED] = "too slow"
    failed = update(children)
    assert (failed.phase, failed.started) == (UpdatePhase.FAILED, True)
    assert "too slow" in failed.message


@pytest.mark.parametrize(("children", "partition", "phase"), [
    (stateful(to=TARGET), 2, UpdatePhase.MINERS),
    (stateful("m:2", partition=2, to=TARGET, updatedReplicas=0), 2, UpdatePhase.MINERS),
    (stateful("m:2", partition=2, to=TARGET, updatedReplicas=1, readyReplicas=2), 2, UpdatePhase.MINERS),
    (stateful("m:2", partition=2, to=TARGET, updatedReplicas=1, observedGeneration=0), 2, UpdatePhase.MINERS),
    (stateful("m:2", partition=2, to=TARGET, updatedReplicas=1), 1, UpdatePhase.MINERS),
    (stateful("m:2", partition=2), 0, UpdatePhase.NONE),  # by hand, without an update
    (stateful("m:2", partition=1, to=TARGET, updatedReplicas=2), 0, UpdatePhase.MINERS),
    (stateful("m:2", to=TARGET, updatedReplicas=2), 0, UpdatePhase.MINERS),
    (stateful("m:2", to=TARGET), 0, UpdatePhase.NONE),
    (stateful(replicas=1, to=TARGET), 0, UpdatePhase.MINERS),
])  # fmt: skip
def test_the_next_miner_starts_once_those_before_it_are_ready(children, partition, phase):
    found = update(deployment("r:2") | children)
    assert (images(found), found.partition, found.phase) == (("r:2", "m:2"), partition, phase)


MINERS = tuple(Pod(f"main-miner-{n}", f"u{n}", names.MINER, ready=True, deleting=False) for n in range(2))


def test_no_miner_restarts_while_claims_or_proofs_are_due_soon_or_a_ready_one_has_not_reported():
    silent = miner_report(pod="main-miner-1", owned=())
    for reports in ((miner_report(3, closing=2), silent), (miner_report(3),), ()):
        waits = {"pods": MINERS, "reports": reports}
        before = update(deployment("r:2") | stateful(to=TARGET), **waits)
        assert (images(before), before.phase) == (("r:2", "m:1"), UpdatePhase.WAITING_FOR_WINDOWS)
        between = update(deployment("r:2") | stateful("m:2", partition=2, to=TARGET, updatedReplicas=1), **waits)
        assert (between.partition, between.phase) == (2, UpdatePhase.WAITING_FOR_WINDOWS)
    assert "owes 2 claims or proofs" in update(
        deployment("r:2") | stateful(to=TARGET), pods=MINERS, reports=(miner_report(3, closing=2), silent)
    ).message  # fmt: skip
    for reports in ((miner_report(3), silent), (miner_report(3, closing=2, owned=()), silent)):
        after = update(deployment("r:2") | stateful(to=TARGET), pods=MINERS, reports=reports)
        assert (images(after), after.partition) == (("r:2", "m:2"), 2)
    nobody = tuple(replace(pod, ready=False) for pod in MINERS)
    assert update(deployment("r:2") | stateful(to=TARGET), pods=nobody).phase is UpdatePhase.MINERS


def test_a_step_that_takes_longer_than_the_deadline_failed_and_may_still_finish():
    rolling = deployment("r:2", readyReplicas=1) | stateful(to=TARGET)
    step = update(rolling).step
    late = {"update_step": UpdateStep(step, 0.0)}
    assert update(rolling, clock=599.0, **late).phase is UpdatePhase.RELAYERS
    failed = update(rolling, clock=600.0, **late)
    assert (failed.phase, images(failed)) == (UpdatePhase.FAILED, ("r:2", "m:1"))
    assert failed.message.startswith("not ready within 600 s")
    assert update(rolling, clock=600.0, update_step=UpdateStep("another", 0.0)).phase is UpdatePhase.RELAYERS
    assert update(deployment("r:2") | stateful(to=TARGET), clock=600.0, **late).phase is UpdatePhase.MINERS


def test_while_it_is_deleted_images_and_partition_stay():
    gone = changed(RM, "metadata.deletionTimestamp", "2026-01-01T00:00:00Z")
    found = update(deployment() | stateful(partition=1), relay_miner=gone)
    assert (images(found), found.partition, found.phase) == (("r:1", "m:1"), 1, UpdatePhase.NONE)


def test_children_and_status_show_the_step():
    children = deployment("r:2") | stateful(to=TARGET)
    seen = snapshot(settings=RELEASE, children=children, turn=GO, pods=())
    decided = plan(seen)
    (miners,) = (child for child in decided.wanted if child["metadata"]["name"] == "main-miner" and "spec" in child
                 and child["kind"] == "StatefulSet")  # fmt: skip
    assert miners["metadata"]["annotations"][names.ANNOTATION_UPDATE] == TARGET
    assert miners["spec"]["updateStrategy"]["rollingUpdate"] == {"partition": 2}
    status = relay_miner_status(seen, decided)
    assert (status.update.phase, status.update.target) == ("Miners", TARGET)
    row = next(c for c in status.conditions if c.type == "UpToDate")
    assert (row.status, row.reason) == ("False", "Updating")
    assert "main-miner-2 changes to m:2, 1 of 3 miners" in row.message


SUPERVISED = changed(RM, "spec.updateStrategy", "supervised")


@pytest.mark.parametrize(("more", "reason"), [
    ({"turn": Turn(False, "another")}, "UpdateQueued"), ({"relay_miner": SUPERVISED}, "AwaitingApproval"),
    ({}, "Updating"), ({"clock": 900.0, "update_step": UpdateStep(f"relayers {TARGET}", 0.0)}, "UpdateFailed"),
])  # fmt: skip
def test_the_condition_names_what_the_update_waits_for(more, reason):
    seen = snapshot(**{"settings": RELEASE, "children": deployment() | stateful(), "turn": GO, **more})
    found = {c.type: c for c in relay_miner_status(seen, plan(seen)).conditions}["UpToDate"]
    assert (found.status, found.reason) == ("False", reason)
    assert TARGET in found.message


def candidates(*rows):
    return [candidate_of((name, "main"), resource, children, RELEASE, idle=False) for name, resource, children in rows]


def test_one_relay_miner_at_a_time_after_the_delay_and_a_started_one_holds_the_others():
    old, begun = deployment() | stateful(), deployment("r:2") | stateful(to=TARGET)
    waiting = candidates(("a", RM, old), ("b", RM, old))
    assert not next_turn(("a", "main"), waiting, DELAY - 1, DELAY).granted
    assert next_turn(("a", "main"), waiting, DELAY, DELAY).granted
    assert next_turn(("b", "main"), waiting, DELAY, DELAY) == Turn(False, "RelayMiner a/main is updated first")
    held = candidates(("a", RM, old), ("b", RM, begun))
    assert not next_turn(("a", "main"), held, 9 * DELAY, DELAY).granted
    assert next_turn(("b", "main"), held, 0.0, DELAY).granted


def test_one_that_cannot_start_holds_no_other():
    invalid = {"conditions": [{"type": "Stalled", "status": "True", "reason": "InvalidSpec"}]}
    secret = {"conditions": [{"type": "Ready", "status": "False", "reason": "RedisSecretMissing"}]}
    going = changed(RM, "metadata.deletionTimestamp", "2026-01-01T00:00:00Z")
    for first in ({**RM, "status": invalid}, {**RM, "status": secret}, going):
        rows = candidates(("a", first, deployment() | stateful()), ("b", RM, deployment() | stateful()))
        assert next_turn(("b", "main"), rows, DELAY, DELAY).granted
    slow = {**RM, "status": {"conditions": [{"type": "Stalled", "reason": "ProgressDeadlineExceeded"}]}}
    assert candidates(("a", slow, deployment() | stateful()))[0].may_start, "the new images may be the cure"
    paused = candidate_of(("ns", "a"), RM, deployment() | stateful(), RELEASE, idle=True)
    assert not paused.may_start


def test_one_that_another_operator_manages_holds_no_other():
    old, begun = deployment() | stateful(), deployment("r:2") | stateful(to=TARGET)
    for children in (old, begun):
        theirs = {**RM, "status": {"operator": "another-system"}}
        rows = candidates(("a", theirs, children), ("b", RM, old))
        assert next_turn(("b", "main"), rows, DELAY, DELAY).granted
        ours = {**RM, "status": {"operator": RELEASE.namespace}}
        assert not next_turn(("b", "main"), candidates(("a", ours, children), ("b", RM, old)), DELAY, DELAY).granted


class Fleet:
    """Three RelayMiners whose Deployments and StatefulSets are replaced as their controllers would."""

    def __init__(self, replicas):
        self.clock, self.busy_at = 0.0, 0.0
        self.miners = {name: [1] * number for name, number in replicas.items()}  # version by ordinal
        self.relayers = dict.fromkeys(replicas, 1)
        self.children = {name: deployment() | stateful(replicas=number) for name, number in replicas.items()}

    @property
    def updated(self):
        return {*self.relayers.values(), *(v for versions in self.miners.values() for v in versions)} == {2}

    def plan(self, name, closing):
        rows = candidates(*((other, RM, children) for other, children in self.children.items()))
        if any(row.started for row in rows):
            self.busy_at = self.clock
        turn = next_turn((name, "main"), rows, self.clock - self.busy_at, DELAY)
        children = self.children[name]
        report = miner_report(1, closing=closing, owned=("alice",))
        return update(children, turn=turn, pods=(MINERS[0],), reports=(report,), clock=self.clock)

    def apply(self, name, found):
        relayers, miners = (
            self.children[name]["Deployment", "main-relayer"],
            self.children[name]["StatefulSet", "main-miner"],
        )
        relayers["spec"]["template"]["spec"]["containers"][0]["image"] = found.images.relayer
        miners["spec"]["template"]["spec"]["containers"][0]["image"] = found.images.miner
        miners["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = found.partition
        miners["metadata"]["annotations"] = {
            names.ANNOTATION_RENDERING: RELEASE.rendering,
            **({names.ANNOTATION_UPDATE: found.target} if found.started else {}),
        }
        self.count(name)

    def controllers(self, name):
        """One pod more: the relayers at once, of the miners the highest ordinal that the partition lets go."""
        relayers, miners = (
            self.children[name]["Deployment", "main-relayer"],
            self.children[name]["StatefulSet", "main-miner"],
        )
        if relayers["spec"]["template"]["spec"]["containers"][0]["image"] == "r:2":
            self.relayers[name] = 2
        partition = miners["spec"]["updateStrategy"]["rollingUpdate"]["partition"]
        if miners["spec"]["template"]["spec"]["containers"][0]["image"] == "m:2":
            old = [n for n, version in enumerate(self.miners[name]) if version == 1 and n >= partition]
            if old:
                self.miners[name][old[-1]] = 2
        self.count(name)

    def count(self, name):
        relayers, miners = (
            self.children[name]["Deployment", "main-relayer"],
            self.children[name]["StatefulSet", "main-miner"],
        )
        image = relayers["spec"]["template"]["spec"]["containers"][0]["image"]
        relayers["status"]["updatedReplicas"] = 2 if image == f"r:{self.relayers[name]}" else 0
        image = miners["spec"]["template"]["spec"]["containers"][0]["image"]
        miners["status"]["updatedReplicas"] = sum(image == f"m:{version}" for version in self.miners[name])


@settings(deadline=None, max_examples=examples(15))
@given(
    replicas=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    due=st.lists(st.booleans(), max_size=30), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_a_whole_fleet_is_updated_one_by_one_in_every_order_of_events(replicas, due, seed):
    order = random.Random(seed)
    fleet = Fleet(dict(zip("abc", replicas, strict=True)))
    turns = 0
    while not fleet.updated:
        turns += 1
        assert turns < 400, "the update does not end"
        name, closing = order.choice("abc"), due.pop() if due else False
        before = {other: list(versions) for other, versions in fleet.miners.items()}
        fleet.apply(name, fleet.plan(name, int(closing)))
        allowed = fleet.children[name]["StatefulSet", "main-miner"]["spec"]["updateStrategy"]["rollingUpdate"]
        if (
            fleet.children[name]["StatefulSet", "main-miner"]["spec"]["template"]["spec"]["containers"][0]["image"]
            == "m:2"
        ):
            waiting = [n for n, version in enumerate(before[name]) if version == 1 and n >= allowed["partition"]]
            assert len(waiting) <= 1, "one miner at a time"
            assert not waiting or fleet.relayers[name] == 2, "relayers before miners"
        fleet.controllers(order.choice("abc"))
        fleet.clock += 10
        mixed = [
            other for other in "abc"
            if 1 in (mine := {fleet.relayers[other], *fleet.miners[other]}) and 2 in mine
        ]  # fmt: skip
        assert len(mixed) <= 1, "one RelayMiner at a time"
    for name in "abc":
        fleet.apply(name, fleet.plan(name, 0))
    assert all(fleet.plan(name, 0).phase is UpdatePhase.NONE for name in "abc")
