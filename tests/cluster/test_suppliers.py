"""Supplier keys: proven, published, taken up without restart, drained before they go."""

import base64
import contextlib
import json
import sys
import time

import pytest
from waits import all_well, create, gone, published, reason

from kube import condition, eventually
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE, Controller, Subject, seal
from pocket.kube.api_client import KubeError, ObjectNotFound
from pocket_operator.resources.kinds import BY_KIND, PODS, RELAY_MINERS, SECRETS, SUPPLIERS
from resources import address, changed, key_of, key_secret, relay_miner, secret, supplier

DEPLOYMENT, STATEFUL_SET, CONFIG_MAP = BY_KIND["Deployment"], BY_KIND["StatefulSet"], BY_KIND["ConfigMap"]


@pytest.fixture
async def running(api, namespace, operator, nodes):
    """Create a RelayMiner with one Supplier and wait until it is ready."""
    await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
    await all_well(api, namespace, "alice")
    return namespace


async def test_a_key_added_or_removed_reaches_running_pods_within_ten_seconds(api, running, nodes, capsys):
    pods = {p["metadata"]["uid"] for p in await api.list(PODS, running)}
    start = time.monotonic()
    await create(api, key_secret(running, "bob"), supplier(running, "bob"))
    await all_well(api, running, "bob")
    added = time.monotonic() - start
    start = time.monotonic()
    await api.delete(SUPPLIERS, running, "bob")

    async def refused():
        names = [p["metadata"]["name"] for p in await api.list(PODS, running)]
        return all(
            address("bob") not in nodes.report(name, "relayer")["addresses"] for name in names if "relayer" in name
        )

    await eventually(refused, 15)
    removed = time.monotonic() - start
    with capsys.disabled():
        sys.stdout.write(f"\nkey added and loaded by all pods in {added:.1f} s, gone in {removed:.1f} s (at most 10)\n")
    assert added <= 10
    assert removed <= 10
    assert {p["metadata"]["uid"] for p in await api.list(PODS, running)} == pods, "no pod was restarted"


async def test_a_missing_secret_is_waited_for_and_taken_up_when_it_comes(api, namespace, operator, nodes):
    await create(api, relay_miner(namespace), supplier(namespace))
    found = await reason(api, SUPPLIERS, namespace, "alice", "SecretMissing")
    assert "Create it" in found["message"]
    await create(api, key_secret(namespace))
    await all_well(api, namespace, "alice")


@pytest.mark.parametrize(
    ("entries", "why", "said"),
    [
        ({"other": "x"}, "SecretKeyMissing", "has no entry hex"),
        ({"hex": "not a key"}, "KeyMalformed", "64 hex digits"),
        ({"hex": ""}, "KeyMalformed", "64 hex digits"),
        ({"hex": key_of("mallory")}, "AddressMismatch", address("mallory")),
    ],
)
async def test_a_broken_secret_is_named_and_the_last_good_key_stays(api, running, entries, why, said):
    broken = secret(running, "alice-key", **entries)["data"]
    whole = await api.get(SECRETS, running, "alice-key")
    await api.replace(SECRETS, running, {**whole, "data": broken})
    found = await reason(api, SUPPLIERS, running, "alice", why)
    assert said in found["message"]
    assert "last good key stays in use" in found["message"]
    assert key_of("mallory") not in found["message"]
    assert await published(api, running, "relayer") == {address("alice")}
    await api.replace(SECRETS, running, {**await api.get(SECRETS, running, "alice-key"), **key_secret(running)})
    await all_well(api, running, "alice")


async def test_a_deleted_secret_leaves_the_last_good_key_in_use(api, running):
    await api.delete(SECRETS, running, "alice-key")
    await reason(api, SUPPLIERS, running, "alice", "SecretMissing")
    assert await published(api, running, "relayer") == {address("alice")}
    await create(api, key_secret(running))
    await all_well(api, running, "alice")


async def test_one_address_is_used_by_one_supplier_the_oldest(api, running):
    await create(api, relay_miner(running, "other"))
    await create(
        api,
        {**supplier(running, "twin", "other", operatorAddress=address("alice"),
                    key={"secretRef": {"name": "alice-key", "key": "hex"}})},
    )  # fmt: skip
    found = await reason(api, SUPPLIERS, running, "twin", "KeyInUse")
    assert condition(await api.get(SUPPLIERS, running, "twin"), "Stalled")["status"] == "True"
    assert "older Supplier" in found["message"]
    assert await published(api, running, "relayer", "other") == set()
    await api.delete(SUPPLIERS, running, "alice")
    await gone(api, SUPPLIERS, running, "alice")
    await all_well(api, running, "twin", relay_miner="other")


