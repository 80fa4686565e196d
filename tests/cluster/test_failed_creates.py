"""Pods that the API server refuses to create are named in the status, also those of the StatefulSet."""

from waits import all_well, create, reason

from pocket.kube.api_client import ResourceKind
from pocket_operator.resources.kinds import RELAY_MINERS
from resources import changed, key_secret, relay_miner, supplier

LIMITS = ResourceKind("v1", "limitranges", "LimitRange")


async def test_miners_that_a_limit_range_refuses_are_named_and_recover_once_it_is_gone(api, namespace, operator, nodes):
    limit = {"type": "Container", "max": {"memory": "512Mi"}}
    await api.create(LIMITS, namespace, {"metadata": {"name": "small"}, "spec": {"limits": [limit]}})
    body = changed(relay_miner(namespace), "spec.miner.resources", {"requests": {"memory": "1Gi"}})
    body = changed(body, "spec.relayer.resources", {"limits": {"memory": "256Mi"}})
    body = changed(body, "spec.progressDeadlineSeconds", 30)
    await create(api, key_secret(namespace), body, supplier(namespace))
    found = await reason(api, RELAY_MINERS, namespace, "main", "PodsNotReady")
    assert "StatefulSet main-miner cannot be created" in found["message"]
    assert "512Mi" in found["message"]
    stalled = await reason(api, RELAY_MINERS, namespace, "main", "ProgressDeadlineExceeded", "Stalled", seconds=60)
    assert "512Mi" in stalled["message"]
    await api.delete(LIMITS, namespace, "small")
    await all_well(api, namespace, "alice", seconds=90)
    await reason(api, RELAY_MINERS, namespace, "main", "NotStalled", "Stalled")
