"""Build the parts that the pods of both workloads share.

They pass Pod Security `restricted`.
"""

from collections.abc import Mapping
from typing import Any, Final

from pocket.api.kubernetes import PodPlacement, PodTemplate, Resources, amount_of
from pocket_operator.resources import names
from pocket_operator.resources.config import (
    ADMIN_PORT,
    CONFIG_DIR,
    DATA_DIR,
    HOT_DIR,
    KEYS_DIR,
    REDIS_CA_DIR,
    REDIS_LOGIN_DIR,
    REDIS_URL_VARIABLE,
    SECRETS_DIR,
    SIGNER_DIR,
    auth_secrets,
)
from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.pod_overlay import merge_pod_spec

USER = 65532
SPREAD_KEYS: Final = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _model(value: Any) -> Any:
    return value.model_dump(by_alias=True, mode="json", exclude_none=True)


def resources(chosen: Resources, requests: Mapping[str, str]) -> Object:
    """Return the user's requests and limits over the defaults, which a limit bounds.

    By default none limits the CPU.
    """
    defaults = {
        name: min(request, chosen.limits.get(name, request), key=amount_of) for name, request in requests.items()
    }
    result: Object = {"requests": {**defaults, **chosen.requests}}
    if chosen.limits:
        result["limits"] = dict(chosen.limits)
    return result


def spread(context: Context, component: str) -> list[Object]:
    """Return constraints that spread pods over zones, then nodes.

    They are preferences, so that small clusters work.
    """
    selector = {"matchLabels": names.selector(context.name, component)}
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
        for key in SPREAD_KEYS
    ]


def redis_environment(context: Context) -> Object:
    """Return the environment variable of the Redis URL, which is never in a ConfigMap."""
    redis = context.relay_miner.spec.redis
    if redis.url_secret_ref is not None:
        reference = {"name": redis.url_secret_ref.name, "key": redis.url_secret_ref.key}
        return {"name": REDIS_URL_VARIABLE, "valueFrom": {"secretKeyRef": reference}}
    url = redis.known_url or f"redis://{names.redis(context.name)}:6379/0"
    return {"name": REDIS_URL_VARIABLE, "value": url}


def _redis_files(context: Context) -> tuple[list[Object], list[Object]]:
    """Return volumes and mounts of Redis's login and certificate authorities.

    The kubelet keeps them up to date.
    """
    redis = context.relay_miner.spec.redis
    volumes: list[Object] = []
    if (login := redis.credentials_secret_ref) is not None:
        volumes.append({"name": "redis-login", "secret": {"secretName": login.name, "defaultMode": 0o440}})
    if (bundle := redis.ca_bundle) is not None and bundle.secret_ref is not None:
        volumes.append({"name": "redis-ca", "secret": {"secretName": bundle.secret_ref.name, "defaultMode": 0o440}})
    elif bundle is not None and bundle.config_map_ref is not None:
        volumes.append({"name": "redis-ca", "configMap": {"name": bundle.config_map_ref.name}})
    folders = {"redis-login": REDIS_LOGIN_DIR, "redis-ca": REDIS_CA_DIR}
    mounts = [{"name": v["name"], "mountPath": str(folders[v["name"]]), "readOnly": True} for v in volumes]
    return volumes, mounts


def _signer_files(context: Context) -> tuple[list[Object], list[Object]]:
    """Return volume and mount of the client certificate for the remote signer.

    It is optional: a missing Secret concerns the remote keys only.
    """
    signer = context.relay_miner.spec.signer
    if signer is None or signer.tls_secret_ref is None:
        return [], []
    secret = {"secretName": signer.tls_secret_ref.name, "optional": True, "defaultMode": 0o440}
    return (
        [{"name": "signer", "secret": secret}],
        [{"name": "signer", "mountPath": str(SIGNER_DIR), "readOnly": True}],
    )


