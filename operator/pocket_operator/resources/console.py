"""Build the console: one pod with a Service, and rights to list what it shows.

It gets neither configuration nor keys nor a login of Redis, only the status ports of the pods and their resources.
"""

from pocket.api.base import GROUP
from pocket.api.console import ConsoleSpec
from pocket_operator.resources import names
from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.kinds import RELAY_MINERS, SUPPLIERS
from pocket_operator.resources.pods import CONTAINER_SECURITY, POD_SECURITY, resources, with_placement

PORT = 8900


def console(context: Context) -> list[Object]:
    """Build all objects of the console if spec.console is set."""
    chosen = context.relay_miner.spec.console
    if chosen is None:
        return []
    name, selector = names.console(context.name), names.selector(context.name, names.CONSOLE)
    return [
        *_identity(context, name),
        context.object(
            "v1", "Service", name, names.CONSOLE,
            spec={
                "selector": selector,
                "ports": [{"name": "http", "port": chosen.port, "targetPort": "http", "protocol": "TCP"}],
            },
        ),
        context.object(
            "apps/v1", "Deployment", name, names.CONSOLE,
            spec={
                "replicas": 1,
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": selector},
                "template": _template(context, chosen, name),
            },
        ),
    ]  # fmt: skip


def _identity(context: Context, name: str) -> list[Object]:
    """Build a ServiceAccount that may list pods and our resources.

    `list` cannot be limited to names.
    """
    return [
        context.object("v1", "ServiceAccount", name, names.CONSOLE, automountServiceAccountToken=False),
        context.object(
            "rbac.authorization.k8s.io/v1", "Role", name, names.CONSOLE,
            rules=[
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
                {"apiGroups": [GROUP], "resources": [RELAY_MINERS.plural, SUPPLIERS.plural], "verbs": ["list"]},
            ],
        ),
        context.object(
            "rbac.authorization.k8s.io/v1", "RoleBinding", name, names.CONSOLE,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            subjects=[{"kind": "ServiceAccount", "name": name, "namespace": context.namespace}],
        ),
    ]  # fmt: skip


def _command(context: Context, chosen: ConsoleSpec) -> list[str]:
    links = {
        "--block-url": chosen.block_url, "--transaction-url": chosen.transaction_url,
        "--dashboards-url": chosen.dashboards_url,
    }  # fmt: skip
    return [
        "python", "-m", "pocket_console", "console", "--direct", "--host=0.0.0.0", f"--port={PORT}",
        f"--namespace={context.namespace}", f"--relayminer={context.name}",
        *(f"--allow-host={host}" for host in chosen.hosts),
        *(f"{option}={url}" for option, url in links.items() if url is not None),
    ]  # fmt: skip


def _template(context: Context, chosen: ConsoleSpec, name: str) -> Object:
    # The console answers known host names only, and a probe names the pod's address.
    health = {
        "httpGet": {"path": "/health", "port": "http", "httpHeaders": [{"name": "Host", "value": "localhost"}]},
        "timeoutSeconds": 3,
    }
    spec: Object = {
        "serviceAccountName": name,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "securityContext": dict(POD_SECURITY),
        "terminationGracePeriodSeconds": 5,
        "containers": [
            {
                "name": names.CONSOLE,
                "image": chosen.image or context.images.console,
                "imagePullPolicy": context.images.pull_policy,
                "command": _command(context, chosen),
                "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
                "resources": resources(chosen.resources, {"cpu": "50m", "memory": "128Mi"}),
                "readinessProbe": {**health, "periodSeconds": 5},
                "livenessProbe": {**health, "periodSeconds": 10},
                "securityContext": dict(CONTAINER_SECURITY),
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
    }
    template = chosen.pod_template
    metadata: Object = {"labels": {**template.labels, **context.labels(names.CONSOLE)}}
    if template.annotations:
        metadata["annotations"] = dict(template.annotations)
    return {"metadata": metadata, "spec": with_placement(spec, template)}
