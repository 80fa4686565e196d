"""Build the trial Redis.

It is one pod with a volume and no replica, so it is not for real money.
"""

from pocket.api.redis import TrialRedis
from pocket_operator.resources import names
from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.pods import CONTAINER_SECURITY, POD_SECURITY, resources, with_settings
from pocket_operator.resources.revision import Revision

REDIS_OPTIONS = (
    "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction",
    "--stream-node-max-bytes", "16384",
)  # fmt: skip
"""Options that relay streams need: no eviction, at most one second lost, dense streams."""


def revision(context: Context) -> Revision:
    """Return the revision of the trial Redis, which the RelayMiner must declare."""
    trial = context.relay_miner.spec.redis.trial or TrialRedis()
    probe = {"exec": {"command": ["redis-cli", "ping"]}, "periodSeconds": 5, "timeoutSeconds": 3}
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": dict(POD_SECURITY),
        "containers": [
            {
                "name": "redis",
                "image": context.images.redis,
                "imagePullPolicy": context.images.pull_policy,
                "command": ["redis-server", "--dir", "/data", "--bind", "0.0.0.0", "--protected-mode", "no",
                            *REDIS_OPTIONS],
                "ports": [{"name": "redis", "containerPort": 6379, "protocol": "TCP"}],
                "resources": resources(trial.resources, {"cpu": "100m", "memory": "128Mi"}),
                "securityContext": dict(CONTAINER_SECURITY),
                "readinessProbe": probe,
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
    }  # fmt: skip
    chosen = trial.pod_template
    metadata: Object = {"labels": {**chosen.labels, **context.labels(names.REDIS)}}
    if chosen.annotations:
        metadata["annotations"] = dict(chosen.annotations)
    return Revision({"metadata": metadata, "spec": with_settings(pod, chosen, names.REDIS)}, "")


def current(context: Context) -> Revision:
    """Return this release's revision, or the one that is kept until the update."""
    kept = context.kept.get(names.REDIS)
    return revision(context) if kept is None else kept.revision


def trial_redis(context: Context) -> list[Object]:
    """Build StatefulSet and Service if spec.redis.trial is set."""
    trial = context.relay_miner.spec.redis.trial
    if trial is None:
        return []
    name, selector = names.redis(context.name), names.selector(context.name, names.REDIS)
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": trial.storage}}}
    return [
        context.object(
            "v1", "Service", name, names.REDIS,
            spec={
                "selector": selector,
                "ports": [{"name": "redis", "port": 6379, "targetPort": "redis", "protocol": "TCP"}],
            },
        ),
        context.object(
            "apps/v1", "StatefulSet", name, names.REDIS,
            spec={
                "replicas": 1,
                "serviceName": name,
                "selector": {"matchLabels": selector},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
                "template": current(context).template,
                "volumeClaimTemplates": [
                    {
                        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                        "metadata": {"name": "data", "labels": selector}, "spec": claim,
                    }
                ],
            },
        ),
    ]  # fmt: skip
