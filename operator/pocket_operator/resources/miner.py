"""Build the miners.

They are a StatefulSet with volumes, a headless Service, and a ServiceAccount with a Role.
"""

from pocket.coordination.lease_names import LeaseNames
from pocket_operator.resources import names
from pocket_operator.resources.config import ADMIN_PORT, CONFIG_DIR, config_digests, miner_text
from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.pods import admin_port, probe, resources, template
from pocket_operator.resources.revision import Revision

_GRACE_SECONDS = 60


def revision(context: Context) -> Revision:
    """Return the revision that the RelayMiner declares."""
    spec = context.relay_miner.spec.miner
    container: Object = {
        "image": spec.image or context.images.miner,
        "command": ["python", "-m", "pocket_miner", "--config", str(CONFIG_DIR / "miner.json")],
        "ports": [admin_port()],
        "resources": resources(spec.resources, {"cpu": "250m", "memory": "256Mi"}),
        "livenessProbe": probe("/health", "admin", periodSeconds=10, failureThreshold=3, timeoutSeconds=3),
        "readinessProbe": probe("/ready", "admin", periodSeconds=3, failureThreshold=2, timeoutSeconds=3),
        "startupProbe": probe("/health", "admin", periodSeconds=1, failureThreshold=120, timeoutSeconds=3),
    }
    return Revision(
        template(
            context, names.MINER, spec.pod_template, config_digest=config_digests(context)[1],
            container=container, grace_seconds=_GRACE_SECONDS, volumes=[], token=True,
        ),
        miner_text(context),
    )  # fmt: skip


def current(context: Context) -> Revision:
    """Return the declared revision, or the one that is kept until the update."""
    kept = context.kept.get(names.MINER)
    return revision(context) if kept is None else kept.revision


def stateful_set(context: Context) -> Object:
    """Build the StatefulSet.

    Volumes outlive it: they contain unclaimed relays and the audit trail. Its claim template keeps its first size,
    because it cannot change: the operator lets the volumes grow themselves. With an autoscaler `replicas` is left out,
    since the autoscaler owns it.
    """
    spec = context.relay_miner.spec.miner
    claim: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": context.claim_size or spec.storage}},
    }
    if spec.storage_class_name is not None:
        claim["storageClassName"] = spec.storage_class_name
    replicas = {"replicas": spec.replicas or 1} if spec.autoscaling is None else {}
    return context.object(
        "apps/v1", "StatefulSet", names.miner(context.name), names.MINER,
        annotations={names.ANNOTATION_UPDATE: context.updating_to} if context.updating_to else None,
        spec={
            **replicas,
            "serviceName": names.miner(context.name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": context.miner_partition}},
            "selector": {"matchLabels": names.selector(context.name, names.MINER)},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "template": current(context).template,
            "volumeClaimTemplates": [
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": "data", "labels": names.selector(context.name, names.MINER)},
                    "spec": claim,
                }
            ],
        },
    )  # fmt: skip


def service(context: Context) -> Object:
    """Build the headless Service that gives the pods stable names."""
    return context.object(
        "v1", "Service", names.miner(context.name), names.MINER,
        spec={
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(context.name, names.MINER),
            "ports": [{"name": "admin", "port": ADMIN_PORT, "targetPort": "admin", "protocol": "TCP"}],
        },
    )  # fmt: skip


def identity(context: Context) -> list[Object]:
    """Build a ServiceAccount with rights to the miners' Leases only.

    `list` cannot be limited to names.
    """
    name = names.miner(context.name)
    group = LeaseNames(name, context.relay_miner.spec.miner.shards)
    members = [group.member(str(number)) for number in range(len(group.shards))]
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    return [
        context.object("v1", "ServiceAccount", name, names.MINER, automountServiceAccountToken=False),
        context.object(
            "rbac.authorization.k8s.io/v1", "Role", name, names.MINER,
            rules=[
                {**leases, "verbs": ["create", "list"]},
                {**leases, "resourceNames": [group.leader, *members, *group.shards], "verbs": ["get", "update"]},
            ],
        ),
        context.object(
            "rbac.authorization.k8s.io/v1", "RoleBinding", name, names.MINER,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            subjects=[{"kind": "ServiceAccount", "name": name, "namespace": context.namespace}],
        ),
    ]  # fmt: skip
