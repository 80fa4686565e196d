"""A release that renders another pod template is staged like one with other images, what the owner changes is not."""

from contextlib import contextmanager

import pytest

from pocket_operator.decide.plan import plan
from pocket_operator.decide.snapshot import Settings, Turn
from pocket_operator.decide.update import UpdatePhase
from pocket_operator.resources import names, pods, rendering, trial_redis
from pocket_operator.resources.context import Images
from resources import changed
from snapshots import RM, snapshot

GO, WAIT = Turn(True), Turn(False, "another is updated first")
TRIAL = changed(RM, "spec.redis", {"trial": {}})
WORKLOADS = ("Deployment", "main-relayer"), ("StatefulSet", "main-miner"), ("StatefulSet", "main-redis")
OWN_RELEASE = rendering.rendering_digest("IfNotPresent")


@pytest.fixture
def release(monkeypatch):
    """Return a context in which the operator is another release: its containers drop other capabilities."""

    @contextmanager
    def other(dropped="NET_RAW"):
        security = {**pods.CONTAINER_SECURITY, "capabilities": {"drop": [dropped]}}
        with monkeypatch.context() as patch:
            rendering.rendering_digest.cache_clear()
            for module in (pods, trial_redis):
                patch.setattr(module, "CONTAINER_SECURITY", security)
            yield
        rendering.rendering_digest.cache_clear()

    return other


def decided(relay_miner=TRIAL, children=None, turn=WAIT, **more):
    return plan(snapshot(relay_miner=relay_miner, children=children or {}, turn=turn, pods=(), **more))


def complete(found):
    """Return the children as the API server has them once all pods are replaced."""
    rows = {(child["kind"], child["metadata"]["name"]): child for child in found.wanted}
    for place in WORKLOADS:
        if place in rows:
            number = rows[place]["spec"].get("replicas", 1)
            counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas"), number)
            rows[place] = {**rows[place], "status": {"observedGeneration": 1, **counts}}
    return rows


