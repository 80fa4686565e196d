"""Children are pure functions of the resource: the golden files are what users get (UPDATE_GOLDEN=1 rewrites them)."""

import copy
import json
import os
from pathlib import Path

import pytest
import yaml

from pocket.api.relayminer import RelayMiner
from pocket.redis_store.cluster_slots import ClusterUrl
from pocket.redis_store.sentinel import SentinelUrl
from pocket_operator.resources import desired, names
from pocket_operator.resources.context import Context, Images, PublishedSupplier
from resources import address, changed, key_of, relay_miner

GOLDEN = Path(__file__).parent / "golden"
ALL_KINDS = frozenset({"PodMonitor", "PrometheusRule", "HTTPRoute"})
FULL = relay_miner(
    "pocket",
    redis={"trial": {"storage": "2Gi"}},
    relayer={
        "autoscaling": {"minReplicas": 2, "maxReplicas": 6},
        "workers": 4,
        "drainSeconds": 12.5,
        "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}},
        "service": {"type": "LoadBalancer", "port": 443, "annotations": {"lb": "internal"}},
        "ingress": {"host": "relays.example.org", "className": "nginx", "tlsSecretName": "relays-tls"},
        "gateway": {"parentRefs": [{"name": "public"}], "hostnames": ["relays.example.org"]},
        "podTemplate": {
            "nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "relays", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}}, "priorityClassName": "high", "imagePullSecrets": [{"name": "registry"}],
            "labels": {"tier": "edge"}, "annotations": {"a": "b"},
        },
    },
    miner={"replicas": 2, "storageClassName": "fast", "storage": "20Gi", "image": "example.org/miner:2"},
    networkPolicy={"enabled": True, "relaysFrom": [{"podSelector": {"matchLabels": {"app": "gateway"}}}]},
    monitoring={"labels": {"release": "prometheus"}},
)  # fmt: skip


def context(resource=None, **more) -> Context:
    suppliers = (
        PublishedSupplier(address("alice"), ("eth",), key_of("alice")),
        PublishedSupplier(address("bob"), (), key_of("bob"), draining=True),
    )
    return Context(
        **{
            "relay_miner": RelayMiner.model_validate(resource or relay_miner("pocket")), "uid": "uid-1",
            "images": Images(), "operator_namespace": "pocket-system", "suppliers": suppliers,
            "drain_anchor_uid": "uid-2", "capabilities": ALL_KINDS, **more,
        }
    )  # fmt: skip


CASES = {
    "minimal": context(capabilities=frozenset()),
    "full": context(FULL, inherited={"team": "nodes"}, restarted_at="1"),
    "deleting": context(deleting=True),
    "scaled-miners": context(
        changed(
            relay_miner("pocket"),
            "spec.miner",
            {
                "autoscaling": {
                    "minReplicas": 1,
                    "maxReplicas": 4,
                    "scaleDownSeconds": 900,
                    "metrics": [
                        {
                            "type": "Pods",
                            "pods": {
                                "metric": {"name": "pocket_miner_suppliers"},
                                "target": {"type": "AverageValue", "averageValue": "100"},
                            },
                        }
                    ],
                }
            },
        ),
        capabilities=frozenset(),
    ),
    "console": context(
        changed(
            changed(
                relay_miner("pocket"),
                "spec.networkPolicy",
                {
                    "enabled": True,
                    "consoleFrom": [{"podSelector": {"matchLabels": {"app": "login-proxy"}}}],
                },
            ),
            "spec.console",
            {
                "hosts": ["console.example.org"],
                "blockUrl": "https://explorer.example.org/block/{height}",
                "dashboardsUrl": "https://grafana.example.org",
                "port": 80,
                "resources": {"limits": {"memory": "256Mi"}},
                "podTemplate": {
                    "labels": {"tier": "inside"},
                    "tolerations": [{"key": "console", "operator": "Exists"}],
                },
            },
        ),
        capabilities=frozenset(),
    ),
    "redis-secret": context(
        changed(relay_miner("pocket"), "spec.redis", {"urlSecretRef": {"name": "r", "key": "url"}}), redis_digest="abc"
    ),
}


def by_name(objects) -> dict:
    return {(o["kind"], o["metadata"]["name"]): o for o in objects}


@pytest.mark.parametrize("case", CASES)
def test_the_children_are_those_of_the_golden_file(case):
    text = yaml.safe_dump_all(desired(CASES[case]), sort_keys=True, width=120)
    file = GOLDEN / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("case", CASES)
def test_every_child_is_namespaced_labelled_and_owned(case):
    for child in desired(CASES[case]):
        metadata = child["metadata"]
        assert metadata["namespace"] == "pocket"
        assert metadata["labels"][names.LABEL_MANAGED_BY] == names.MANAGED_BY
        assert metadata["labels"][names.LABEL_RELAY_MINER] == "main"
        assert metadata["ownerReferences"], child["kind"]
        assert not any(owner.get("blockOwnerDeletion") for owner in metadata["ownerReferences"])