def template(
    context: Context,
    component: str,
    chosen: PodTemplate,
    *,
    config_digest: str,
    container: Object,
    grace_seconds: int,
    volumes: list[Object],
    token: bool = False,
) -> Object:
    """Build a pod template.

    The operator annotates pods with the key digest instead, so that new keys roll nothing.
    """
    annotations = {**chosen.annotations, names.ANNOTATION_CONFIG: config_digest}
    if context.redis_digest:
        annotations[names.ANNOTATION_REDIS] = context.redis_digest
    if context.restarted_at:
        annotations[names.ANNOTATION_RESTARTED] = context.restarted_at
    hot_volumes, hot_mounts = _hot(context, component)
    redis_volumes, redis_mounts = _redis_files(context)
    signer_volumes, signer_mounts = _signer_files(context)
    spec: Object = {
        "serviceAccountName": f"{context.name}-{component}",
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "securityContext": dict(POD_SECURITY),
        "terminationGracePeriodSeconds": grace_seconds,
        "topologySpreadConstraints": spread(context, component),
        "containers": [
            {
                "name": component,
                "imagePullPolicy": context.images.pull_policy,
                "env": [
                    redis_environment(context),
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                    {"name": "TMPDIR", "value": "/tmp"},  # noqa: S108 - an emptyDir of the pod
                ],
                "securityContext": dict(CONTAINER_SECURITY),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    {"name": "config", "mountPath": str(CONFIG_DIR), "readOnly": True},
                    *hot_mounts,
                    *redis_mounts,
                    *signer_mounts,
                    {"name": "keys", "mountPath": str(KEYS_DIR), "readOnly": True},
                    {"name": "data", "mountPath": str(DATA_DIR)},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod
                ],
                **container,
            }
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": names.config(context.name)}},
            *hot_volumes,
            *redis_volumes,
            *signer_volumes,
            {"name": "keys", "secret": {"secretName": names.keys(context.name, component), "defaultMode": 0o440}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            *volumes,
        ],
    }
    labels = {**chosen.labels, **context.labels(component)}
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": with_settings(spec, chosen, component)}


def with_settings(spec: Object, chosen: PodTemplate, component: str) -> Object:
    """Return a pod's spec with the owner's settings, merged last.

    Raises PodTemplateRejected.
    """
    placed = with_placement(spec, chosen)
    return placed if chosen.spec is None else merge_pod_spec(placed, chosen.spec, component)


def with_placement(spec: Object, chosen: PodPlacement) -> Object:
    """Return a pod's spec with the owner's choice of nodes, priority and pull secrets."""
    if chosen.termination_grace_seconds is not None:
        spec["terminationGracePeriodSeconds"] = chosen.termination_grace_seconds
    if chosen.topology_spread_constraints is not None:
        spec["topologySpreadConstraints"] = [dict(c) for c in chosen.topology_spread_constraints]
    if chosen.node_selector:
        spec["nodeSelector"] = dict(chosen.node_selector)
    if chosen.tolerations:
        spec["tolerations"] = [dict(t) for t in chosen.tolerations]
    if chosen.affinity is not None:
        spec["affinity"] = dict(chosen.affinity)
    if chosen.priority_class_name is not None:
        spec["priorityClassName"] = chosen.priority_class_name
    if chosen.image_pull_secrets:
        spec["imagePullSecrets"] = [dict(s) for s in chosen.image_pull_secrets]
    return spec


def _hot(context: Context, component: str) -> tuple[list[Object], list[Object]]:
    """Return volumes and mounts of what relayers reload while they run.

    The Secrets of backends' auth are part of it.
    """
    if component != names.RELAYER:
        return [], []
    volumes: list[Object] = [{"name": "hot", "configMap": {"name": names.hot(context.name)}}]
    mounts: list[Object] = [{"name": "hot", "mountPath": str(HOT_DIR), "readOnly": True}]
    for number, secret in enumerate(auth_secrets(context)):
        # Optional: a missing Secret makes these backends unhealthy, not the whole relayer.
        volumes.append(
            {"name": f"auth-{number}", "secret": {"secretName": secret, "optional": True, "defaultMode": 0o440}}
        )
        mounts.append({"name": f"auth-{number}", "mountPath": str(SECRETS_DIR / secret), "readOnly": True})
    return volumes, mounts


def probe(path: str, port: str | int, **timing: int) -> Object:
    """Build an HTTP probe."""
    return {"httpGet": {"path": path, "port": port}, **timing}


def admin_port() -> Object:
    """Build the container port of metrics, health and reports."""
    return {"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}


def disruption_budget(context: Context, component: str) -> Object:
    """Build a disruption budget: one pod of a workload may be evicted at a time."""
    return context.object(
        "policy/v1", "PodDisruptionBudget", f"{context.name}-{component}", component,
        spec={
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector(context.name, component)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )  # fmt: skip
