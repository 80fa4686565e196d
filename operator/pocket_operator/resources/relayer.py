"""Build the relayers: Deployment, canary, Service, ServiceAccount, routes."""

import copy
import math

from pocket_operator.resources import names
from pocket_operator.resources.config import CONFIG_DIR, config_digests, relayer_text
from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.pods import admin_port, probe, resources, template
from pocket_operator.resources.revision import Revision

_PROPAGATION_SECONDS = 5
_MARGIN_SECONDS = 10


def revision(context: Context) -> Revision:
    """Return the revision that the RelayMiner declares."""
    spec = context.relay_miner.spec.relayer
    container: Object = {
        "image": spec.image or context.images.relayer,
        "command": ["python", "-m", "pocket_relayer", "--config", str(CONFIG_DIR / "relayer.json")],
        "ports": [{"name": "relays", "containerPort": spec.port, "protocol": "TCP"}, admin_port()],
        "resources": resources(spec.resources, {"cpu": "500m", "memory": "256Mi"}),
        "livenessProbe": probe("/health", "admin", periodSeconds=10, failureThreshold=3, timeoutSeconds=3),
        "readinessProbe": probe("/ready", "admin", periodSeconds=3, failureThreshold=2, timeoutSeconds=3),
        "startupProbe": probe("/health", "admin", periodSeconds=1, failureThreshold=60, timeoutSeconds=3),
    }
    chosen = spec.pod_template.termination_grace_seconds
    # Load balancers go on sending for some seconds after a pod is terminated. Kubernetes wants less than the grace.
    if wait := min(_PROPAGATION_SECONDS, _PROPAGATION_SECONDS if chosen is None else chosen - 1):
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": wait}}}
    grace = _PROPAGATION_SECONDS + math.ceil(spec.drain_seconds) + _MARGIN_SECONDS
    return Revision(
        template(
            context,
            names.RELAYER,
            spec.pod_template,
            config_digest=config_digests(context)[0],
            container=container,
            grace_seconds=grace,
            volumes=[{"name": "data", "emptyDir": {}}],
        ),
        relayer_text(context),
    )


def current(context: Context) -> Revision:
    """Return the declared revision, or the one that is kept until the update."""
    kept = context.kept.get(names.RELAYER)
    return revision(context) if kept is None else kept.revision


def deployment(context: Context) -> Object:
    """Build the Deployment, without `replicas` if an autoscaler owns them."""
    spec = context.relay_miner.spec.relayer
    body: Object = {
        "selector": {"matchLabels": names.selector(context.name, names.RELAYER)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "revisionHistoryLimit": 5,
        "paused": False,  # set, so that a rollout that a user paused goes on
        "template": (current(context) if context.rollout is None else context.rollout.steady).template,
    }
    if spec.autoscaling is None:
        body["replicas"] = 1 if spec.replicas is None else spec.replicas
    return context.object("apps/v1", "Deployment", names.relayer(context.name), names.RELAYER, spec=body)


def canary(context: Context) -> list[Object]:
    """Build the canary's objects: its own configuration, its Deployment."""
    rollout = context.rollout
    if rollout is None or rollout.canary is None:
        return []
    track = {names.LABEL_TRACK: names.CANARY}
    pod_template: Object = copy.deepcopy(rollout.canary.template)
    pod_template["metadata"]["labels"] |= track
    pod_template["metadata"]["annotations"][names.ANNOTATION_REVISION] = rollout.canary.name
    for volume in pod_template["spec"]["volumes"]:
        if volume["name"] == "config":
            volume["configMap"]["name"] = names.canary_config(context.name)
    marks = {names.ANNOTATION_REVISION: rollout.canary.name}
    if rollout.since is not None:
        marks[names.ANNOTATION_TRIED] = rollout.since.isoformat(timespec="seconds")
    if rollout.failed:
        marks[names.ANNOTATION_FAILED] = rollout.failed
    made = context.object(
        "apps/v1", "Deployment", names.canary(context.name), names.RELAYER, annotations=marks,
        spec={
            "replicas": 0 if rollout.failed else 1,
            "revisionHistoryLimit": 1,
            # The old canary ends before the new one starts, while the other relayers serve.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {**names.selector(context.name, names.RELAYER), **track}},
            "template": pod_template,
        },
    )  # fmt: skip
    made["metadata"]["labels"] |= track
    config = context.object(
        "v1", "ConfigMap", names.canary_config(context.name), names.RELAYER,
        data={"relayer.json": rollout.canary.config},
    )  # fmt: skip
    return [config, made]


def service(context: Context) -> Object:
    """Build the Service to which gateways send relays."""
    chosen = context.relay_miner.spec.relayer.service
    return context.object(
        "v1", "Service", names.relayer(context.name), names.RELAYER, annotations=chosen.annotations,
        spec={
            "type": chosen.type,
            "selector": names.selector(context.name, names.RELAYER),
            "ports": [{"name": "relays", "port": chosen.port, "targetPort": "relays", "protocol": "TCP"}],
        },
    )  # fmt: skip


def service_account(context: Context) -> Object:
    """Build a ServiceAccount without any rights."""
    return context.object(
        "v1", "ServiceAccount", names.relayer(context.name), names.RELAYER, automountServiceAccountToken=False
    )


def routes(context: Context) -> list[Object]:
    """Build an Ingress and an HTTPRoute, as declared and if the cluster has the kind."""
    spec = context.relay_miner.spec.relayer
    name = names.relayer(context.name)
    rendered: list[Object] = []
    if spec.ingress is not None:
        backend = {"service": {"name": name, "port": {"name": "relays"}}}
        body: Object = {
            "rules": [
                {
                    "host": spec.ingress.host,
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                }
            ]
        }
        if spec.ingress.class_name is not None:
            body["ingressClassName"] = spec.ingress.class_name
        if spec.ingress.tls_secret_name is not None:
            body["tls"] = [{"hosts": [spec.ingress.host], "secretName": spec.ingress.tls_secret_name}]
        rendered.append(
            context.object(
                "networking.k8s.io/v1", "Ingress", name, names.RELAYER,
                annotations=spec.ingress.annotations, spec=body,
            )
        )  # fmt: skip
    if spec.gateway is not None and "HTTPRoute" in context.capabilities:
        rule = {"backendRefs": [{"name": name, "port": spec.service.port}]}
        body = {
            "parentRefs": [p.model_dump(by_alias=True, exclude_none=True) for p in spec.gateway.parent_refs],
            "rules": [rule],
        }
        if spec.gateway.hostnames:
            body["hostnames"] = list(spec.gateway.hostnames)
        rendered.append(context.object("gateway.networking.k8s.io/v1", "HTTPRoute", name, names.RELAYER, spec=body))
    return rendered
