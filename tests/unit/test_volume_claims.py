"""Volumes of the miners grow with the resource: what is asked for, how often it is read, what is reported."""

import pytest

from pocket.kube.api_client import KubeError, ObjectNotFound
from pocket_operator.controller.volume_expander import VOLUME_CLAIMS, VolumeExpander
from pocket_operator.decide.object_cache import ReconcileKey
from pocket_operator.decide.plan import plan
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.volume_claims import VolumeClaim, declared_size, template_size
from resources import changed
from snapshots import RM, miner_report, snapshot

KEY = ReconcileKey("ns", "main")
LARGER = changed(RM, "spec.miner", {"storage": "20Gi"})
MINERS = {("StatefulSet", "main-miner"): {"spec": {"replicas": 1}}}


def claim(name: str = "data-main-miner-0", requested: str = "10Gi", capacity: str | None = "10Gi") -> dict:
    status = {} if capacity is None else {"capacity": {"storage": capacity}}
    return {"metadata": {"name": name}, "spec": {"resources": {"requests": {"storage": requested}}}, "status": status}


class Server:
    """Volume claims as the API server keeps them: a resize needs a bound claim of a class that allows it."""

    def __init__(self, *claims: dict) -> None:
        self.claims = {row["metadata"]["name"]: row for row in claims}
        self.refusal: KubeError | None = None
        self.unreadable: KubeError | None = None
        self.lists = 0

    async def list(self, kind, namespace, selector):
        assert (kind, namespace) == (VOLUME_CLAIMS, "ns")
        assert "app.kubernetes.io/component=miner" in selector
        assert "pocket.network/relayminer=main" in selector
        self.lists += 1
        if self.unreadable is not None:
            raise self.unreadable
        return list(self.claims.values())

    async def merge(self, kind, namespace, name, patch, *, manager):
        if self.refusal is not None:
            raise self.refusal
        found = self.claims[name]
        self.claims[name] = {**found, "spec": patch["spec"]}
        return self.claims[name]


@pytest.fixture
def clock():
    return [100.0]