def dropped(children):
    return [
        children[place]["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["drop"][0]
        for place in WORKLOADS
    ]


def after(found):
    return dropped(complete(found))


def test_a_template_of_another_release_waits_for_its_turn_then_relayers_come_before_miners(release):
    with release():
        before = complete(decided())
    assert dropped(before) == ["NET_RAW"] * 3
    waiting = decided(children=before)
    assert (after(waiting), waiting.update.phase) == (["NET_RAW"] * 3, UpdatePhase.QUEUED)
    held = complete(waiting)
    relayers = decided(children=held, turn=GO)
    assert (after(relayers), relayers.update.phase) == (["ALL", "NET_RAW", "ALL"], UpdatePhase.RELAYERS)
    miners = decided(children=complete(relayers), turn=GO)
    assert (after(miners), miners.update.phase) == (["ALL", "ALL", "ALL"], UpdatePhase.MINERS)
    done = decided(children=complete(miners), turn=GO)
    assert (after(done), done.update.phase) == (["ALL"] * 3, UpdatePhase.NONE)
    assert all(complete(done)[place]["metadata"]["annotations"][names.ANNOTATION_RENDERING] == OWN_RELEASE
               and names.ANNOTATION_OFFERED not in complete(done)[place]["metadata"]["annotations"]
               for place in WORKLOADS)  # fmt: skip


def test_a_downgrade_is_staged_as_well(release):
    before = complete(decided())
    with release():
        waiting = decided(children=before)
        assert (after(waiting), waiting.update.phase) == (["ALL"] * 3, UpdatePhase.QUEUED)


def test_what_waits_keeps_its_template_word_for_word_and_its_configuration_and_a_foreign_change_is_repaired(release):
    with release():
        before = complete(decided())
    edited = {**before, WORKLOADS[1]: changed(before[WORKLOADS[1]], "spec.template.spec.serviceAccountName", "other")}
    found = complete(decided(children=edited))
    for place in WORKLOADS:
        assert found[place]["spec"]["template"] == before[place]["spec"]["template"]
    assert found["ConfigMap", "main-config"]["data"] == before["ConfigMap", "main-config"]["data"]


@pytest.mark.parametrize(("path", "value"), [
    ("spec.relayer.podTemplate.spec", {"dnsPolicy": "Default"}), ("spec.relayer.image", "mine:1"),
    ("metadata.annotations", {names.ANNOTATION_RESTARTED: "now"}), ("spec.relayer.workers", 7),
])  # fmt: skip
def test_what_the_owner_changes_while_it_waits_is_applied_at_once(release, path, value):
    with release():
        before = complete(decided())
    waiting = complete(decided(children=before))
    found = complete(decided(changed(TRIAL, path, value), waiting))
    assert dropped(found)[0] == "ALL"
    assert found[WORKLOADS[0]]["spec"]["template"] != waiting[WORKLOADS[0]]["spec"]["template"]
    again = complete(decided(changed(TRIAL, path, value), found))
    assert again[WORKLOADS[0]] == found[WORKLOADS[0]]


@pytest.mark.parametrize(("path", "value"), [
    ("spec.relayer.replicas", 7), ("spec.services.0.id", "btc"), ("spec.relayer.logLevel", "debug"),
])  # fmt: skip
def test_what_rolls_no_pod_does_not_let_the_release_through(release, path, value):
    with release():
        before = complete(decided())
    waiting = complete(decided(children=before))
    assert dropped(complete(decided(changed(TRIAL, path, value), waiting))) == ["NET_RAW"] * 3


def test_an_own_image_and_supervision_do_not_let_a_template_through(release):
    own = changed(changed(TRIAL, "spec.relayer.image", "mine:1"), "spec.miner.image", "mine:2")
    supervised = changed(own, "spec.updateStrategy", "supervised")
    with release():
        before = complete(decided(supervised))
    waiting = decided(supervised, before, GO)
    assert (after(waiting), waiting.update.phase) == (["NET_RAW"] * 3, UpdatePhase.AWAITING_APPROVAL)


def test_while_it_is_deleted_the_miners_keep_their_template(release):
    with release():
        before = complete(decided())
    going = changed(TRIAL, "metadata.deletionTimestamp", "2026-01-01T00:00:00Z")
    miners = next(c for c in decided(going, before, GO).wanted if c["metadata"]["name"] == "main-miner"
                  and c["kind"] == "StatefulSet")  # fmt: skip
    assert miners["spec"]["template"] == before["StatefulSet", "main-miner"]["spec"]["template"]


def without_records(children):
    """Return children as a release wrote them that saved no revisions, with what an API server adds."""
    kept = {place: row for place, row in children.items() if not place[1].endswith("-revision")}
    for place in WORKLOADS:
        row = changed(kept[place], "spec.template.spec.dnsPolicy", "ClusterFirst")
        marks = {k: v for k, v in row["metadata"]["annotations"].items() if k == names.ANNOTATION_IMAGE}
        kept[place] = changed(row, "metadata.annotations", marks)
    return kept


def test_without_a_saved_revision_the_observed_template_stays_until_its_turn_if_this_release_differs(release):
    with release():
        before = without_records(complete(decided()))
    edited = changed(before[WORKLOADS[1]], "spec.template.spec.containers.0.image", "somebody's")
    found = decided(children={**before, WORKLOADS[1]: edited})
    assert (after(found), found.update.phase) == (["NET_RAW"] * 3, UpdatePhase.QUEUED)
    template = complete(found)[WORKLOADS[1]]["spec"]["template"]["spec"]
    assert template["dnsPolicy"] == "ClusterFirst"
    assert template["containers"][0]["image"] == Images().miner
    same = decided(children=without_records(complete(decided())))
    assert (after(same), same.update.phase) == (["ALL"] * 3, UpdatePhase.NONE)


def test_a_field_that_a_release_no_longer_renders_is_a_change(release, monkeypatch):
    with release(), monkeypatch.context() as patch:
        patch.setattr(pods, "POD_SECURITY", {**pods.POD_SECURITY, "supplementalGroups": [1]})
        rendering.rendering_digest.cache_clear()
        before = complete(decided())
    with release():
        found = decided(children=before)
        assert found.update.phase is UpdatePhase.QUEUED
        assert complete(found)[WORKLOADS[1]]["spec"]["template"] == before[WORKLOADS[1]]["spec"]["template"]


def test_other_images_of_the_operator_are_not_another_rendering():
    first, second = Settings(images=Images(relayer="r:1")), Settings(images=Images(relayer="r:2"))
    assert first.rendering == second.rendering != Settings(images=Images(pull_policy="Always")).rendering


def test_what_the_owner_changes_under_one_release_is_not_staged():
    before = complete(decided())
    found = decided(changed(TRIAL, "spec.relayer.podTemplate.spec", {"dnsPolicy": "Default"}), before)
    assert found.update.phase is UpdatePhase.NONE
    assert complete(found)[WORKLOADS[0]]["spec"]["template"]["spec"]["dnsPolicy"] == "Default"


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("place", WORKLOADS)
def test_a_workload_that_has_this_releases_template_says_nothing_about_the_others(release, place, noted):
    """It is known by its note of the release, or by a template that is the same."""
    with release():
        before = complete(decided())
    component, now = place[1].removeprefix("main-"), complete(decided())
    annotations = {**now[place]["metadata"]["annotations"]}
    if not noted:
        annotations[names.ANNOTATION_RENDERING] = "another"
    workload = {**now[place], "metadata": {**now[place]["metadata"], "annotations": annotations}}
    saved = ("ConfigMap", names.revision("main", component))
    found = decided(children={**before, place: workload, saved: now[saved]})
    assert set(found.context.kept) == {names.RELAYER, names.MINER, names.REDIS} - {component}
