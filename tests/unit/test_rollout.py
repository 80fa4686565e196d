"""A new revision of the relayers: one canary first, judged before the others follow."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.api.relayminer import Rollout
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.rollout import RolloutState, plan_rollout
from pocket_operator.decide.snapshot import Pod
from pocket_operator.resources import names
from pocket_operator.resources.revision import Revision
from resources import address, changed
from snapshots import POD, RM, miner_report, relayer_report, snapshot

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CANARY = Rollout(strategy="Canary", observe_seconds=60, ready_seconds=30)
OLD, NEW = Revision({"image": "old"}, "{}"), Revision({"image": "new"}, "{}")
BEGUN = NOW - timedelta(seconds=70)


def tried(revision=NEW.name, begun=BEGUN, failed=""):
    marks = {names.ANNOTATION_REVISION: revision, names.ANNOTATION_TRIED: begun.isoformat()}
    return {"metadata": {"annotations": marks | ({names.ANNOTATION_FAILED: failed} if failed else {})}}


def before(seconds):
    return NOW - timedelta(seconds=seconds)


WELL = Pod(
    "c", "u", names.RELAYER, ready=True, deleting=False, revision=NEW.name, ready_changed_at=NOW - timedelta(seconds=60)
)


def relayer(pod="c", *, problems=(), **recent):
    return Report.of(pod, {"component": "relayer", "problems": problems, "recent": recent})


def figures(served=100, failed=0, timed=100, seconds=1.0):
    return relayer(served=served, failed=failed, timed=timed, seconds=seconds)


GOOD, OTHER = figures(), relayer("r", served=500, failed=5, timed=500, seconds=5.0)
STATE = RolloutState(now=NOW, steady_exists=True, saved=OLD, canary=tried(), pods=(WELL,), reports=(GOOD, OTHER))


def test_a_canary_that_stayed_good_long_enough_lets_the_others_follow():
    found = plan_rollout(NEW, CANARY, STATE)
    assert (found.steady, found.canary, found.failed, found.message) == (NEW, None, "", "")


@pytest.mark.parametrize(("change", "said"), [
    ({"canary": None}, "being started"),
    ({"canary": tried(OLD.name, failed="old story")}, "being started"),
    ({"pods": (), "canary": tried(begun=before(29))}, "there is no pod yet"),
    ({"pods": (replace(WELL, revision=OLD.name),), "canary": tried(begun=before(29))}, "there is no pod yet"),
    ({"pods": (replace(WELL, deleting=True),), "canary": tried(begun=before(29))}, "there is no pod yet"),
    ({"pods": (replace(WELL, ready=False, problem="ImagePullBackOff"),), "canary": tried(begun=before(29))},
     "not ready: ImagePullBackOff"),
    ({"pods": (replace(WELL, ready=False, ready_changed_at=before(29)),)}, "its pod is being started"),
    ({"pods": (replace(WELL, ready=False, ready_changed_at=before(9)),),
      "reports": (relayer(problems=["no key"]),)}, "not ready: no key"),
    ({"reports": (OTHER,), "canary": tried(begun=before(9))}, "not reported yet"),
    ({"pods": (replace(WELL, ready_changed_at=before(59)),)}, "watched until 12:00:01 UTC"),
    ({"pods": (replace(WELL, ready_changed_at=before(1)),), "canary": tried(begun=before(149))}, "watched until"),
    ({"reports": (figures(served=15, failed=4), OTHER)}, None),
    ({"reports": (figures(failed=5), OTHER)}, None),
    ({"reports": (figures(seconds=4.9), OTHER)}, None),
    ({"reports": (figures(seconds=400.0), relayer("r"))}, None),
    ({"reports": (relayer(), OTHER)}, None),
    ({"reports": (figures(served=95, failed=5),)}, None),
    ({"reports": (figures(seconds=29.0), relayer("r", served=500, timed=500, seconds=50.0))}, None),
    ({"canary": {"metadata": {"annotations": {names.ANNOTATION_REVISION: NEW.name, names.ANNOTATION_TRIED: "?"}}}},
     None),
])  # fmt: skip
def test_nothing_is_decided_too_early_and_small_numbers_say_nothing(change, said):
    found = plan_rollout(NEW, CANARY, replace(STATE, **change))
    assert not found.failed
    if said is None:
        assert found.steady == NEW
    else:
        assert (found.steady, found.canary) == (OLD, NEW)
        assert said in found.message


@pytest.mark.parametrize(("change", "said"), [
    ({"canary": tried(failed="too slow")}, "too slow"),
    ({"canary": tried(begun=before(30)), "pods": ()}, "not ready within 30 s: there is no pod yet"),
    ({"canary": tried(begun=before(30)), "pods": (replace(WELL, ready=False, problem="ErrImage"),)},
     "within 30 s: ErrImage"),
    ({"pods": (replace(WELL, ready=False, ready_changed_at=before(30)),)}, "not ready within 30 s"),
    ({"canary": tried(begun=before(150)), "pods": (replace(WELL, ready=False, ready_changed_at=before(1)),)},
     "not ready within 30 s"),
    ({"canary": tried(begun=before(150)), "pods": (replace(WELL, ready_changed_at=before(1)),)},
     "did not stay ready for 60 s"),
    ({"pods": (replace(WELL, restarts=1, problem="relayer: CrashLoopBackOff: bad"),)}, "restarted: relayer: CrashLoop"),
    ({"reports": (figures(seconds=31.0), relayer("r", served=500, timed=500, seconds=50.0))},
     "its relays take 0.310 s, the other relayers' 0.100 s (at most 3 times as long)"),
    ({"reports": (figures(served=94, failed=6),)}, "6.0 % of its relays failed, 0.0 % of the other"),
    ({"reports": (figures(served=90, failed=10), OTHER)}, "10.0 % of its relays failed, 1.0 % of the other"),
    ({"reports": (figures(seconds=6.0), OTHER)}, "its relays take 0.060 s, the other relayers' 0.010 s"),
    ({"pods": (replace(WELL, ready_changed_at=NOW),), "reports": (figures(served=0, failed=20),)},
     "100.0 % of its relays"),
])  # fmt: skip
def test_a_bad_canary_leaves_the_others_as_they_are_and_says_why(change, said):
    found = plan_rollout(NEW, CANARY, replace(STATE, **change))
    assert (found.steady, found.canary) == (OLD, NEW)
    assert said in found.failed


@pytest.mark.parametrize("change", [
    {"saved": None}, {"steady_exists": False}, {"saved": NEW}, {"promoted": NEW.name, "canary": tried(failed="bad")},
])  # fmt: skip
def test_without_relayers_to_be_careful_with_or_by_order_there_is_no_canary(change):
    found = plan_rollout(NEW, CANARY, replace(STATE, **change))
    assert (found.steady, found.canary) == (NEW, None)


def test_a_rolling_update_has_no_canary():
    found = plan_rollout(NEW, Rollout(), STATE)
    assert (found.steady, found.canary) == (NEW, None)


@given(
    seconds=st.integers(0, 200), restarts=st.integers(0, 2), ready=st.booleans(), deleting=st.booleans(),
    failed=st.integers(0, 100), slow=st.floats(0, 100), mark=st.sampled_from(["", "bad"]),
)  # fmt: skip
def test_the_others_follow_only_after_a_canary_was_seen_ready_for_the_whole_time_without_a_fault(
    seconds, restarts, ready, deleting, failed, slow, mark
):
    pod = replace(
        WELL, ready=ready, restarts=restarts, deleting=deleting, ready_changed_at=NOW - timedelta(seconds=seconds)
    )
    sight = replace(
        STATE, pods=(pod,), reports=(figures(100, failed, 100, slow), OTHER),
        canary=tried(failed=mark),
    )  # fmt: skip
    found = plan_rollout(NEW, CANARY, sight)
    good = (
        ready and not restarts and not deleting and not mark and seconds >= 60
        and 100 * failed / (100 + failed) - 500 / 505 <= 5 and slow / 100 <= 0.05
    )  # fmt: skip
    assert (found.steady == NEW) == good
    assert (found.canary is None) == good


@pytest.mark.parametrize("damaged", [None, {}, {"data": {}}, {"data": {"template.json": "{", "relayer.json": ""}},
                                     {"data": {"template.json": "[]", "relayer.json": ""}}])  # fmt: skip
def test_a_damaged_record_of_the_revision_counts_as_none(damaged):
    assert Revision.load_saved(damaged, names.RELAYER) is None
    assert Revision.load_saved({"data": OLD.data(names.RELAYER)}, names.RELAYER) == OLD


# The same through the whole plan.

STEADY = changed(changed(RM, "spec.relayer.rollout", {"strategy": "Canary"}), "spec.relayer.image", "r:1")
EDITED = changed(changed(STEADY, "spec.relayer.image", "r:2"), "spec.relayer.workers", 3)


def children(found):
    return {(child["kind"], child["metadata"]["name"]): child for child in found.wanted}


def image(deployment):
    return deployment["spec"]["template"]["spec"]["containers"][0]["image"]


def conditions(seen):
    return {c.type: c for c in relay_miner_status(seen, plan(seen)).conditions}


def seen_after(**more):
    before = children(plan(snapshot(relay_miner=STEADY)))
    return snapshot(
        relay_miner=EDITED, children=before, pods=(POD, WELL), **{"reports": (), **more}
    )  # fmt: skip


def test_a_canary_has_its_own_configuration_and_label_and_the_others_keep_theirs():
    found = children(plan(seen_after()))
    steady, canary = found["Deployment", "main-relayer"], found["Deployment", "main-relayer-canary"]
    assert (image(steady), image(canary)) == ("r:1", "r:2")
    assert '"workers"' not in found["ConfigMap", "main-config"]["data"]["relayer.json"]
    assert '"workers": 3' in found["ConfigMap", "main-config-canary"]["data"]["relayer.json"]
    volumes = {v["name"]: v for v in canary["spec"]["template"]["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == "main-config-canary"
    selector, labels = canary["spec"]["selector"]["matchLabels"], canary["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    service = found["Service", "main-relayer"]["spec"]["selector"]
    assert service.items() <= labels.items()
    assert names.LABEL_TRACK not in steady["spec"]["template"]["metadata"]["labels"]
    assert canary["spec"]["replicas"] == 1


def test_what_is_hot_reaches_everybody_at_once():
    seen = seen_after()
    hot = changed(seen.relay_miner, "spec.relayer.replicas", 7)
    found = children(plan(replace(seen, relay_miner=hot)))
    assert found["Deployment", "main-relayer"]["spec"]["replicas"] == 7
    assert image(found["Deployment", "main-relayer"]) == "r:1"


def test_a_failed_canary_is_scaled_to_none_marked_and_told_and_the_rest_stays_ready():
    first = seen_after()
    tried = children(plan(first))
    canary = tried["Deployment", "main-relayer-canary"]
    revision = canary["metadata"]["annotations"][names.ANNOTATION_REVISION]
    pod = replace(WELL, name="c", revision=revision, restarts=1, problem="relayer: CrashLoopBackOff: boom")
    report = relayer_report(address("alice"))
    failing = snapshot(relay_miner=EDITED, children=tried, pods=(POD, pod), reports=(report, miner_report()))
    after = children(plan(failing))
    halted = after["Deployment", "main-relayer-canary"]
    assert halted["spec"]["replicas"] == 0
    assert "boom" in halted["metadata"]["annotations"][names.ANNOTATION_FAILED]
    told = conditions(failing)
    assert (told["Stalled"].status, told["Stalled"].reason) == ("True", "CanaryFailed")
    assert f"kubectl -n ns annotate rm main pocket.network/promote={revision}" in told["Stalled"].message
    assert told["Ready"].reason != "CanaryFailed"
    # Its pod is gone, the mark remains: nothing is tried again until the resource changes.
    later = replace(failing, children=after, pods=(POD,))
    assert children(plan(later))["Deployment", "main-relayer-canary"]["spec"]["replicas"] == 0
    reverted = children(plan(replace(later, relay_miner=STEADY)))
    assert ("Deployment", "main-relayer-canary") not in reverted
    restarted = changed(EDITED, "metadata.annotations", {names.ANNOTATION_RESTARTED: "now"})
    again = children(plan(replace(later, relay_miner=restarted)))["Deployment", "main-relayer-canary"]
    assert again["spec"]["replicas"] == 1
    promoted = changed(EDITED, "metadata.annotations", {names.ANNOTATION_PROMOTE: revision})
    assert image(children(plan(replace(later, relay_miner=promoted)))["Deployment", "main-relayer"]) == "r:2"


def test_while_a_canary_is_watched_status_says_so_and_its_pod_is_nobodys_problem():
    seen = seen_after()
    sick = replace(WELL, ready=False, problem="ImagePullBackOff")
    told = conditions(replace(seen, pods=(POD, sick)))
    assert (told["Reconciling"].status, told["Reconciling"].reason) == ("True", "ObservingCanary")
    assert "ImagePullBackOff" not in told["Ready"].message
    for ready in (0, 1):
        for part in (("Deployment", "main-relayer"), ("StatefulSet", "main-miner")):
            seen.children[part]["spec"]["replicas"] = seen.children[part]["metadata"]["generation"] = 1
            seen.children[part]["status"] = {"observedGeneration": 1, "readyReplicas": ready}
        served = replace(seen, reports=(relayer_report(address("alice")), miner_report()))
        assert conditions(served)["Reconciling"].reason == "ObservingCanary"
        assert conditions(served)["Ready"].status == ("True" if ready else "False"), "the others serve as before"
    status = relay_miner_status(seen, plan(seen))
    assert (status.rollout.phase, len(status.rollout.revision)) == ("Observing", 10)
