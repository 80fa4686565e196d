"""From resources to running children, and back when somebody changes them."""

import pytest
import yaml
from rest import at_rest, metrics_of, reached, rounds, versions
from waits import create, reason

from kube import condition, eventually
from pocket.kube.api_client import KubeApi
from pocket_operator.resources import names
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS, SECRETS, SUPPLIERS
from resources import address, changed, key_of, key_secret, relay_miner, supplier

DEPLOYMENT, STATEFUL_SET = BY_KIND["Deployment"], BY_KIND["StatefulSet"]
SERVICE, CONFIG_MAP = BY_KIND["Service"], BY_KIND["ConfigMap"]


async def ready(api: KubeApi, kind, namespace: str, name: str):
    async def look():
        found = await api.get(kind, namespace, name)
        return found if condition(found, "Ready").get("status") == "True" else None

    return await eventually(look, 30, f"{kind.name} {name} ready")


@pytest.fixture
async def running(api, namespace, operator, nodes):
    """Create a RelayMiner with one Supplier and wait until it is ready."""
    await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
    await ready(api, RELAY_MINERS, namespace, "main")
    await ready(api, SUPPLIERS, namespace, "alice")
    return namespace


async def test_applying_a_relay_miner_and_a_supplier_makes_everything_they_need(api, running):
    for kind, name in (
        ("Deployment", "main-relayer"), ("StatefulSet", "main-miner"), ("Service", "main-relayer"),
        ("Service", "main-miner"), ("ConfigMap", "main-config"), ("ConfigMap", "main-hot"),
        ("Secret", "main-relayer-keys"), ("Secret", "main-miner-keys"), ("ServiceAccount", "main-relayer"),
        ("ServiceAccount", "main-miner"), ("Role", "main-miner"), ("RoleBinding", "main-miner"),
        ("PodDisruptionBudget", "main-relayer"), ("PodDisruptionBudget", "main-miner"),
    ):  # fmt: skip
        child = await api.get(BY_KIND[kind], running, name)
        owner = child["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("RelayMiner", "main", True)
    whole = await api.get(RELAY_MINERS, running, "main")
    assert whole["status"]["observedGeneration"] == whole["metadata"]["generation"]
    assert {c["type"]: c["status"] for c in whole["status"]["conditions"]} == {
        "Ready": "True", "Reconciling": "False", "Stalled": "False", "Paused": "False", "KeysLoaded": "True",
        "RedisReachable": "True", "VolumesHealthy": "True", "ChainReachable": "True", "ClaimsHealthy": "True",
        "SchemaCurrent": "True", "SuppliersServed": "True", "UpToDate": "True",
        "AuditTrailsIntact": "Unknown",
    }  # fmt: skip
    assert (whole["status"]["relayers"]["summary"], whole["status"]["miners"]["summary"]) == ("1/1", "1/1")
    assert whole["status"]["served"] == "1/1"
    one = await api.get(SUPPLIERS, running, "alice")
    assert one["status"]["loadedBy"] == "2/2"
    assert one["status"]["address"] == address("alice")
    assert one["status"]["miner"] == "main-miner-0"


def writes(cluster, namespace: str) -> list[str]:
    """Return the operator's writes from the audit log, without Lease renewals and the watch heartbeat."""
    found = cluster.writes_of(f"system:serviceaccount:{namespace}:pocket-operator")
    return [row for row in found if " leases " not in row and not row.endswith("pocket-operator-canary")]


async def test_at_rest_the_operator_writes_nothing(api, cluster, running, operator):
    """I8, counted at the API server over several rounds of looking at everything."""
    settled: list[str] = []

    async def quiet():
        nonlocal settled
        before, settled = settled, writes(cluster, running)
        start = rounds(operator)
        await eventually(lambda: reached(operator, start + 1), 30)
        return before == settled

    await eventually(quiet, 60, "no writes between two rounds")
    assert any(row.startswith("patch deployments") for row in settled), "the log does count"
    objects, start = await at_rest(api, operator, running), rounds(operator)
    await eventually(lambda: reached(operator, start + 3), 30)
    assert writes(cluster, running) == settled
    assert await versions(api, running) == objects


async def test_restarting_the_operator_changes_nothing(api, running, replicas):
    before = await at_rest(api, replicas[0], running)
    assert replicas[0].stop() == 0
    replicas[1].start()
    await eventually(lambda: reached(replicas[1], 3), 30)
    assert await versions(api, running) == before


@pytest.mark.parametrize(("kind", "name"), [
    ("Service", "main-relayer"), ("ConfigMap", "main-config"), ("Deployment", "main-relayer"),
    ("Secret", "main-miner-keys"), ("Role", "main-miner"), ("PodDisruptionBudget", "main-relayer"),
])  # fmt: skip
async def test_a_deleted_child_comes_back(api, running, kind, name):
    before = await api.get(BY_KIND[kind], running, name)
    await api.delete(BY_KIND[kind], running, name)

    async def back():
        return (await api.get(BY_KIND[kind], running, name))["metadata"]["uid"] != before["metadata"]["uid"]

    await eventually(back)


@pytest.mark.parametrize(("kind", "name", "patch", "place"), [
    ("Deployment", "main-relayer", {"spec": {"replicas": 7}}, ("spec", "replicas")),
    ("Deployment", "main-relayer", {"spec": {"template": {"spec": {"serviceAccountName": "default"}}}},
     ("spec", "template", "spec", "serviceAccountName")),
    ("ConfigMap", "main-config", {"data": {"relayer.json": "{}"}}, ("data", "relayer.json")),
    ("Secret", "main-relayer-keys", {"data": {address("alice"): "AAAA"}}, ("data", address("alice"))),
    ("Service", "main-relayer", {"spec": {"selector": {"app.kubernetes.io/component": "x"}}}, ("spec", "selector")),
    ("StatefulSet", "main-miner", {"metadata": {"ownerReferences": None}}, ("metadata", "ownerReferences")),
    ("Role", "main-miner", {"rules": []}, ("rules",)),
    # What would keep pods from ever being replaced.
    ("Deployment", "main-relayer", {"spec": {"paused": True}}, ("spec",)),
    ("StatefulSet", "main-miner", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 5}}}},
     ("spec", "updateStrategy")),
    # Entries more, where one more changes what the rest means.
    ("Secret", "main-miner-keys", {"data": {address("eve"): "AAAA"}}, ("data",)),
    ("ConfigMap", "main-hot", {"data": {"more": "x"}}, ("data",)),
    ("Service", "main-relayer", {"spec": {"selector": {"app": "other"}}}, ("spec", "selector")),
    ("PodDisruptionBudget", "main-relayer", {"spec": {"maxUnavailable": None, "minAvailable": 9}}, ("spec",)),
    # What the API server refuses together with ours.
    ("Service", "main-relayer", {"spec": {"ports": [{"name": "relays", "port": 81}]}}, ("spec", "ports")),
    ("Deployment", "main-relayer", {"spec": {"template": {"spec": {"containers": [
        {"name": "relayer", "image": "i", "ports": [{"name": "relays", "containerPort": 81}]}]}}}},
     ("spec", "template", "spec", "containers")),
])  # fmt: skip
async def test_what_somebody_changed_by_hand_is_put_right(api, running, kind, name, patch, place):
    def at(observed):
        for part in place:
            observed = observed[part]
        return observed

    good = at(await api.get(BY_KIND[kind], running, name))
    await api.merge(BY_KIND[kind], running, name, patch, manager="somebody")

    async def back():
        found = await api.get(BY_KIND[kind], running, name)
        assert at(found) == good
        owners = {row["manager"] for row in found["metadata"]["managedFields"]}
        assert names.FIELD_MANAGER in owners
        assert not [owner for owner in owners if owner.endswith("-repair")], "it would own fields for ever"
        return True

    await eventually(back)


