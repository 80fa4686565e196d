"""What the operator may do, asked of the API server for its own ServiceAccount, in both flavours."""

import pytest
import yaml

from kube import ROOT
from pocket_operator import install

ACCOUNT = "system:serviceaccount:{}:pocket-operator"
ALLOWED = [
    ("list", "suppliers.pocket.network"), ("watch", "relayminers.pocket.network"),
    ("patch", "suppliers.pocket.network"), ("patch", "relayminers.pocket.network"),
    ("patch", "relayminers.pocket.network/status"), ("patch", "suppliers.pocket.network/status"), ("get", "secrets"),
    ("create", "secrets"), ("patch", "secrets"), ("patch", "pods"), ("watch", "pods"), ("create", "deployments.apps"),
    ("patch", "statefulsets.apps"), ("delete", "services"), ("create", "roles.rbac.authorization.k8s.io"),
    ("patch", "networkpolicies.networking.k8s.io"), ("create", "events"), ("get", "leases.coordination.k8s.io"),
    ("patch", "persistentvolumeclaims"), ("list", "persistentvolumeclaims"), ("list", "leases.coordination.k8s.io"),
]  # fmt: skip
DENIED = [
    ("list", "secrets"), ("watch", "secrets"), ("update", "suppliers.pocket.network"),
    ("delete", "suppliers.pocket.network"), ("delete", "relayminers.pocket.network"),
    ("create", "suppliers.pocket.network"), ("create", "pods"), ("delete", "pods"), ("create", "pods/exec"),
    ("get", "pods/log"), ("delete", "persistentvolumeclaims"), ("impersonate", "users"), ("get", "nodes"),
    ("create", "clusterroles.rbac.authorization.k8s.io"), ("escalate", "roles.rbac.authorization.k8s.io"),
    ("bind", "roles.rbac.authorization.k8s.io"), ("delete", "leases.coordination.k8s.io"),
    ("create", "serviceaccounts/token"), ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
]  # fmt: skip


def can(cluster, namespace: str, where: str, verb: str, resource: str) -> bool:
    place = ["--all-namespaces"] if where == "*" else ["-n", where]
    resource, _, part = resource.partition("/")
    if part:
        place.append(f"--subresource={part}")
    done = cluster.kubectl("auth", "can-i", verb, resource, *place, "--as", ACCOUNT.format(namespace), check=False)
    return done.stdout.strip() == "yes"


def install_rights(cluster, namespace: str, *, cluster_wide: bool) -> None:
    rights = install.rights(install.Values(namespace=namespace), cluster_wide=cluster_wide)
    for row in rights:
        if row["kind"].startswith("Cluster"):
            row["metadata"]["name"] += f"-{namespace}"
            if "roleRef" in row:
                row["roleRef"]["name"] += f"-{namespace}"
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))


def test_the_namespaced_flavour_may_do_its_work_at_home_and_nothing_elsewhere(cluster, namespace):
    install_rights(cluster, namespace, cluster_wide=False)
    assert [row for row in ALLOWED if not can(cluster, namespace, namespace, *row)] == []
    assert [row for row in DENIED if can(cluster, namespace, namespace, *row)] == []
    assert [row for row in ALLOWED if can(cluster, namespace, "default", *row)] == []


def test_the_cluster_wide_flavour_may_do_its_work_everywhere_and_never_list_secrets(cluster, namespace):
    install_rights(cluster, namespace, cluster_wide=True)
    try:
        assert [row for row in ALLOWED if not can(cluster, namespace, "*", *row)] == []
        assert [row for row in DENIED if can(cluster, namespace, "*", *row)] == []
    finally:
        for kind in ("clusterrole", "clusterrolebinding"):
            cluster.kubectl("delete", kind, f"pocket-operator-watching-{namespace}")


def test_a_miner_may_touch_its_own_leases_only(cluster, namespace, operator, nodes):
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump({
        "apiVersion": "pocket.network/v1beta1", "kind": "RelayMiner",
        "metadata": {"name": "main", "namespace": namespace},
        "spec": {"chain": {"nodes": [{"grpc": "grpc://n:1", "rpc": "http://n:2"}]},
                 "redis": {"url": "redis://r:1/0"},
                 "services": [{"id": "e", "backends": {"rest": {"urls": ["http://b:1"]}}}]},
    }))  # fmt: skip
    cluster.kubectl("-n", namespace, "wait", "--for=create", "rolebinding/main-miner", "--timeout=30s")
    user = f"system:serviceaccount:{namespace}:main-miner"

    def may(verb: str, resource: str) -> bool:
        return cluster.kubectl(
            "-n", namespace, "auth", "can-i", verb, resource, "--as", user, check=False
        ).stdout.strip() == "yes"  # fmt: skip

    leases = "leases.coordination.k8s.io"
    mine = ["main-miner-leader", "main-miner-shard-0", "main-miner-shard-15", "main-miner-member-0"]
    assert all(may(verb, f"{leases}/{name}") for verb in ("get", "update") for name in mine)
    assert may("list", leases)
    assert may("create", leases)
    assert not any(may("update", f"{leases}/{name}") for name in ("main-miner-shard-16", "pocket-operator", "other"))
    assert not any(may(verb, f"{leases}/main-miner-leader") for verb in ("delete", "patch", "watch"))
    assert not any(may("get", resource) for resource in ("secrets", "configmaps", "pods", "relayminers.pocket.network"))


@pytest.mark.parametrize("flavour", [".", "namespaced"])
def test_no_role_of_an_installation_has_a_wildcard(cluster, flavour):
    text = cluster.kubectl("kustomize", str(ROOT / "manifests" / flavour)).stdout
    roles = [d for d in yaml.safe_load_all(text) if d["kind"] in ("Role", "ClusterRole")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"], role["metadata"]["name"]


@pytest.mark.parametrize("flavour", [".", "namespaced"])
def test_an_installation_is_taken_whole_where_only_restricted_pods_are_admitted(cluster, namespace, flavour):
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    text = cluster.kubectl("kustomize", str(ROOT / "manifests" / flavour)).stdout
    rows = [d for d in yaml.safe_load_all(text) if d["metadata"].get("namespace")]
    for row in rows:
        row["metadata"]["namespace"] = namespace
    said = cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(rows))
    assert "would violate PodSecurity" not in said.stderr
