"""A new operator release with other images or pod templates: RelayMiners follow one by one, on real controllers."""

import pytest
from waits import all_well, create, reason

from kube import eventually
from pocket_operator.resources import names
from pocket_operator.resources.kinds import BY_KIND, PODS, RELAY_MINERS
from resources import address, changed, key_secret, relay_miner, supplier

OLD = ("--relayer-image", "r:1", "--miner-image", "m:1", "--update-delay-seconds", "1")
NEW = ("--relayer-image", "r:2", "--miner-image", "m:2", "--update-delay-seconds", "1")


def image(workload):
    return workload["spec"]["template"]["spec"]["containers"][0]["image"]


async def installed(api, namespace, name):
    relayers = await api.get(BY_KIND["Deployment"], namespace, f"{name}-relayer")
    miners = await api.get(BY_KIND["StatefulSet"], namespace, f"{name}-miner")
    return image(relayers), image(miners)


async def phase(api, namespace, name, wanted):
    async def reached():
        found = (await api.get(RELAY_MINERS, namespace, name))["status"].get("update") or {}
        if found.get("phase", "") != wanted:
            raise AssertionError(found)
        return found

    return await eventually(reached, 60, f"the update of {name} is {wanted!r}")


async def miner_images(api, namespace, name):
    pods = await api.list(PODS, namespace, f"{names.LABEL_RELAY_MINER}={name},{names.LABEL_COMPONENT}={names.MINER}")
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in pods}


async def test_new_default_images_reach_relay_miners_in_order_and_a_supervised_one_once_it_is_approved(
    api, namespace, replicas, nodes
):
    (operator, _) = replicas
    operator.arguments = OLD
    operator.start()
    first = changed(relay_miner(namespace), "spec.miner.replicas", 2)
    second = changed(changed(first, "metadata.name", "second"), "spec.updateStrategy", "supervised")
    bob = changed(changed(supplier(namespace), "metadata.name", "bob"), "spec.operatorAddress", address("bob"))
    bob = changed(changed(bob, "spec.relayMinerRef.name", "second"), "spec.key.secretRef.name", "bob-key")
    await create(api, key_secret(namespace), key_secret(namespace, "bob"), first, second, supplier(namespace), bob)
    await all_well(api, namespace, "alice")
    await all_well(api, namespace, "bob", relay_miner="second")
    assert await installed(api, namespace, "main") == await installed(api, namespace, "second") == ("r:1", "m:1")

    nodes.rows[address("alice")] = {"closing": 1}
    operator.stop()
    operator.arguments = NEW
    operator.start()
    found = await phase(api, namespace, "main", "WaitingForWindows")
    assert "owes 1 claims or proofs" in found["message"]
    assert await installed(api, namespace, "main") == ("r:2", "m:1"), "the relayers come first"
    waiting = await phase(api, namespace, "second", "AwaitingApproval")
    assert await installed(api, namespace, "second") == ("r:1", "m:1")
    approval = {"metadata": {"annotations": {names.ANNOTATION_APPROVE_UPDATE: waiting["target"]}}}
    await api.merge(RELAY_MINERS, namespace, "second", approval)
    found = await phase(api, namespace, "second", "Queued")
    assert "main is updated first" in found["message"]

    nodes.broken["miner"] = ("ImagePullBackOff", "m:2 is not there")
    nodes.rows.clear()
    await phase(api, namespace, "main", "Miners")

    async def one_replaced():
        return (await miner_images(api, namespace, "main")).get("main-miner-1") == "m:2"

    await eventually(one_replaced, 30, "the last miner is replaced first")
    await reason(api, RELAY_MINERS, namespace, "main", "PodsNotReady")
    assert (await miner_images(api, namespace, "main"))["main-miner-0"] == "m:1", "one miner at a time"
    await phase(api, namespace, "second", "Queued")

    operator.stop(kill=True)  # what is on the workloads is enough to go on
    nodes.broken.clear()
    operator.start()
    for name in ("main", "second"):
        await reason(api, RELAY_MINERS, namespace, name, "UpToDate", "UpToDate", seconds=90)
        assert await installed(api, namespace, name) == ("r:2", "m:2")
        assert set((await miner_images(api, namespace, name)).values()) == {"m:2"}
    await all_well(api, namespace, "alice")
    await all_well(api, namespace, "bob", relay_miner="second")