async def test_what_others_add_to_a_child_stays(api, running):
    """Sidecar injectors, policy engines and autoscalers own fields of their own."""
    patch = {"metadata": {"annotations": {"policy.example/checked": "yes"}, "labels": {"injected": "true"}}}
    await api.merge(DEPLOYMENT, running, "main-relayer", patch, manager="policy-engine")
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"relayer": {"replicas": 2}}})

    async def scaled():
        found = await api.get(DEPLOYMENT, running, "main-relayer")
        return found if found["spec"]["replicas"] == 2 else None

    found = await eventually(scaled)
    assert found["metadata"]["annotations"]["policy.example/checked"] == "yes"
    assert found["metadata"]["labels"]["injected"] == "true"


async def test_a_field_taken_out_of_the_resource_leaves_the_child(api, running):
    await api.merge(
        RELAY_MINERS, running, "main", {"spec": {"relayer": {"podTemplate": {"nodeSelector": {"disk": "fast"}}}}}
    )

    def pod_spec(found):
        return found["spec"]["template"]["spec"]

    async def there():
        return pod_spec(await api.get(DEPLOYMENT, running, "main-relayer")).get("nodeSelector") == {"disk": "fast"}

    await eventually(there)
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"relayer": {"podTemplate": {"nodeSelector": None}}}})

    async def gone():
        return "nodeSelector" not in pod_spec(await api.get(DEPLOYMENT, running, "main-relayer"))

    await eventually(gone)