@pytest.mark.parametrize("case", CASES)
def test_every_pod_passes_the_restricted_standard(case):
    for child in desired(CASES[case]):
        if child["kind"] not in ("Deployment", "StatefulSet"):
            continue
        spec = child["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]


def test_relayers_hold_no_api_token_and_miners_one_for_their_leases_only():
    children = by_name(desired(CASES["minimal"]))
    deployment = children["Deployment", "main-relayer"]["spec"]["template"]["spec"]
    assert deployment["automountServiceAccountToken"] is False
    unnamed, named = children["Role", "main-miner"]["rules"]
    assert {*unnamed["resources"], *named["resources"]} == {"leases"}
    assert (unnamed["verbs"], named["verbs"]) == (["create", "list"], ["get", "update"])
    shards = {f"main-miner-shard-{n}" for n in range(16)}
    members = {f"main-miner-member-{n}" for n in range(16)}
    assert set(named["resourceNames"]) == {"main-miner-leader", *shards, *members}


def test_a_draining_supplier_stays_with_the_miners_only():
    children = by_name(desired(CASES["minimal"]))
    assert set(children["Secret", "main-relayer-keys"]["data"]) == {address("alice")}
    assert set(children["Secret", "main-miner-keys"]["data"]) == {address("alice"), address("bob")}
    assert address("bob") not in children["ConfigMap", "main-hot"]["data"]["hot.json"]


def test_a_deleted_relay_miner_wants_only_what_mines_and_the_keeper_owns_it_all():
    children = desired(CASES["deleting"])
    assert {c["kind"] for c in children} == {
        "ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding", "Service", "StatefulSet"
    }  # fmt: skip
    for child in children:
        assert [o["uid"] for o in child["metadata"]["ownerReferences"]] == ["uid-2"]
        assert "relayer" not in child["metadata"]["name"]


def test_what_is_only_relayers_is_not_kept_by_the_drain_anchor():
    for child in desired(CASES["full"]):
        kept = any(owner["kind"] == "ConfigMap" for owner in child["metadata"]["ownerReferences"])
        assert kept == (child["metadata"]["labels"][names.LABEL_COMPONENT] != names.RELAYER)


def test_optional_kinds_are_left_out_where_the_cluster_does_not_know_them():
    kinds = {c["kind"] for c in desired(context(FULL, capabilities=frozenset()))}
    assert not kinds & ALL_KINDS
    assert {c["kind"] for c in desired(CASES["full"])} >= ALL_KINDS


def test_the_redis_url_of_a_secret_is_in_no_config_map():
    children = by_name(desired(CASES["redis-secret"]))
    assert '"redisUrl": "env:POCKET_REDIS_URL"' in children["ConfigMap", "main-config"]["data"]["relayer.json"]
    environment = children["StatefulSet", "main-miner"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert environment[0]["valueFrom"]["secretKeyRef"] == {"name": "r", "key": "url"}


def digest(resource, kind, name) -> str:
    template = by_name(desired(context(resource)))[kind, name]["spec"]["template"]
    return template["metadata"]["annotations"][names.ANNOTATION_CONFIG]


@pytest.mark.parametrize(
    ("path", "value", "rolls"),
    [
        ("spec.services.0.backends.jsonRpc.urls", ["http://b:1"], set()),
        ("spec.services.0.validation", "optimistic", set()),
        ("spec.relayer.workers", 7, {"relayer"}),
        ("spec.relayer.logLevel", "debug", set()),
        ("spec.relayer.metering.whenUnavailable", "closed", {"relayer"}),
        ("spec.relayer.recording", "fast", {"relayer"}),
        ("spec.relayer.replicas", 3, set()),
        ("spec.miner.sealAfterBlocks", 2, {"relayer", "miner"}),
        ("spec.miner.replicas", 2, set()),
        ("spec.chain.gasPrice", "2upokt", {"relayer", "miner"}),
        ("spec.deletion.drainDeadlineSeconds", 1, set()),
        ("spec.paused", True, set()),
    ],
)
def test_a_change_rolls_exactly_the_pods_that_read_it(path, value, rolls):
    before, after = relay_miner("pocket"), changed(relay_miner("pocket"), path, value)
    found = {
        component
        for component, kind in (("relayer", "Deployment"), ("miner", "StatefulSet"))
        if digest(before, kind, f"main-{component}") != digest(after, kind, f"main-{component}")
    }
    assert found == rolls


def test_supplier_changes_roll_nothing():
    fewer = context(suppliers=())
    for kind, name in (("Deployment", "main-relayer"), ("StatefulSet", "main-miner")):
        assert by_name(desired(fewer))[kind, name]["spec"] == by_name(desired(context()))[kind, name]["spec"]


def test_builders_do_not_change_what_they_are_given():
    given = context(FULL)
    before = copy.deepcopy(given)
    desired(given)
    assert given == before
    assert key_of("alice") not in repr(given)


@pytest.mark.parametrize(
    ("sentinel", "url"),
    [
        ({"addresses": ["a:26379", "b"]}, "redis+sentinel://a:26379,b/mymaster/0"),
        (
            {"addresses": ["a"], "service": "relays", "database": 2, "tls": True},
            "rediss+sentinel://a/relays/2",
        ),
    ],
)
def test_pods_are_given_the_url_of_the_sentinels(sentinel, url):
    children = by_name(desired(context(changed(relay_miner("pocket"), "spec.redis", {"sentinel": sentinel}))))
    for kind, name in (("StatefulSet", "main-miner"), ("Deployment", "main-relayer")):
        environment = children[kind, name]["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "POCKET_REDIS_URL", "value": url} in environment
    assert SentinelUrl.parse(url) is not None


def pod_specs(**redis):
    """Return the pod templates of relayers and miners, and their configurations."""
    children = by_name(desired(context(changed(relay_miner("pocket"), "spec.redis", redis))))
    texts = children["ConfigMap", "main-config"]["data"]
    workloads = {"miner": ("StatefulSet", "main-miner"), "relayer": ("Deployment", "main-relayer")}
    for component, key in workloads.items():
        yield children[key]["spec"]["template"]["spec"], json.loads(texts[f"{component}.json"])


@pytest.mark.parametrize(("tls", "url"), [(False, "redis+cluster://a:1,b"), (True, "rediss+cluster://a:1,b")])
def test_pods_are_given_the_url_of_the_cluster(tls, url):
    for spec, _ in pod_specs(cluster={"addresses": ["a:1", "b"], "tls": tls}):
        assert {"name": "POCKET_REDIS_URL", "value": url} in spec["containers"][0]["env"]
    assert ClusterUrl.parse(url).seeds == (("a", 1), ("b", 6379))


@pytest.mark.parametrize(
    ("bundle", "volume"),
    [
        ({"secretRef": {"name": "ca", "key": "ca.crt"}}, {"secret": {"secretName": "ca", "defaultMode": 0o440}}),
        ({"configMapRef": {"name": "ca", "key": "ca.crt"}}, {"configMap": {"name": "ca"}}),
    ],
)
def test_pods_mount_the_login_and_the_certificate_authorities_of_redis(bundle, volume):
    redis = {"url": "rediss://r:1/0", "credentialsSecretRef": {"name": "login"}, "caBundle": bundle}
    for spec, config in pod_specs(**redis, durability="managed"):
        volumes = {row["name"]: row for row in spec["volumes"]}
        assert volumes["redis-login"]["secret"]["secretName"] == "login"
        assert volumes["redis-ca"] == {"name": "redis-ca", **volume}
        mounts = {row["name"]: row["mountPath"] for row in spec["containers"][0]["volumeMounts"]}
        login, authorities = mounts["redis-login"], mounts["redis-ca"]
        assert config["redisAccess"] == {
            "usernameFile": f"{login}/username", "passwordFile": f"{login}/password",
            "caFile": f"{authorities}/ca.crt", "durability": "managed",
        }  # fmt: skip


def test_pods_mount_the_client_certificate_for_the_signer():
    signer = {"url": "https://signer:9000", "tlsSecretRef": {"name": "tls"}, "timeoutSeconds": 3}
    children = by_name(desired(context(changed(relay_miner("pocket"), "spec.signer", signer))))
    texts = children["ConfigMap", "main-config"]["data"]
    for component, kind in (("miner", "StatefulSet"), ("relayer", "Deployment")):
        spec = children[kind, f"main-{component}"]["spec"]["template"]["spec"]
        volume = next(row for row in spec["volumes"] if row["name"] == "signer")
        assert (volume["secret"]["secretName"], volume["secret"]["optional"]) == ("tls", True)
        mount = next(row for row in spec["containers"][0]["volumeMounts"] if row["name"] == "signer")
        access = json.loads(texts[f"{component}.json"])["signer"]
        assert access == {"url": "https://signer:9000", "tlsDir": mount["mountPath"], "timeoutSeconds": 3.0}


@pytest.mark.parametrize(("grace", "sleep"), [(None, 5), (60, 5), (5, 4), (2, 1), (1, None)])
def test_a_relayer_sleeps_less_than_its_grace_before_it_stops(grace, sleep):
    """Kubernetes refuses a Deployment whose preStop hook outlasts the grace."""
    template = {"terminationGraceSeconds": grace} if grace is not None else {}
    resource = RelayMiner.model_validate(relay_miner("pocket", relayer={"podTemplate": template}))
    children = desired(Context(resource, "uid", Images(), "pocket-system"))
    (deployment,) = (child for child in children if child["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container.get("lifecycle", {"preStop": {"sleep": {"seconds": None}}})["preStop"]["sleep"]["seconds"] == sleep