async def test_a_deleted_supplier_is_refused_at_once_and_leaves_once_its_sessions_are_over(api, running, nodes):
    nodes.open[address("alice")] = 2
    await api.delete(SUPPLIERS, running, "alice")

    async def draining():
        return await published(api, running, "relayer") == set()

    await eventually(draining)
    found = await reason(api, SUPPLIERS, running, "alice", "Draining")
    await reason(api, SUPPLIERS, running, "alice", "Draining", "Reconciling")
    assert await published(api, running, "miner") == {address("alice")}, "its claims and proofs need the key"

    async def told(what):
        return what in condition(await api.get(SUPPLIERS, running, "alice"), "KeysLoaded")["message"]

    await eventually(lambda: told("2 sessions are on their way"))
    assert found
    nodes.leaving.add(address("alice"))
    nodes.open[address("alice")] = 0
    await eventually(lambda: told("has relays of it to record"))
    nodes.leaving.clear()
    await gone(api, SUPPLIERS, running, "alice")

    async def let_go():
        return await published(api, running, "miner") == set()

    await eventually(let_go)


async def test_the_user_may_delete_secret_and_supplier_at_once(api, running, nodes):
    """As Argo CD prunes: the merged key set still holds what the open sessions need."""
    nodes.open[address("alice")] = 1
    await api.delete(SECRETS, running, "alice-key")
    await api.delete(SUPPLIERS, running, "alice")

    async def draining():
        return await published(api, running, "relayer") == set()

    await eventually(draining)
    assert await published(api, running, "miner") == {address("alice")}
    nodes.open.clear()
    await gone(api, SUPPLIERS, running, "alice")


@pytest.mark.parametrize("way", ["annotation", "deadline"])
async def test_a_drain_that_never_ends_can_be_forced_and_has_a_deadline(api, running, nodes, way):
    nodes.open[address("alice")] = 5
    if way == "deadline":
        await api.merge(RELAY_MINERS, running, "main", {"spec": {"deletion": {"drainDeadlineSeconds": 6}}})
    begun = time.monotonic()
    await api.delete(SUPPLIERS, running, "alice")
    if way == "annotation":
        await reason(api, SUPPLIERS, running, "alice", "Draining")
        escape = {"metadata": {"annotations": {"pocket.network/force-delete": "true"}}}
        await api.merge(SUPPLIERS, running, "alice", escape)
    await gone(api, SUPPLIERS, running, "alice")
    if way == "deadline":
        assert time.monotonic() - begun >= 5, "its time of deletion is told in whole seconds"


async def test_a_paused_relay_miner_is_deleted_only_by_force(api, running, nodes):
    nodes.open[address("alice")] = 5
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"paused": True}})
    for kind, name in ((RELAY_MINERS, "main"), (SUPPLIERS, "alice")):
        await api.delete(kind, running, name)

    async def told():
        found = condition(await api.get(RELAY_MINERS, running, "main"), "Ready")
        assert found["reason"] == "Paused"
        assert "force-delete" in found["message"], found
        return True

    await eventually(told)
    assert await api.get_or_none(DEPLOYMENT, running, "main-relayer")
    escape = {"metadata": {"annotations": {"pocket.network/force-delete": "true"}}}
    await api.merge(RELAY_MINERS, running, "main", escape)
    for kind, name in ((RELAY_MINERS, "main"), (SUPPLIERS, "alice"), (DEPLOYMENT, "main-relayer")):
        await gone(api, kind, running, name)


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_a_deleted_relay_miner_stops_serving_and_mines_on_until_all_is_settled(api, running, nodes, policy):
    nodes.open[address("alice")] = 1
    await api.call("DELETE", RELAY_MINERS.path(running, "main"), body={"propagationPolicy": policy})
    await gone(api, DEPLOYMENT, running, "main-relayer")
    found = await reason(api, RELAY_MINERS, running, "main", "Draining")
    assert "1 suppliers" in found["message"]
    assert await api.get_or_none(STATEFUL_SET, running, "main-miner")
    assert await published(api, running, "miner") == {address("alice")}
    nodes.open.clear()
    await gone(api, RELAY_MINERS, running, "main")
    await gone(api, STATEFUL_SET, running, "main-miner")
    await gone(api, SECRETS, running, "main-miner-keys")
    await reason(api, SUPPLIERS, running, "alice", "RelayMinerMissing")
    await api.delete(SUPPLIERS, running, "alice")
    await gone(api, SUPPLIERS, running, "alice")