async def test_an_object_that_somebody_else_made_is_refused_and_named(api, namespace, operator, nodes):
    foreign = {"metadata": {"name": "main-relayer"}, "spec": {"ports": [{"port": 1}]}}
    made = await api.create(SERVICE, namespace, foreign)
    await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))

    async def stalled():
        found = condition(await api.get(RELAY_MINERS, namespace, "main"), "Stalled")
        return found if found.get("status") == "True" else None

    found = await eventually(stalled)
    assert found["reason"] == "ForeignObject"
    assert "Service main-relayer" in found["message"]
    assert (await api.get(SERVICE, namespace, "main-relayer"))["spec"] == made["spec"]
    await api.delete(SERVICE, namespace, "main-relayer")
    await ready(api, RELAY_MINERS, namespace, "main")


def template_of(found) -> dict:
    return found["spec"]["template"]


async def test_config_that_needs_a_restart_rolls_and_config_that_is_hot_does_not(api, running):
    first = await api.get(DEPLOYMENT, running, "main-relayer")
    miner = await api.get(STATEFUL_SET, running, "main-miner")
    await create(api, key_secret(running, "bob"), supplier(running, "bob", services=["eth"]))

    async def both():
        keys = (await api.get(SECRETS, running, "main-relayer-keys"))["data"]
        return set(keys) == {address("alice"), address("bob")}

    await eventually(both)
    assert "eth" in (await api.get(CONFIG_MAP, running, "main-hot"))["data"]["hot.json"]
    assert template_of(await api.get(DEPLOYMENT, running, "main-relayer")) == template_of(first)
    url = ["http://geth:8545", "http://geth-2:8545"]
    service = changed(relay_miner(running), "spec.services.0.backends.jsonRpc.urls", url)["spec"]["services"]
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"services": service}})

    async def taken_up():
        return "geth-2" in (await api.get(CONFIG_MAP, running, "main-hot"))["data"]["hot.json"]

    await eventually(taken_up)
    assert template_of(await api.get(DEPLOYMENT, running, "main-relayer")) == template_of(first), "backends are hot"
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"relayer": {"workers": 3}}})

    async def rolled():
        return template_of(await api.get(DEPLOYMENT, running, "main-relayer")) != template_of(first)

    await eventually(rolled)
    assert template_of(await api.get(STATEFUL_SET, running, "main-miner")) == template_of(miner), "no worker there"


