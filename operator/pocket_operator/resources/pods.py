"""What the pods of both workloads have in common: they pass Pod Security `restricted`, without an API token."""

from collections.abc import Mapping
from typing import Any

from pocket.api.kubernetes import PodTemplate, Resources
from pocket_operator.resources import names
from pocket_operator.resources.config import (
    ADMIN_PORT,
    CONFIG_DIR,
    DATA_DIR,
    HOT_DIR,
    KEYS_DIR,
    REDIS_URL_VARIABLE,
    SECRETS_DIR,
    auth_secrets,
)
from pocket_operator.resources.context import Context, Object

USER = 65532
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
    """The user's requests and limits over the defaults; no CPU limit unless asked for."""
    result: Object = {"requests": {**requests, **chosen.requests}}
    if chosen.limits:
        result["limits"] = dict(chosen.limits)
    return result


def spread(context: Context, component: str) -> list[Object]:
    """Over zones, then nodes; a preference, so that a small cluster still runs everything."""
    selector = {"matchLabels": names.selector(context.name, component)}
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def redis_environment(context: Context) -> Object:
    """The Redis URL, from its Secret where there is one: the ConfigMap never holds it."""
    redis = context.relay_miner.spec.redis
    if redis.url_secret_ref is not None:
        reference = {"name": redis.url_secret_ref.name, "key": redis.url_secret_ref.key}
        return {"name": REDIS_URL_VARIABLE, "valueFrom": {"secretKeyRef": reference}}
    url = redis.sentinel.url if redis.sentinel is not None else redis.url
    if url is None:
        url = f"redis://{names.redis(context.name)}:6379/0"
    return {"name": REDIS_URL_VARIABLE, "value": url}


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
    """A pod template. The key digest is not part of it: the operator puts that on the pods, so that nothing rolls."""
    annotations = {**chosen.annotations, names.ANNOTATION_CONFIG: config_digest}
    if context.redis_digest:
        annotations[names.ANNOTATION_REDIS] = context.redis_digest
    if context.restarted_at:
        annotations[names.ANNOTATION_RESTARTED] = context.restarted_at
    constraints = chosen.topology_spread_constraints
    hot_volumes, hot_mounts = _hot(context, component)
    spec: Object = {
        "serviceAccountName": f"{context.name}-{component}",
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "securityContext": dict(POD_SECURITY),
        "terminationGracePeriodSeconds": chosen.termination_grace_seconds or grace_seconds,
        "topologySpreadConstraints": (
            spread(context, component) if constraints is None else [dict(c) for c in constraints]
        ),
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
            {"name": "keys", "secret": {"secretName": names.keys(context.name, component), "defaultMode": 0o440}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            *volumes,
        ],
    }
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
    labels = {**chosen.labels, **context.labels(component)}
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def _hot(context: Context, component: str) -> tuple[list[Object], list[Object]]:
    """Volumes and mounts of what relayers take up while they run, the Secrets of backends' auth included."""
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
    """An HTTP probe."""
    return {"httpGet": {"path": path, "port": port}, **timing}


def admin_port() -> Object:
    """Metrics, health and status of a pod."""
    return {"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}


def disruption_budget(context: Context, component: str) -> Object:
    """One pod of a workload at a time leaves voluntarily."""
    return context.object(
        "policy/v1", "PodDisruptionBudget", f"{context.name}-{component}", component,
        spec={
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector(context.name, component)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )  # fmt: skip