async def test_everything_pruned_at_once_drains_and_leaves_nothing(api, running, nodes):
    nodes.open[address("alice")] = 1
    for kind, name in ((RELAY_MINERS, "main"), (SUPPLIERS, "alice"), (SECRETS, "alice-key")):
        await api.delete(kind, running, name)
    await gone(api, DEPLOYMENT, running, "main-relayer")
    await reason(api, RELAY_MINERS, running, "main", "Draining")
    assert await published(api, running, "miner") == {address("alice")}
    nodes.open.clear()
    await gone(api, SUPPLIERS, running, "alice")
    await gone(api, RELAY_MINERS, running, "main")
    await gone(api, STATEFUL_SET, running, "main-miner")


async def test_a_supplier_without_its_relay_miner_waits_for_it(api, namespace, operator, nodes):
    await create(api, key_secret(namespace), supplier(namespace))
    found = await reason(api, SUPPLIERS, namespace, "alice", "RelayMinerMissing")
    assert "RelayMiner main does not exist" in found["message"]
    await create(api, relay_miner(namespace))
    await all_well(api, namespace, "alice")


def no_finalizer_on_bob(namespace):
    """Return a policy of the cluster that denies finalizers on the Supplier bob."""
    name, api_version = f"no-finalizer-{namespace}", "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": ["pocket.network"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["suppliers"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    denied = {"expression": "object.metadata.name != 'bob' || !has(object.metadata.finalizers)", "message": "not here"}
    policy = {
        "apiVersion": api_version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {"matchConstraints": {"namespaceSelector": here, "resourceRules": [rule]}, "validations": [denied]},
    }  # fmt: skip
    binding = {
        "apiVersion": api_version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "List", "items": [policy, binding]}


async def test_a_supplier_that_a_policy_lets_nobody_protect_holds_up_no_other(
    api, cluster, namespace, operator, nodes, tmp_path
):
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(no_finalizer_on_bob(namespace)))
    cluster.kubectl("apply", "-f", str(file))
    bob = supplier(namespace, "bob")
    elsewhere = changed(bob, "spec.relayMinerRef.name", "elsewhere")
    await create(api, elsewhere)

    async def denied():
        try:
            await api.merge(SUPPLIERS, namespace, "bob", {"metadata": {"finalizers": ["example.org/probe"]}})
        except KubeError as error:
            return "not here" in str(error)
        await api.merge(SUPPLIERS, namespace, "bob", {"metadata": {"finalizers": None}})
        return False

    await eventually(denied)
    await api.delete(SUPPLIERS, namespace, "bob")
    await create(api, key_secret(namespace), key_secret(namespace, "bob"), relay_miner(namespace), bob)
    await reason(api, SUPPLIERS, namespace, "bob", "APIServerRejected")
    await create(api, supplier(namespace))

    async def served():
        return condition(await api.get(SUPPLIERS, namespace, "alice"), "Ready").get("status") == "True"

    await eventually(served)
    assert await published(api, namespace, "relayer") == {address("alice")}
    cluster.kubectl("delete", "-f", str(file))
    await all_well(api, namespace, "alice", "bob")


async def controller_key(api, namespace: str) -> bytes:
    async def there():
        return await api.get(CONFIG_MAP, namespace, "pocket-operator-sealing-public")

    return base64.b64decode((await eventually(there))["data"]["public-key"])


async def test_a_sealed_key_is_opened_by_the_operator_only_and_only_for_its_supplier(api, cluster, namespace, operator,
                                                                                   nodes):  # fmt: skip
    public = await controller_key(api, namespace)
    sealed = seal(public, Subject(namespace, "alice", address("alice")), key_of("alice"))
    await create(api, relay_miner(namespace), supplier(namespace, key={"sealed": sealed}))
    await all_well(api, namespace, "alice")
    moved = changed(supplier(namespace, "bob", key={"sealed": sealed}), "spec.operatorAddress", address("bob"))
    await create(api, moved)
    found = await reason(api, SUPPLIERS, namespace, "bob", "SealedKeyScopeMismatch")
    assert "for this Supplier" in found["message"]
    await create(api, supplier(namespace, "carol", key={"sealed": sealed[:80] + "A" * 80}))
    await reason(api, SUPPLIERS, namespace, "carol", "SealedKeyInvalid")
    shown = cluster.kubectl("-n", namespace, "get", "rm,sup,events,cm", "-o", "yaml").stdout + operator.text()
    assert key_of("alice") not in shown


async def test_a_key_sealed_to_its_namespaces_own_key_waits_for_it_and_is_resealed_to_a_newer_one(
    api, namespace, operator, nodes
):
    old, new = (Controller.of([bytes([n]) * 32]) for n in (1, 2))
    entries = {name: base64.b64encode(keys.keys[0]).decode() for name, keys in (("1", old), ("2", new))}
    subject = Subject(namespace, "alice", address("alice"))
    sealed = supplier(namespace, key={"sealed": seal(old.newest, subject, key_of("alice"))})
    await create(api, relay_miner(namespace), sealed)
    found = await reason(api, SUPPLIERS, namespace, "alice", "SealingKeyNotFound")
    assert "Secret pocket-sealing of the namespace" in found["message"]
    await create(api, secret(namespace, SECRET_OF_NAMESPACE, **{"1": entries["1"]}))
    await all_well(api, namespace, "alice")
    await api.replace(SECRETS, namespace, secret(namespace, SECRET_OF_NAMESPACE, **entries))

    async def offered():
        return (await api.get(SUPPLIERS, namespace, "alice"))["status"].get("resealed")

    assert new.open(await eventually(offered, 30), subject) == key_of("alice")
    await api.delete(SECRETS, namespace, SECRET_OF_NAMESPACE)
    found = await reason(api, SUPPLIERS, namespace, "alice", "SealingKeyNotFound")
    assert "last good key stays in use" in found["message"]
    assert await published(api, namespace, "relayer") == {address("alice")}


async def test_an_emptied_secret_of_sealing_keys_stops_nothing_and_its_backup_is_taken_again(
    api, namespace, operator, nodes
):
    public = await controller_key(api, namespace)
    backup = await api.get(SECRETS, namespace, "pocket-operator-sealing")

    async def warned():
        return "Secret without a valid sealing key" in operator.text()

    await api.merge(SECRETS, namespace, "pocket-operator-sealing", {"data": dict.fromkeys(backup["data"])})
    await eventually(warned, 60)
    sealed = seal(public, Subject(namespace, "alice", address("alice")), key_of("alice"))
    await create(api, relay_miner(namespace), supplier(namespace, key={"sealed": sealed}))
    await all_well(api, namespace, "alice")
    await api.merge(SECRETS, namespace, "pocket-operator-sealing", {"data": backup["data"]})
    assert await controller_key(api, namespace) == public


async def test_a_rotated_controller_key_still_opens_and_offers_the_resealed_text(api, namespace, operator, nodes):
    old = await controller_key(api, namespace)
    sealed = seal(old, Subject(namespace, "alice", address("alice")), key_of("alice"))
    await create(api, relay_miner(namespace), supplier(namespace, key={"sealed": sealed}))
    await all_well(api, namespace, "alice")
    ask = {"metadata": {"annotations": {"pocket.network/rotate": "requested"}}}
    await api.merge(SECRETS, namespace, "pocket-operator-sealing", ask)

    async def offered():
        return (await api.get(SUPPLIERS, namespace, "alice"))["status"].get("resealed")

    resealed = await eventually(offered, 30)
    assert await controller_key(api, namespace) != old
    await all_well(api, namespace, "alice")
    await api.merge(SUPPLIERS, namespace, "alice", {"spec": {"key": {"sealed": resealed}}})

    async def taken():
        return not (await api.get(SUPPLIERS, namespace, "alice"))["status"].get("resealed")

    await eventually(taken, 30)
    await all_well(api, namespace, "alice")


async def test_a_merged_secret_and_pods_that_vanish_together_let_no_open_session_go(api, running, replicas, nodes):
    """The finalizer is the evidence that the key was published, and only a miner's report is evidence of the end."""
    nodes.open[address("alice")] = 2
    replicas[0].stop(kill=True)
    nodes.running = False
    await api.delete(SUPPLIERS, running, "alice")
    for name in ("alice-key", "main-miner-keys", "main-relayer-keys"):
        await api.delete(SECRETS, running, name)
    await api.delete(DEPLOYMENT, running, "main-relayer")
    await api.delete(STATEFUL_SET, running, "main-miner")
    for pod in await api.list(PODS, running):
        with contextlib.suppress(ObjectNotFound):  # its kubelet was about to remove it
            await api.call("DELETE", PODS.path(running, pod["metadata"]["name"]), body={"gracePeriodSeconds": 0})
    replicas[1].start()

    async def waits(what):
        return what in condition(await api.get(SUPPLIERS, running, "alice"), "KeysLoaded")["message"]

    await eventually(lambda: waits("its open sessions are unknown"), 60)
    nodes.running = True
    await create(api, key_secret(running))
    await eventually(lambda: waits("2 sessions are on their way"), 60)
    nodes.open.clear()
    await gone(api, SUPPLIERS, running, "alice", 60)