async def _replicas(api: KubeApi, namespace: str, number: int) -> bool:
    return (await api.get(DEPLOYMENT, namespace, "main-relayer"))["spec"]["replicas"] == number


async def test_under_an_autoscaler_replicas_belong_to_it(api, running):
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"relayer": {"replicas": 4}}})
    await eventually(lambda: _replicas(api, running, 4))
    before = await api.get(DEPLOYMENT, running, "main-relayer")
    scaling = {"replicas": None, "autoscaling": {"minReplicas": 2, "maxReplicas": 5}}
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"relayer": scaling}})

    async def made():
        return await api.get(BY_KIND["HorizontalPodAutoscaler"], running, "main-relayer")

    assert (await eventually(made))["spec"]["maxReplicas"] == 5
    # It keeps what is there: a moment of one pod would be a moment without most of the relayers.
    handed_over = await api.get(DEPLOYMENT, running, "main-relayer")
    assert handed_over["spec"] == before["spec"]
    # One step, for the changed annotation: it never was anything else in between.
    assert handed_over["metadata"]["generation"] == before["metadata"]["generation"] + 1
    await api.merge(DEPLOYMENT, running, "main-relayer", {"spec": {"replicas": 3}}, manager="autoscaler")
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"relayer": {"workers": 3}}})

    async def rolled():
        found = await api.get(CONFIG_MAP, running, "main-config")
        return '"workers": 3' in found["data"]["relayer.json"]

    await eventually(rolled)
    assert (await api.get(DEPLOYMENT, running, "main-relayer"))["spec"]["replicas"] == 3
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"relayer": {"autoscaling": None, "replicas": 1}}})
    await eventually(lambda: _replicas(api, running, 1))

    async def gone():
        return await api.get_or_none(BY_KIND["HorizontalPodAutoscaler"], running, "main-relayer") is None

    await eventually(gone)


@pytest.mark.parametrize("how", ["spec", "annotation"])
async def test_a_paused_relay_miner_is_left_alone_and_says_so(api, running, how):
    patch = {"spec": {"paused": True}}
    if how == "annotation":
        patch = {"metadata": {"annotations": {"pocket.network/reconcile": "disabled"}}}
    await api.merge(RELAY_MINERS, running, "main", patch)

    async def paused():
        return condition(await api.get(RELAY_MINERS, running, "main"), "Paused").get("status") == "True"

    await eventually(paused)
    await api.delete(SERVICE, running, "main-relayer")
    undo = {"spec": {"paused": False}, "metadata": {"annotations": {"pocket.network/reconcile": None}}}
    await api.merge(CONFIG_MAP, running, "main-config", {"data": {"relayer.json": "by hand"}})

    async def seen_again():
        await api.merge(
            RELAY_MINERS, running, "main", {"metadata": {"annotations": {"pocket.network/reconcile-requested-at": "1"}}}
        )
        return True

    await eventually(seen_again)
    assert await api.get_or_none(SERVICE, running, "main-relayer") is None
    assert (await api.get(CONFIG_MAP, running, "main-config"))["data"]["relayer.json"] == "by hand"
    await api.merge(RELAY_MINERS, running, "main", undo)

    async def back():
        return await api.get_or_none(SERVICE, running, "main-relayer")

    await eventually(back)


async def test_the_restart_annotation_rolls_both_workloads(api, running):
    before = [template_of(await api.get(k, running, n)) for k, n in (
        (DEPLOYMENT, "main-relayer"), (STATEFUL_SET, "main-miner"))]  # fmt: skip
    stamp = {"metadata": {"annotations": {"pocket.network/restarted-at": "2026-01-01T00:00:00Z"}}}
    await api.merge(RELAY_MINERS, running, "main", stamp)

    async def rolled():
        return [template_of(await api.get(k, running, n)) for k, n in (
            (DEPLOYMENT, "main-relayer"), (STATEFUL_SET, "main-miner"))] != before  # fmt: skip

    await eventually(rolled)


