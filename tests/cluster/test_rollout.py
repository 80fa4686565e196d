"""A new image of the relayers goes to one canary first, against real controllers."""

import pytest
from waits import all_well, create, gone, reason

from kube import eventually
from pocket_operator.resources import names
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS
from resources import changed, key_secret, relay_miner, supplier

DEPLOYMENT = BY_KIND["Deployment"]
FIGURES = {"served": 100, "failed": 0, "timed": 100, "seconds": 1.0}


@pytest.fixture
async def careful(api, namespace, operator, nodes):
    """Create a RelayMiner whose relayers run r:1 and whose canaries are observed for two seconds."""
    body = changed(relay_miner(namespace), "spec.relayer.image", "r:1")
    body = changed(body, "spec.relayer.rollout", {"strategy": "Canary", "observeSeconds": 2, "readySeconds": 90})
    await create(api, key_secret(namespace), body, supplier(namespace))
    await all_well(api, namespace, "alice")
    return namespace


async def wish(api, namespace, image, **rollout):
    relayer = {"image": image, "rollout": rollout}
    await api.merge(RELAY_MINERS, namespace, "main", {"spec": {"relayer": relayer}})


async def runs(api, namespace, image, name="main-relayer"):
    async def look():
        found = await api.get(DEPLOYMENT, namespace, name)
        return found if found["spec"]["template"]["spec"]["containers"][0]["image"] == image else None

    return await eventually(look, 40, f"{name} runs {image}")


async def phase(api, namespace, wanted):
    """Wait until the status reports this phase.

    The children are written before the status.
    """

    async def look():
        found = (await api.get(RELAY_MINERS, namespace, "main"))["status"].get("rollout", {}).get("phase", "")
        if found != wanted:
            raise AssertionError(f"the rollout's phase is {found!r}")
        return True

    await eventually(look, 30, f"the rollout's phase is {wanted!r}")


async def test_a_good_image_reaches_the_others_after_its_canary_was_watched(api, careful, nodes):
    nodes.broken["canary"] = ("ContainerCreating", "")
    await wish(api, careful, "r:2")
    await reason(api, RELAY_MINERS, careful, "main", "ObservingCanary", "Reconciling")
    canary = await runs(api, careful, "r:2", "main-relayer-canary")
    assert canary["spec"]["replicas"] == 1
    await runs(api, careful, "r:1")
    await phase(api, careful, "Observing")
    nodes.broken.clear()
    await runs(api, careful, "r:2")
    await gone(api, DEPLOYMENT, careful, "main-relayer-canary")
    await gone(api, BY_KIND["ConfigMap"], careful, "main-config-canary")
    await all_well(api, careful, "alice")
    await phase(api, careful, "")


async def test_an_image_that_cannot_be_pulled_stays_with_its_canary_until_it_is_reverted(api, careful, nodes, cluster):
    nodes.broken["canary"] = ("ImagePullBackOff", "r:bad is not there")
    await wish(api, careful, "r:bad", readySeconds=5)
    told = await reason(api, RELAY_MINERS, careful, "main", "CanaryFailed", "Stalled")
    assert "not ready within 5 s: relayer: ImagePullBackOff: r:bad is not there" in told["message"]
    await reason(api, RELAY_MINERS, careful, "main", "Ready")
    steady = await runs(api, careful, "r:1")
    assert steady["metadata"]["generation"] == 1
    await phase(api, careful, "Failed")
    halted = await api.get(DEPLOYMENT, careful, "main-relayer-canary")
    assert halted["spec"]["replicas"] == 0
    assert "CanaryFailed" in cluster.kubectl("-n", careful, "describe", "rm", "main").stdout
    await wish(api, careful, "r:1")
    await gone(api, DEPLOYMENT, careful, "main-relayer-canary")
    await reason(api, RELAY_MINERS, careful, "main", "NotStalled", "Stalled")
    assert (await api.get(DEPLOYMENT, careful, "main-relayer"))["metadata"]["generation"] == 1


async def test_a_canary_that_fails_more_relays_than_the_others_is_taken_back_and_may_be_let_through(
    api, careful, nodes, operator
):
    nodes.recent = {"relayer": FIGURES, "canary": {**FIGURES, "failed": 20}}
    await wish(api, careful, "r:2")
    told = await reason(api, RELAY_MINERS, careful, "main", "CanaryFailed", "Stalled")
    assert "16.7 % of its relays failed, 0.0 % of the other relayers'" in told["message"]
    # The mark is all that is remembered: another operator goes on from there.
    operator.stop(kill=True)
    nodes.recent = {}
    operator.start()
    halted = await runs(api, careful, "r:2", "main-relayer-canary")
    revision = halted["metadata"]["annotations"][names.ANNOTATION_REVISION]
    assert f"{names.ANNOTATION_PROMOTE}={revision}" in told["message"]
    await runs(api, careful, "r:1")
    change = {"metadata": {"annotations": {names.ANNOTATION_PROMOTE: revision}}}
    await api.merge(RELAY_MINERS, careful, "main", change)
    await runs(api, careful, "r:2")
    await gone(api, DEPLOYMENT, careful, "main-relayer-canary")
    await all_well(api, careful, "alice")
