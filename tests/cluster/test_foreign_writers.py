"""Other clients that change, delete or damage what the operator works with."""

import contextlib

import pytest
from conftest import define_kinds, operator_of_new_namespace
from rest import metrics_of
from waits import all_well, create, gone, published, reason

from kube import condition, eventually, kubelet
from pocket.api.crd import definitions
from pocket.kube.api_client import ObjectNotFound
from pocket_operator.resources.kinds import BY_KIND, CONFIG_MAPS, EVENTS, RELAY_MINERS, SUPPLIERS
from resources import address, key_secret, relay_miner, supplier

DEPLOYMENT, STATEFUL_SET = BY_KIND["Deployment"], BY_KIND["StatefulSet"]


@pytest.fixture
async def running(api, namespace, operator, nodes):
    await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
    await all_well(api, namespace, "alice")
    return namespace


async def event(api, namespace, wanted, name):
    async def look():
        rows = await api.list(EVENTS, namespace, fields=f"involvedObject.name={name},reason={wanted}")
        return rows[0] if rows else None

    return await eventually(look, 30, f"an event {wanted} of {name}")


async def test_a_client_that_changes_the_same_field_again_and_again_is_named_in_a_warning(api, running, operator):
    async def repaired():
        return (await api.get(DEPLOYMENT, running, "main-relayer"))["spec"]["replicas"] == 1

    for replicas in (5, 6, 7):
        patch = {"spec": {"replicas": replicas}}
        await api.merge(DEPLOYMENT, running, "main-relayer", patch, manager="autoscaler", subresource="scale")
        await eventually(repaired, 30)
    found = await event(api, running, "Contested", "main")
    assert found["type"] == "Warning"
    assert "Deployment main-relayer: autoscaler (subresource scale) sets spec.replicas" in found["message"]
    assert 'pocket_operator_contested_writes_total{kind="Deployment"} 1.0' in metrics_of(operator)


async def test_miners_go_on_with_open_sessions_though_somebody_removed_their_relay_miner_and_its_finalizer(
    api, running, nodes, replicas
):
    nodes.open[address("alice")] = 1
    before = (await api.get(STATEFUL_SET, running, "main-miner"))["metadata"]["uid"]
    await api.delete(RELAY_MINERS, running, "main")
    await api.delete(SUPPLIERS, running, "alice")
    with contextlib.suppress(ObjectNotFound):
        await api.merge(RELAY_MINERS, running, "main", {"metadata": {"finalizers": None}})
    await gone(api, RELAY_MINERS, running, "main")
    await gone(api, DEPLOYMENT, running, "main-relayer")
    found = await event(api, running, "Draining", "main-drain")
    assert "RelayMiner main is gone, and its miners go on" in found["message"]
    replicas[0].stop(kill=True)
    replicas[0].start()

    async def waits():
        return "1 sessions" in condition(await api.get(SUPPLIERS, running, "alice"), "KeysLoaded")["message"]

    await eventually(waits, 60)
    assert (await api.get(STATEFUL_SET, running, "main-miner"))["metadata"]["uid"] == before
    assert await published(api, running, "miner") == {address("alice")}
    nodes.open.clear()
    await gone(api, SUPPLIERS, running, "alice", 60)
    await gone(api, CONFIG_MAPS, running, "main-drain", 60)
    await gone(api, STATEFUL_SET, running, "main-miner", 60)


async def test_a_relay_miner_that_is_created_again_takes_back_its_miners(api, running, nodes):
    nodes.open[address("alice")] = 1
    await api.delete(RELAY_MINERS, running, "main")
    await api.merge(RELAY_MINERS, running, "main", {"metadata": {"finalizers": None}})
    await gone(api, RELAY_MINERS, running, "main")
    await gone(api, DEPLOYMENT, running, "main-relayer")
    await event(api, running, "Draining", "main-drain")
    before = (await api.get(STATEFUL_SET, running, "main-miner"))["metadata"]["uid"]
    await create(api, relay_miner(running))
    await all_well(api, running, "alice", seconds=60)
    assert (await api.get(STATEFUL_SET, running, "main-miner"))["metadata"]["uid"] == before


async def test_a_secret_that_the_api_server_cannot_decode_concerns_its_supplier_only(own, tmp_path):
    define_kinds(own, definitions().values())
    async with own.api() as api:
        operator = await operator_of_new_namespace(own, api, tmp_path)
        namespace = operator.namespace
        try:
            async with kubelet(api, namespace):
                await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
                own.store(f"secrets/{namespace}/bob-key", b"k8s:enc:aescbc:v1:lost:garbage")
                await create(api, supplier(namespace, "bob"))
                found = await reason(api, SUPPLIERS, namespace, "bob", "APIServerRejected")
                assert "Secret bob-key cannot be read: GET" in found["message"]

                async def serves():
                    return await published(api, namespace, "miner") == {address("alice")}

                await eventually(serves, 30)
                # A known key whose Secret is damaged stays in use, and a Supplier still drains and leaves.
                own.store(f"secrets/{namespace}/alice-key", b"k8s:enc:aescbc:v1:lost:garbage")
                await eventually(lambda: logged(operator, "cannot read a Secret", "alice-key"), 30)
                assert await serves()
                await api.delete(SUPPLIERS, namespace, "bob")
                await gone(api, SUPPLIERS, namespace, "bob")
                # The merged Secret: nothing is concluded from it, and the status names it.
                own.store(f"secrets/{namespace}/main-miner-keys", b"k8s:enc:aescbc:v1:lost:garbage")
                found = await reason(api, RELAY_MINERS, namespace, "main", "APIServerRejected")
                assert "Secret main-miner-keys" in found["message"]
        finally:
            operator.stop(kill=True)


async def logged(operator, *words):
    return any(all(word in line for word in words) for line in operator.text().splitlines())
