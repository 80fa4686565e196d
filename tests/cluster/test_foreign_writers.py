"""Other clients that change, delete or damage what the operator works with."""

import contextlib

import pytest
import yaml
from conftest import define_kinds, operator_of_new_namespace
from rest import at_rest, metrics_of, reached, rounds
from waits import all_well, create, gone, published, reason

from kube import condition, eventually, kubelet
from pocket.api.crd import definitions
from pocket.kube.api_client import APPLY, KubeError, ObjectNotFound
from pocket_operator.controller.secrets import ROTATE, SEALING_PUBLIC, SEALING_SECRET
from pocket_operator.resources.kinds import BY_KIND, CONFIG_MAPS, EVENTS, RELAY_MINERS, SECRETS, SUPPLIERS
from resources import address, key_secret, relay_miner, supplier

DEPLOYMENT, STATEFUL_SET = BY_KIND["Deployment"], BY_KIND["StatefulSet"]

NOW = "2026-01-01T00:00:00Z"


def rpc_service(url):
    return {"id": "eth", "backends": {"jsonRpc": {"urls": [url]}}}


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


def writes(cluster, namespace):
    rows = cluster.writes_of(f"system:serviceaccount:{namespace}:pocket-operator")
    return sorted(row for row in rows if not row.endswith(("pocket-operator-canary", "leases pocket-operator")))


async def test_a_condition_that_another_client_adds_to_a_status_is_kept_and_makes_no_writes(
    api, cluster, running, operator
):
    condition_of = {"type": "Foreign", "status": "True", "reason": "Checked", "message": "", "lastTransitionTime": NOW}
    for kind, name in ((RELAY_MINERS, "main"), (SUPPLIERS, "alice")):
        body = {
            "apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name, "namespace": running},
            "status": {"conditions": [condition_of]},
        }  # fmt: skip
        path = kind.path(running, name, "status")
        await api.call("PATCH", path, body=body, query={"fieldManager": "checker"}, content_type=APPLY)
    await at_rest(api, operator, running)
    before, start = writes(cluster, running), rounds(operator)
    await eventually(lambda: reached(operator, start + 3), 30)
    assert writes(cluster, running) == before
    assert condition(await api.get(SUPPLIERS, running, "alice"), "Foreign")["reason"] == "Checked"


async def test_secrets_and_config_maps_that_cannot_be_changed_are_created_again(api, running, operator):
    for kind, name in ((SECRETS, "main-miner-keys"), (SECRETS, "main-relayer-keys"), (CONFIG_MAPS, "main-hot")):
        await api.merge(kind, running, name, {"immutable": True})
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"services": [rpc_service("http://other:8545")]}})
    await create(api, key_secret(running, "bob"), supplier(running, "bob"))
    await all_well(api, running, "alice", "bob", seconds=60)
    assert await published(api, running, "miner") == {address("alice"), address("bob")}


async def test_what_was_created_with_values_that_cannot_change_is_created_again(api, running, operator):
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    others = (
        (SECRETS, "main-miner-keys", {"type": "example.org/other"}),
        (BY_KIND["RoleBinding"], "main-miner", {"roleRef": role}),
        (BY_KIND["Service"], "main-miner", {"spec": {"ports": [{"port": 1}]}}),
    )
    operator.stop()
    for kind, name, content in others:
        known = await api.get(kind, running, name)
        await api.delete(kind, running, name)
        metadata = {key: known["metadata"][key] for key in ("name", "namespace", "labels")}
        await api.create(kind, running, {"metadata": metadata, **content})
    operator.start()

    async def mended():
        binding = await api.get(BY_KIND["RoleBinding"], running, "main-miner")
        service = await api.get(BY_KIND["Service"], running, "main-miner")
        right = binding["roleRef"]["name"] == "main-miner" and service["spec"]["clusterIP"] == "None"
        return right and await published(api, running, "miner") == {address("alice")}

    await eventually(mended, 60)
    await all_well(api, running, "alice")


async def test_a_drain_anchor_that_somebody_deletes_is_created_again_so_that_nothing_is_left(api, running, nodes):
    nodes.open[address("alice")] = 1
    await api.delete(RELAY_MINERS, running, "main")
    await gone(api, DEPLOYMENT, running, "main-relayer")
    before = await api.get(CONFIG_MAPS, running, "main-drain")
    await api.delete(CONFIG_MAPS, running, "main-drain")

    async def owned():
        anchor = await api.get(CONFIG_MAPS, running, "main-drain")
        owners = (await api.get(STATEFUL_SET, running, "main-miner"))["metadata"].get("ownerReferences") or ()
        uid = anchor["metadata"]["uid"]
        return uid != before["metadata"]["uid"] and uid in {row["uid"] for row in owners}

    await eventually(owned, 30, "the miners belong to the new anchor")
    assert await published(api, running, "miner") == {address("alice")}
    nodes.open.clear()
    await gone(api, RELAY_MINERS, running, "main", 60)
    for kind, name in ((CONFIG_MAPS, "main-drain"), (STATEFUL_SET, "main-miner"), (SECRETS, "main-miner-keys")):
        await gone(api, kind, running, name, 60)


async def test_a_finalizer_that_a_policy_keeps_holds_up_no_other_deletion_and_is_named(api, cluster, running, operator):
    await create(api, key_secret(running, "bob"), supplier(running, "bob"))
    await all_well(api, running, "alice", "bob")
    rule = {"apiGroups": ["pocket.network"], "apiVersions": ["*"], "resources": ["suppliers"], "operations": ["UPDATE"]}
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "ours", "expression": f"object.metadata.namespace == '{running}'"}],
        "validations": [{
            "expression": "object.metadata.name != 'alice' || has(object.metadata.finalizers)",
            "message": "alice is to stay",
        }],
    }  # fmt: skip
    name, version = f"keeps-{running}", "admissionregistration.k8s.io/v1"
    bound = {"policyName": name, "validationActions": ["Deny"]}
    rows = [
        {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, spec in (("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", bound))
    ]
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rows))
    try:
        await eventually(lambda: refused(api, running), 30, "the policy is in force")
        for who in ("alice", "bob"):
            await api.delete(SUPPLIERS, running, who)
        await gone(api, SUPPLIERS, running, "bob")
        found = await reason(api, SUPPLIERS, running, "alice", "APIServerRejected")
        assert "Its finalizer cannot be removed" in found["message"]
        assert "alice is to stay" in found["message"]
    finally:
        cluster.kubectl("delete", "-f", "-", stdin=yaml.safe_dump_all(rows))
    await gone(api, SUPPLIERS, running, "alice")


async def refused(api, namespace):
    try:
        patch = {"metadata": {"finalizers": None}}
        query = {"dryRun": "All"}
        path = SUPPLIERS.path(namespace, "alice")
        await api.call("PATCH", path, body=patch, query=query, content_type="application/merge-patch+json")
    except KubeError:
        return True
    return False


async def test_a_sealing_secret_that_cannot_be_changed_does_not_stop_the_operator(api, running, operator):
    requested = {"immutable": True, "metadata": {"annotations": {ROTATE: "requested"}}}
    await api.merge(SECRETS, running, SEALING_SECRET, requested)
    await api.merge(CONFIG_MAPS, running, SEALING_PUBLIC, {"immutable": True, "data": {"key-id": "another"}})
    operator.stop()
    operator.start()
    await create(api, key_secret(running, "bob"), supplier(running, "bob"))
    await all_well(api, running, "alice", "bob", seconds=60)
    assert await logged(operator, "write refused", SEALING_SECRET, "immutable")


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