async def test_only_listed_labels_reach_the_children(api, namespace, operator, nodes):
    labelled = changed(
        relay_miner(namespace), "metadata.labels",
        {"team": "nodes", "app.kubernetes.io/instance": "argo-app", "argocd.argoproj.io/instance": "argo-app"},
    )  # fmt: skip
    await create(api, key_secret(namespace), labelled, supplier(namespace))
    await ready(api, RELAY_MINERS, namespace, "main")
    labels = (await api.get(DEPLOYMENT, namespace, "main-relayer"))["metadata"]["labels"]
    assert labels["team"] == "nodes"
    assert not [key for key in labels if "instance" in key]


async def test_no_output_shows_a_key(api, cluster, running, operator):
    secret_texts = {key_of("alice")}
    shown = cluster.kubectl("-n", running, "get", "rm,sup,events,cm,deploy,sts,pods,role", "-o", "yaml").stdout
    shown += cluster.kubectl("-n", running, "describe", "rm,sup,secret").stdout + operator.text()
    shown += metrics_of(operator)
    assert not [text for text in secret_texts if text in shown]


async def test_metrics_count_who_is_served_until_the_relayminer_is_gone(api, running, operator):
    await create(api, supplier(running, "bob"))
    about = f'{{relay_miner="main",relay_miner_namespace="{running}"}}'

    def figures():
        rows = (row.rsplit(" ", 1) for row in metrics_of(operator).splitlines() if about in row)
        return {
            name.removesuffix(about).removeprefix("pocket_operator_suppliers_"): float(value) for name, value in rows
        }

    async def counted():
        return figures() == {"declared": 2, "served": 1}

    await eventually(counted, 30, "bob, whose Secret is missing, is declared and not served")
    await reason(api, RELAY_MINERS, running, "main", "SuppliersNotReady")
    assert (await api.get(RELAY_MINERS, running, "main"))["status"]["served"] == "1/2"
    escape = {"metadata": {"annotations": {names.ANNOTATION_FORCE_DELETE: "true"}}}
    await api.merge(RELAY_MINERS, running, "main", escape)
    await api.delete(RELAY_MINERS, running, "main")

    async def forgotten():
        return metrics_of(operator) and not figures()

    await eventually(forgotten, 30, "its figures gone")


async def test_events_tell_each_change_once(api, cluster, running):
    await api.merge(RELAY_MINERS, running, "main", {"spec": {"relayer": {"replicas": 2}}})
    await ready(api, RELAY_MINERS, running, "main")

    async def told():
        events = (await api.call("GET", f"/api/v1/namespaces/{running}/events"))["items"]
        ours = [e for e in events if e["source"].get("component") == "pocket-operator"]
        return ours if "Ready" in {e["reason"] for e in ours} else None

    ours = await eventually(told)
    assert len({(e["involvedObject"]["name"], e["reason"]) for e in ours}) == len(ours)
    assert all(e["type"] == "Normal" for e in ours if e["reason"] in {"Ready", "LoadingKeys", "RollingOut"})
    well = {"Loaded", "Reachable", "ClaimsHealthy", "AllServed", "SchemaMatches", "NotStalled", "NotReconciling"}
    assert not {e["reason"] for e in ours} & well, "only changes of Ready and warnings are Events"


async def test_two_appliers_of_the_same_resources_see_no_difference(cluster, running, tmp_path):
    """As Argo CD and a person: what the operator writes is no drift of what was applied."""
    file = tmp_path / "resources.yaml"
    file.write_text(yaml.safe_dump_all([relay_miner(running), supplier(running)]))
    for manager in ("argocd-controller", "kubectl-person"):
        command = ["--server-side", "--field-manager", manager, "--force-conflicts", "-f", str(file)]
        cluster.kubectl("apply", *command)
        shown = cluster.kubectl("diff", *command, check=False)
        assert (shown.returncode, shown.stdout) == (0, "")
