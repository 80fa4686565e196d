"""Volumes grow with spec.miner.storage on a real API server, where the storage class allows it."""

import pytest
from waits import create, reason

from kube import eventually
from pocket_operator.controller.volume_expander import VOLUME_CLAIMS
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS
from resources import changed, key_secret, relay_miner, supplier

CLAIM = "data-main-miner-0"


async def requested(api, namespace: str) -> str:
    claim = await api.get(VOLUME_CLAIMS, namespace, CLAIM)
    return str(claim["spec"]["resources"]["requests"]["storage"])


@pytest.fixture
async def bound(api, cluster, namespace, operator, nodes, request):
    """Run a miner whose volume is bound. The parameter is whether its storage class allows expansion."""
    name = f"class-{namespace}"
    storage_class = {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "example.org/none", "allowVolumeExpansion": request.param,
    }  # fmt: skip
    await api.call("POST", "/apis/storage.k8s.io/v1/storageclasses", body=storage_class)
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": name,
            "claimRef": {"namespace": namespace, "name": CLAIM}, "hostPath": {"path": "/nowhere"},
        },
    }  # fmt: skip
    await api.call("POST", "/api/v1/persistentvolumes", body=volume)
    resource = changed(relay_miner(namespace), "spec.miner", {"storageClassName": name})
    await create(api, key_secret(namespace), resource, supplier(namespace))

    async def is_bound():
        claim = await api.get_or_none(VOLUME_CLAIMS, namespace, CLAIM)
        return claim is not None and claim["status"].get("phase") == "Bound"

    await eventually(is_bound, 60, "the claim bound")
    yield namespace
    await api.call("DELETE", f"/apis/storage.k8s.io/v1/storageclasses/{name}")
    await api.call("DELETE", f"/api/v1/persistentvolumes/{name}")


@pytest.mark.parametrize("bound", [True], indirect=True)
async def test_a_larger_size_lets_the_volume_grow_and_leaves_the_stateful_set_alone(api, bound):
    before = await api.get(BY_KIND["StatefulSet"], bound, "main-miner")
    await api.merge(RELAY_MINERS, bound, "main", {"spec": {"miner": {"storage": "20Gi"}}})

    async def grown():
        return await requested(api, bound) == "20Gi"

    await eventually(grown, 30, "the claim asks for more")
    await reason(api, RELAY_MINERS, bound, "main", "VolumeExpanding", "VolumesHealthy")
    await api.merge(
        VOLUME_CLAIMS, bound, CLAIM, {"status": {"capacity": {"storage": "20Gi"}}}, subresource="status"
    )  # as the driver's resizer
    await reason(api, RELAY_MINERS, bound, "main", "VolumesFine", "VolumesHealthy")
    after = await api.get(BY_KIND["StatefulSet"], bound, "main-miner")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"] == before["spec"]


@pytest.mark.parametrize("bound", [False], indirect=True)
async def test_a_class_without_expansion_is_in_the_status_with_the_servers_words(api, bound):
    await api.merge(RELAY_MINERS, bound, "main", {"spec": {"miner": {"storage": "20Gi"}}})
    found = await reason(api, RELAY_MINERS, bound, "main", "VolumeNotExpanded", "VolumesHealthy")
    assert found["status"] == "False"
    assert CLAIM in found["message"]
    assert "resize" in found["message"]
    assert await requested(api, bound) == "10Gi"