DELETED = VolumeClaim.of(
    {"metadata": {"name": "data-main-miner-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}}
)


def sizes(server: Server) -> list[str]:
    return [row["spec"]["resources"]["requests"]["storage"] for row in server.claims.values()]


async def test_bound_claims_that_are_smaller_grow_and_no_others(clock):
    server = Server(
        claim(), claim("data-main-miner-1", capacity=None), claim("data-main-miner-2", "30Gi", "30Gi"),
        claim("data-main-miner-3", "21474836480000m", "10Gi"),
    )  # fmt: skip
    claims = await VolumeExpander(server, lambda: clock[0]).grown(KEY, LARGER, MINERS)
    assert sizes(server) == ["20Gi", "10Gi", "30Gi", "21474836480000m"]
    assert [row.grows_to("20Gi") for row in claims] == [True, False, False, True]


async def test_nothing_changes_while_the_relay_miner_is_paused_or_has_no_miners(clock):
    server = Server(claim())
    volumes = VolumeExpander(server, lambda: clock[0])
    for resource, children in ((changed(LARGER, "spec.paused", True), MINERS), (LARGER, {}), (None, MINERS)):
        assert await volumes.grown(KEY, resource, children) == ()
    assert (sizes(server), server.lists) == (["10Gi"], 0)


async def test_claims_are_read_once_a_minute_and_more_often_while_one_grows_or_is_missing(clock):
    server = Server(claim())
    volumes = VolumeExpander(server, lambda: clock[0])
    for seconds, resource, children, reads in (
        (0, RM, MINERS, 1), (59, RM, MINERS, 1), (1, RM, MINERS, 2),
        (0, LARGER, MINERS, 3), (4, LARGER, MINERS, 3), (1, LARGER, MINERS, 4),  # at once, then while it grows
        (0, LARGER, {("StatefulSet", "main-miner"): {"spec": {"replicas": 2}}}, 5),
        (5, LARGER, {("StatefulSet", "main-miner"): {"spec": {"replicas": 2}}}, 6),
    ):  # fmt: skip
        clock[0] += seconds
        await volumes.grown(KEY, resource, children)
        assert server.lists == reads


async def test_a_refusal_is_kept_for_the_status_and_an_outage_is_none(clock):
    server = Server(claim())
    volumes = VolumeExpander(server, lambda: clock[0])
    server.refusal = KubeError("only dynamically provisioned pvc can be resized", 403)
    (refused,) = await volumes.grown(KEY, LARGER, MINERS)
    assert refused.refusal == "only dynamically provisioned pvc can be resized"
    clock[0] += 60
    server.refusal = KubeError("etcd is away", 503)
    with pytest.raises(KubeError, match="etcd"):
        await volumes.grown(KEY, LARGER, MINERS)


@pytest.mark.parametrize("status", [403, 500])
async def test_claims_that_cannot_be_read_are_not_taken_for_none(clock, status):
    server = Server(claim())
    volumes = VolumeExpander(server, lambda: clock[0])
    server.refusal = KubeError("only dynamically provisioned pvc can be resized", 403)
    refused = await volumes.grown(KEY, LARGER, MINERS)
    clock[0] += 60
    server.unreadable = KubeError("no", status)
    assert await volumes.grown(KEY, LARGER, MINERS) == refused
    assert server.lists == 2
    clock[0] += 60
    server.unreadable = server.refusal = None
    (grown,) = await volumes.grown(KEY, LARGER, MINERS)
    assert grown.requested == "20Gi"


@pytest.mark.parametrize("status", [0, 429, 503])
async def test_an_outage_at_the_claims_is_tried_again(clock, status):
    server = Server(claim())
    server.unreadable = KubeError("later", status)
    with pytest.raises(KubeError, match="later"):
        await VolumeExpander(server, lambda: clock[0]).grown(KEY, LARGER, MINERS)


@pytest.mark.parametrize(
    "answer", [KubeError("a webhook fails", 500), KubeError("changed", 409), ObjectNotFound("gone", 404)]
)
async def test_a_claim_that_cannot_be_changed_concerns_no_other(clock, answer):
    server = Server(claim(), claim("data-main-miner-1"))
    volumes = VolumeExpander(server, lambda: clock[0])
    server.refusal = answer
    claims = await volumes.grown(KEY, LARGER, MINERS)
    assert [row.name for row in claims] == ["data-main-miner-0", "data-main-miner-1"]


@pytest.mark.parametrize(
    ("claims", "status", "reason", "text"),
    [
        ((VolumeClaim("a", "20Gi", "20Gi"),), "True", "VolumesFine", "take writes"),
        ((VolumeClaim("a", "20Gi", "10Gi"),), "True", "VolumeExpanding", "Growing to 20Gi: a."),
        ((VolumeClaim("a", "10Gi", "10Gi", "no such luck"),), "False", "VolumeNotExpanded", "a (10Gi): no such luck"),
        ((VolumeClaim("a", "10Gi"),), "True", "VolumesFine", "take writes"),
        ((DELETED,), "False", "VolumeBeingDeleted", "lost once its pod ends: data-main-miner-1. To keep the data"),
    ],
)
def test_volumes_that_go_or_have_not_the_declared_size_are_in_the_status(claims, status, reason, text):
    seen = snapshot(relay_miner=LARGER, claims=claims, reports=(miner_report(),))
    found = next(c for c in relay_miner_status(seen, plan(seen)).conditions if c.type == "VolumesHealthy")
    assert (found.status, found.reason, text in found.message) == (status, reason, True), found


def claims_of(found) -> list[str]:
    (stateful,) = [row for row in found.wanted if row["kind"] == "StatefulSet"]
    return [row["spec"]["resources"]["requests"]["storage"] for row in stateful["spec"]["volumeClaimTemplates"]]


def test_the_claim_template_of_an_existing_stateful_set_stays_as_it_is():
    assert claims_of(plan(snapshot(relay_miner=LARGER))) == ["20Gi"]
    (observed,) = [row for row in plan(snapshot()).wanted if row["kind"] == "StatefulSet"]
    existing = {("StatefulSet", "main-miner"): observed}
    assert claims_of(plan(snapshot(relay_miner=LARGER, children=existing))) == ["10Gi"]
    assert (template_size(observed), template_size(None)) == ("10Gi", "")


@pytest.mark.parametrize("spec", [{}, {"miner": {}}, {"miner": "large"}, {"miner": {"storage": 7}}])
def test_a_resource_without_a_valid_size_declares_the_default(spec):
    assert declared_size({"spec": spec}) == "10Gi"
