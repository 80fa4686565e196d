"""What the operator makes of the problems that pods report: by their codes, whatever their texts are."""

from dataclasses import replace

import pytest

from pocket.api.problems import ProblemCode
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.relay_miner_status import relay_miner_status
from resources import address
from snapshots import MINER_POD, POD, miner_report, relayer_report, snapshot

DIGESTS = plan(snapshot()).digests


def said(report, *codes, text="words that nobody foresaw"):
    rows = tuple({"code": code, "message": text} for code in codes)
    answer = report.answer.model_dump() | {"problems": rows, "keys": DIGESTS[report.component]}
    return Report.of(report.pod, answer, report.at)


def status(*reports, pods=(POD, MINER_POD)):
    seen = snapshot(pods=pods, reports=reports)
    return {c.type: c for c in relay_miner_status(seen, plan(seen)).conditions}


RELAYER, MINER = said(relayer_report(address("alice"))), said(miner_report())


@pytest.mark.parametrize("code", [ProblemCode.NO_NEW_BLOCK, ProblemCode.CHAIN_UNAVAILABLE])
@pytest.mark.parametrize("which", ["relayer", "miner"])
def test_a_pod_without_blocks_makes_the_chain_unreachable_whatever_its_words_are(code, which):
    relayer = said(RELAYER, code) if which == "relayer" else RELAYER
    miner = said(MINER, code) if which == "miner" else MINER
    found = status(relayer, miner)["ChainReachable"]
    assert (found.status, found.reason) == ("False", "ChainUnreachable")


def test_words_alone_and_codes_of_other_versions_make_nothing_unreachable():
    found = status(said(RELAYER, "SomethingNew", text="no new block for too long"), MINER)["ChainReachable"]
    assert (found.status, found.reason) == ("True", "Reachable")
    assert (
        Report.of("p", {"component": "relayer", "problems": ["an older version's words"]}).answer.problems[0].code == ""
    )


@pytest.mark.parametrize(("volume", "code", "state", "reason"), [
    ("", "", "True", "VolumesFine"),
    ("the volume has 1 of 20 MiB free", "", "False", "VolumeFilling"),
    ("/data takes no writes", ProblemCode.VOLUME_READ_ONLY, "False", "VolumeReadOnly"),
])  # fmt: skip
def test_what_a_miner_says_of_its_volume_is_a_condition_and_a_filling_one_keeps_nobody_from_being_ready(
    volume, code, state, reason
):
    miner = said(MINER, code, text=volume) if code else MINER
    miner = replace(miner, answer=miner.answer.model_copy(update={"volume": volume}))
    found = status(RELAYER, miner)
    assert (found["VolumesHealthy"].status, found["VolumesHealthy"].reason) == (state, reason)
    assert volume in found["VolumesHealthy"].message
    assert found["Ready"].reason not in ("VolumeFilling", "VolumeReadOnly")


def test_a_hung_worker_is_named_though_its_pod_is_ready():
    found = status(said(RELAYER, ProblemCode.WORKER_HUNG, text="worker 1 does not answer"), MINER)["Ready"]
    assert (found.status, found.reason) == ("False", "PodsNotReady")
    assert "main-relayer-1: worker 1 does not answer" in found.message


@pytest.mark.parametrize("code", [ProblemCode.STARTING, ProblemCode.DRAINING, ProblemCode.WORKER_MISSING])
def test_a_pod_that_starts_or_ends_is_on_its_way_and_no_problem(code):
    found = status(said(RELAYER, code), MINER, pods=(replace(POD, ready=False), MINER_POD))["Ready"]
    assert found.reason != "PodsNotReady"


def test_an_unready_pod_is_named_with_what_it_says():
    found = status(
        said(RELAYER, ProblemCode.NO_KEYS, text="no key"), MINER, pods=(replace(POD, ready=False), MINER_POD)
    )
    assert found["Ready"].reason == "PodsNotReady"
    assert "main-relayer-1: no key" in found["Ready"].message
