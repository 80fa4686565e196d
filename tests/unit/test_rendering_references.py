"""The digest of how a release renders pod templates covers every field that reaches one."""

from pocket.api.crd import definitions
from pocket.api.relayminer import RelayMiner
from pocket_operator.resources import rendering

WITHOUT_POD_TEMPLATE = {
    "services", "monitoring", "networkPolicy", "console", "deletion", "updateStrategy", "progressDeadlineSeconds",
    "paused",
    "relayer.replicas", "relayer.autoscaling", "relayer.simulation", "relayer.responseCompression", "relayer.logLevel",
    "relayer.rollout", "relayer.service", "relayer.ingress", "relayer.gateway",
    "miner.replicas", "miner.autoscaling", "miner.storage", "miner.storageClassName",
    "relayer.image", "miner.image", "redis.trial.storage",
}  # fmt: skip
"""Fields of other objects, of what relayers reload, and images, which the update stages on their own."""
DEPTH = 3


def fields(schema, path=""):
    """Yield the paths of a schema down to three names, without the fields of podTemplate and resources."""
    for name, child in (schema.get("properties") or {}).items():
        place = f"{path}{name}"
        ends = place.count(".") == DEPTH - 1 or not child.get("properties") or name in ("podTemplate", "resources")
        if place in WITHOUT_POD_TEMPLATE:
            continue
        yield from [place] if ends else fields(child, f"{place}.")


def test_every_field_that_reaches_a_pod_template_is_set_in_a_reference():
    crd = definitions()["relayminers"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    wanted = set(fields(crd["properties"]["spec"]))
    found = set()
    for spec in rendering._REFERENCES:
        RelayMiner.model_validate({"metadata": {"name": "a", "namespace": "a"}, "spec": spec})
        for place in wanted:
            node = spec
            for name in place.split("."):
                node = node.get(name) if isinstance(node, dict) else None
            found |= {place} if node is not None else set()
    assert wanted - found == set()
    assert len(wanted) > 40
