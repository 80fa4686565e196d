"""Build the trial Redis: one pod with a volume and no replica, so not for real money."""

from pocket_operator.resources import names
from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.pods import CONTAINER_SECURITY, POD_SECURITY

REDIS_OPTIONS = (
    "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction",
    "--stream-node-max-bytes", "16384",
)  # fmt: skip
"""Options that relay streams need: no eviction, at most one second lost, dense streams."""


def trial_redis(context: Context) -> list[Object]:
    """Build StatefulSet and Service if spec.redis.trial is set."""
    trial = context.relay_miner.spec.redis.trial
    if trial is None:
        return []
    name, selector = names.redis(context.name), names.selector(context.name, names.REDIS)
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
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                "securityContext": dict(CONTAINER_SECURITY),
                "readinessProbe": probe,
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
    }  # fmt: skip
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
                "template": {"metadata": {"labels": context.labels(names.REDIS)}, "spec": pod},
                "volumeClaimTemplates": [
                    {
                        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                        "metadata": {"name": "data", "labels": selector}, "spec": claim,
                    }
                ],
            },
        ),
    ]  # fmt: skip
