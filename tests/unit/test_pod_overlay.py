"""What owners add to their pods is merged, and what the operator owns is refused by name."""

import pytest

from pocket_operator.decide.plan import plan
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.resources.pod_overlay import PodTemplateRejected, merge_pod_spec
from resources import changed
from snapshots import RM, snapshot

BASE = {
    "serviceAccountName": "main-relayer", "securityContext": {"runAsUser": 65532, "runAsNonRoot": True},
    "containers": [{"name": "relayer", "image": "r:1", "env": [{"name": "TMPDIR", "value": "/tmp"}],
                    "volumeMounts": [{"name": "keys", "mountPath": "/keys"}]}],
    "volumes": [{"name": "keys", "secret": {"secretName": "k"}}],
}  # fmt: skip


def merged(**overlay):
    return merge_pod_spec(BASE, overlay, "relayer")


def container(**more):
    return {"containers": [{"name": "relayer", **more}]}


def test_what_people_need_is_merged():
    bundle = {"name": "ca", "configMap": {"name": "ca"}}
    found = merged(
        volumes=[bundle], initContainers=[{"name": "wait", "image": "w"}], dnsPolicy="None", runtimeClassName="gvisor",
        securityContext={"runAsUser": None, "supplementalGroups": [7]}, hostAliases=[{"ip": "10.0.0.1"}],
        containers=[
            {"name": "relayer", "env": [{"name": "HTTPS_PROXY", "value": "p"}],
             "envFrom": [{"secretRef": {"name": "e"}}],
             "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/certs"}]},
            {"name": "sidecar", "image": "s"},
        ],
    )  # fmt: skip
    assert found["volumes"] == [*BASE["volumes"], bundle]
    assert found["securityContext"] == {"runAsNonRoot": True, "supplementalGroups": [7]}
    own, sidecar = found["containers"]
    assert (own["image"], sidecar) == ("r:1", {"name": "sidecar", "image": "s"})
    assert [row["name"] for row in own["env"]] == ["TMPDIR", "HTTPS_PROXY"]
    assert [row["mountPath"] for row in own["volumeMounts"]] == ["/keys", "/etc/ssl/certs"]
    assert own["envFrom"] == [{"secretRef": {"name": "e"}}]
    assert (found["initContainers"], found["runtimeClassName"]) == ([{"name": "wait", "image": "w"}], "gvisor")
    assert BASE["securityContext"] == {"runAsUser": 65532, "runAsNonRoot": True}, "the base stays as it is"


@pytest.mark.parametrize(("overlay", "said"), [
    ({"serviceAccountName": "mine"}, "podTemplate.spec.serviceAccountName is the operator's: annotate"),
    ({"restartPolicy": "Never"}, "restartPolicy is the operator's"),
    (container(image="x"), "containers[relayer].image is the operator's: use the image"),
    (container(command=["sh"]), "command is the operator's"),
    (container(readinessProbe=None), "readinessProbe is the operator's"),
    (container(env=[{"name": "TMPDIR", "value": "/x"}]), "env[TMPDIR] is the operator's: choose another name"),
    (container(volumeMounts=[{"name": "x", "mountPath": "/keys"}]), "volumeMounts[/keys] is the operator's"),
    ({"volumes": [{"name": "keys", "emptyDir": {}}]}, "volumes[keys] is the operator's"),
    ({"volumes": {"name": "x"}}, "volumes must be a list whose entries have name"),
    ({"containers": [{"image": "x"}]}, "containers must be a list whose entries have name"),
    ({"securityContext": 7}, "securityContext must be an object"),
])  # fmt: skip
def test_what_the_operator_owns_is_refused_by_name(overlay, said):
    with pytest.raises(PodTemplateRejected) as caught:
        merged(**overlay)
    assert said in str(caught.value)


@pytest.mark.parametrize("component", ["relayer", "miner", "redis"])
def test_every_workload_gets_it_and_a_refused_one_is_an_invalid_spec(component):
    kind = "Deployment" if component == "relayer" else "StatefulSet"
    trial = changed(RM, "spec.redis", {"trial": {}})
    field = "spec.redis.trial.podTemplate" if component == "redis" else f"spec.{component}.podTemplate"
    chosen = {
        "spec": {"runtimeClassName": "gvisor"}, "labels": {"tier": "edge"}, "annotations": {"a": "b"},
        "priorityClassName": "high", "nodeSelector": {"disk": "fast"}, "terminationGraceSeconds": 77,
    }  # fmt: skip
    good = plan(snapshot(relay_miner=changed(trial, field, chosen)))
    (child,) = (c for c in good.wanted if (c["kind"], c["metadata"]["name"]) == (kind, f"main-{component}"))
    found = child["spec"]["template"]
    assert (found["spec"]["runtimeClassName"], found["spec"]["priorityClassName"]) == ("gvisor", "high")
    assert (found["spec"]["nodeSelector"], found["spec"]["terminationGracePeriodSeconds"]) == ({"disk": "fast"}, 77)
    assert (found["metadata"]["labels"]["tier"], found["metadata"]["annotations"]["a"]) == ("edge", "b")
    bad = plan(snapshot(relay_miner=changed(trial, field, {"spec": {"restartPolicy": "Never"}})))
    assert (bad.blocked_by.reason, bad.wanted) == (ConditionReason.INVALID_SPEC, ())
    assert f"{field}.spec.restartPolicy" in bad.blocked_by.message


def test_a_limit_below_a_default_request_lowers_that_request():
    found = plan(
        snapshot(relay_miner=changed(RM, "spec.relayer.resources", {"limits": {"cpu": "0.1", "memory": "1Gi"}}))
    )
    (child,) = (c for c in found.wanted if c["kind"] == "Deployment")
    container = child["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["requests"] == {"cpu": "0.1", "memory": "256Mi"}


def test_a_limit_below_a_declared_request_is_refused_with_both_values():
    declared = {"requests": {"memory": "1Gi"}, "limits": {"memory": "1000M"}}
    found = plan(snapshot(relay_miner=changed(RM, "spec.miner.resources", declared)))
    assert "memory: the limit 1000M is below the request 1Gi" in found.blocked_by.message
