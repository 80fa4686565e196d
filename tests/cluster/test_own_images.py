"""docs/install.md, "Your own images": the examples are what an API server takes and what pods get."""

import re

import yaml
from waits import create

from kube import ROOT, eventually
from pocket_operator.resources.kinds import BY_KIND
from resources import key_secret, relay_miner, supplier

DIGEST = re.compile(r"registry\.example\.org/pocket-\w+@sha256:[0-9a-f]{64}")


def examples():
    section = (ROOT / "docs/install.md").read_text().partition("**Your own images.**")[2].partition("\n## ")[0]
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)]


def test_the_kustomization_pins_all_three_images_by_digest_and_pulls_with_the_secret(cluster, namespace, tmp_path):
    kustomization, _ = examples()
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    text = cluster.kubectl("kustomize", "--load-restrictor=LoadRestrictionsNone", str(tmp_path / "own")).stdout
    (deployment,) = (row for row in yaml.safe_load_all(text) if row["kind"] == "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    environment = {row["name"]: row.get("value", "") for row in spec["containers"][0]["env"]}
    images = spec["containers"][0]["image"], environment["RELAYER_IMAGE"], environment["MINER_IMAGE"]
    assert all(DIGEST.fullmatch(image) for image in images)
    assert len(set(images)) == 3
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert environment["REDIS_IMAGE"], "what the patch does not name stays"
    deployment["metadata"]["namespace"] = namespace
    cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(deployment))


async def test_workloads_run_default_images_by_digest_and_pull_with_the_secret_of_their_namespace(
    api, namespace, replicas, nodes
):
    _, resource = examples()
    pinned = "registry.example.org/pocket-relayer@sha256:" + "2" * 64
    replicas[0].arguments = ("--relayer-image", pinned)
    replicas[0].start()
    await create(api, key_secret(namespace), relay_miner(namespace, **resource["spec"]), supplier(namespace))
    for kind, name in (("Deployment", "main-relayer"), ("StatefulSet", "main-miner")):

        async def made(kind=kind, name=name):
            return await api.get_or_none(BY_KIND[kind], namespace, name)

        spec = (await eventually(made, 30))["spec"]["template"]["spec"]
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert kind != "Deployment" or spec["containers"][0]["image"] == pinned