OTHER_RELEASE = """
import runpy
from pocket_operator.resources import pods
pods.CONTAINER_SECURITY = {**pods.CONTAINER_SECURITY, "procMount": "Default"}
runpy.run_module("pocket_operator", run_name="__main__", alter_sys=True)
"""
"""A release of the operator with the same images that renders another pod template."""


def is_of_other_release(pod):
    return any("procMount" in container["securityContext"] for container in pod["spec"]["containers"])


@pytest.mark.parametrize("upgrade", [True, False], ids=["upgrade", "downgrade"])
async def test_another_pod_template_of_a_release_reaches_relayers_then_miners_one_at_a_time(
    api, namespace, replicas, nodes, upgrade
):
    before, after = replicas
    (before if upgrade else after).program = ("-c", OTHER_RELEASE)
    for operator in replicas:
        operator.arguments = ("--update-delay-seconds", "1")
    before.start()
    first = changed(relay_miner(namespace), "spec.miner.replicas", 2)
    second = changed(changed(first, "metadata.name", "second"), "spec.updateStrategy", "supervised")
    await create(api, key_secret(namespace), first, second, supplier(namespace))
    await all_well(api, namespace, "alice")
    await reason(api, RELAY_MINERS, namespace, "second", "UpToDate", "UpToDate")
    for name in ("main", "second"):
        await rolled_out(api, namespace, name)
    uids = {pod["metadata"]["uid"] for pod in await api.list(PODS, namespace)}
    old = [is_of_other_release(pod) for pod in await api.list(PODS, namespace)]
    assert old == [upgrade] * 6

    nodes.rows[address("alice")] = {"closing": 1}
    before.stop()
    after.start()
    await phase(api, namespace, "main", "WaitingForWindows")
    await phase(api, namespace, "second", "AwaitingApproval")
    pods = await api.list(PODS, namespace)
    assert {pod["metadata"]["name"].rpartition("-")[0].removeprefix("main-relayer") for pod in pods} >= {"main-miner"}
    changed_pods = {pod["metadata"]["name"] for pod in pods if pod["metadata"]["uid"] not in uids}
    assert changed_pods, "the relayers come first"
    assert all(name.startswith("main-relayer-") for name in changed_pods), changed_pods

    # What the owner of the one that waits for approval changes is applied at once.
    dns = {"spec": {"relayer": {"podTemplate": {"spec": {"dnsPolicy": "Default"}}}}}
    await api.merge(RELAY_MINERS, namespace, "second", dns)

    async def applied():
        found = await api.get(BY_KIND["Deployment"], namespace, "second-relayer")
        return found["spec"]["template"]["spec"]["dnsPolicy"] == "Default"

    await eventually(applied, 30)
    miners = [p for p in await api.list(PODS, namespace) if p["metadata"]["name"].startswith("second-miner-")]
    assert {pod["metadata"]["uid"] for pod in miners} <= uids, "its miners still wait"

    nodes.broken["miner"] = ("ImagePullBackOff", "not yet")
    nodes.rows.clear()

    async def one_replaced():
        found = {p["metadata"]["name"]: p["metadata"]["uid"] in uids for p in await api.list(PODS, namespace)}
        return (found["main-miner-0"], found.get("main-miner-1", True)) == (True, False)

    await eventually(one_replaced, 60, "the last miner is replaced first, and only it")
    await reason(api, RELAY_MINERS, namespace, "main", "PodsNotReady")
    nodes.broken.clear()
    await reason(api, RELAY_MINERS, namespace, "main", "UpToDate", "UpToDate", seconds=90)
    await all_well(api, namespace, "alice")
    found = [
        is_of_other_release(p) for p in await api.list(PODS, namespace) if p["metadata"]["name"].startswith("main")
    ]
    assert found == [not upgrade] * 3


async def rolled_out(api, namespace, name):
    async def complete():
        found = await api.get(BY_KIND["StatefulSet"], namespace, f"{name}-miner")
        relayers = await api.get(BY_KIND["Deployment"], namespace, f"{name}-relayer")
        return found["status"].get("readyReplicas") == 2 and relayers["status"].get("readyReplicas") == 1

    await eventually(complete, 30, f"the pods of {name} are ready")
