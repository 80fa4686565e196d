"""Build the manifests that install the operator.

The kustomize folders and the Helm chart are generated from them.
"""

from dataclasses import dataclass
from typing import Any

from pocket.api.base import API_VERSION, GROUP
from pocket.runtime.version import VERSION
from pocket_operator import admission_policy
from pocket_operator.controller.namespace_guard import PROTECTED
from pocket_operator.controller.secrets import SEALING_PUBLIC, SEALING_SECRET
from pocket_operator.controller.watch_heartbeat import NAME as HEARTBEAT
from pocket_operator.resources import monitoring, names
from pocket_operator.resources.kinds import OPTIONAL_CHILDREN, PROTECTED_NAMESPACES, WATCHED_CHILDREN
from pocket_operator.resources.pods import CONTAINER_SECURITY, USER

Object = dict[str, Any]
NAME = "pocket-operator"
NAMESPACE = "pocket-system"
LABELS = {names.LABEL_NAME: NAME, names.LABEL_PART_OF: "pocket-relay-mining"}
READ = ["get", "list", "watch"]


@dataclass(frozen=True, slots=True)
class Values:
    """Values that an installation sets. The chart inserts its placeholders here."""

    namespace: str = NAMESPACE
    operator_image: str = f"ghcr.io/pocket-relay-mining/operator:{VERSION}"
    relayer_image: str = f"ghcr.io/pocket-relay-mining/relayer:{VERSION}"
    miner_image: str = f"ghcr.io/pocket-relay-mining/miner:{VERSION}"
    console_image: str = f"ghcr.io/pocket-relay-mining/console:{VERSION}"
    redis_image: str = "docker.io/library/redis:8.2-alpine"
    pull_policy: str = "IfNotPresent"
    replicas: Any = 2
    log_level: str = "INFO"
    policies: str = NAME
    """First part of the names of the admission policies, which belong to no namespace."""


def _rule(group: str, resources: list[str], verbs: list[str], names_: list[str] | None = None) -> Object:
    rule: Object = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    if names_:
        rule["resourceNames"] = names_
    return rule


def watching_rules() -> list[Object]:
    """Return the rights in namespaces with RelayMiners.

    Secrets are read by name, never listed or watched.
    """
    rules = [
        _rule(GROUP, ["relayminers", "suppliers"], [*READ, "patch"]),
        _rule(GROUP, ["relayminers/status", "suppliers/status"], ["patch"]),
        _rule("", ["secrets"], ["get", "create", "patch", "delete"]),
        _rule("", ["pods"], [*READ, "patch"]),
        _rule("", ["persistentvolumeclaims"], ["list", "patch"]),
        _rule("", ["events"], ["get", "list", "create", "patch"]),
        # To grant a miner the right to its Lease, the operator needs this right itself.
        _rule("coordination.k8s.io", ["leases"], ["get", "list", "create", "update"]),
    ]
    groups: dict[str, list[str]] = {}
    for kind in WATCHED_CHILDREN:
        groups.setdefault(kind.api_version.rpartition("/")[0], []).append(kind.plural)
    rules += [_rule(group, plurals, [*READ, "create", "patch", "delete"]) for group, plurals in groups.items()]
    optional: dict[str, list[str]] = {}
    for kind in OPTIONAL_CHILDREN:
        optional.setdefault(kind.api_version.rpartition("/")[0], []).append(kind.plural)
    rules += [
        _rule(group, plurals, ["get", "create", "patch", "delete"]) for group, plurals in sorted(optional.items())
    ]
    return rules


def own_rules() -> list[Object]:
    """Return the rights in the operator's namespace.

    They are for Lease, sealing keys, heartbeat and protected namespaces.
    """
    return [
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        _rule("coordination.k8s.io", ["leases"], ["get", "update"], [NAME]),
        _rule("", ["secrets"], ["create"]),
        _rule("", ["secrets"], ["get", "update"], [SEALING_SECRET]),
        _rule("", ["configmaps"], ["create"]),
        _rule("", ["configmaps"], ["get", "patch"], [SEALING_PUBLIC, HEARTBEAT]),
        _rule(GROUP, [PROTECTED_NAMESPACES.plural], ["create"]),
        _rule(GROUP, [PROTECTED_NAMESPACES.plural], ["get", "patch"], [PROTECTED]),
    ]


def _named(api_version: str, kind: str, name: str, values: Values, **body: Any) -> Object:
    metadata: Object = {"name": name, "namespace": values.namespace, "labels": dict(LABELS)}
    if kind.startswith(("Cluster", "Validating")):
        del metadata["namespace"]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


def namespace_object(values: Values) -> Object:
    """Build the operator's namespace, which admits only restricted pods."""
    pod_security = "pod-security.kubernetes.io"
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": values.namespace,
            "labels": {**LABELS, f"{pod_security}/enforce": "restricted", f"{pod_security}/warn": "restricted"},
        },
    }


_RBAC = "rbac.authorization.k8s.io"


def rights(values: Values, *, cluster_wide: bool) -> list[Object]:
    """Build ServiceAccount, roles and bindings."""
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": values.namespace}
    kind = "ClusterRole" if cluster_wide else "Role"
    watching = f"{NAME}-watching"
    return [
        _named("v1", "ServiceAccount", NAME, values),
        _named(f"{_RBAC}/v1", kind, watching, values, rules=watching_rules()),
        _named(
            f"{_RBAC}/v1", f"{kind}Binding", watching, values,
            roleRef={"apiGroup": _RBAC, "kind": kind, "name": watching}, subjects=[subject],
        ),
        _named(f"{_RBAC}/v1", "Role", NAME, values, rules=own_rules()),
        _named(
            f"{_RBAC}/v1", "RoleBinding", NAME, values,
            roleRef={"apiGroup": _RBAC, "kind": "Role", "name": NAME}, subjects=[subject],
        ),
    ]  # fmt: skip


def aggregated_roles(values: Values) -> list[Object]:
    """Extend the cluster's view, edit and admin roles to the custom resources."""
    resources = ["relayminers", "suppliers"]
    roles = []
    for level, verbs, targets in (
        ("view", READ, ("view", "edit", "admin")),
        ("edit", ["create", "update", "patch", "delete", "deletecollection"], ("edit", "admin")),
    ):
        role = _named(
            f"{_RBAC}/v1", "ClusterRole", f"pocket-{level}", values, rules=[_rule(GROUP, resources, list(verbs))]
        )
        role["metadata"]["labels"] |= {f"rbac.authorization.k8s.io/aggregate-to-{t}": "true" for t in targets}
        if level == "edit":
            role["rules"].append(_rule(GROUP, ["relayminers/scale"], ["get", "update", "patch"]))
        roles.append(role)
    return roles


def namespace_policy(values: Values) -> list[Object]:
    """Build the policy that rejects deleting a namespace with open sessions.

    A deletion ends all pods of a namespace at once, its miners included. Without the operator's list every deletion
    passes. The list has a kind of its own because of a defect of the API server (1.34): after a policy was deleted and
    created again, it goes on using the copy of a ConfigMap that it had before.
    """
    group, name = "admissionregistration.k8s.io/v1", f"{values.policies}-namespaces"
    escape = names.ANNOTATION_FORCE_DELETE
    forced = f"oldObject.metadata.?annotations[?'{escape}'].orValue('') == 'true'"
    message = (
        "'namespace ' + request.name + ' has ' + params.spec.namespaces[request.name] + "
        "' whose sessions may not be settled yet, and its miners would end with it: "
        "delete those first and wait until they are gone. To lose what is open, "
        f"annotate the namespace with {escape}=true'"
    )
    policy = _named(
        group, "ValidatingAdmissionPolicy", name, values,
        spec={
            "failurePolicy": "Ignore",
            "paramKind": {"apiVersion": API_VERSION, "kind": PROTECTED_NAMESPACES.name},
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["namespaces"],
                        "scope": "*",
                    }
                ]
            },
            "matchConditions": [{"name": "not-forced", "expression": f"!({forced})"}],
            "validations": [
                {
                    "expression": "!(request.name in params.spec.?namespaces.orValue({}))",
                    "message": "RelayMiners and Suppliers of the namespace come first",
                    "messageExpression": message,
                }
            ],
        },
    )  # fmt: skip
    return [policy, _binding(name, values, protected=True), *definition_policy(values)]


def _binding(name: str, values: Values, *, protected: bool = False) -> Object:
    """Build the binding of a policy.

    If the policy has parameters, they are the protected namespaces.
    """
    spec: Object = {"policyName": name, "validationActions": ["Deny"]}
    if protected:
        spec["paramRef"] = {"name": PROTECTED, "namespace": values.namespace, "parameterNotFoundAction": "Allow"}
    return _named("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", name, values, spec=spec)


def template_policy(values: Values) -> list[Object]:
    """Build the policy of pod settings that Kubernetes would reject in the pods."""
    group, name = "admissionregistration.k8s.io/v1", f"{values.policies}-templates"
    policy = _named(group, "ValidatingAdmissionPolicy", name, values, spec=admission_policy.specification())
    return [policy, _binding(name, values)]


def definition_policy(values: Values) -> list[Object]:
    """Build the policy that rejects deleting our CRDs while any session is open.

    All resources would go with them.
    """
    name, escape = f"{values.policies}-definitions", names.ANNOTATION_FORCE_DELETE
    forced = f"oldObject.metadata.?annotations[?'{escape}'].orValue('') == 'true'"
    message = (
        "'with ' + request.name + ' all of its resources would be deleted, and sessions in namespaces ' + "
        "params.spec.namespaces.map(n, n).join(', ') + ' may not be settled yet: delete RelayMiners and Suppliers "
        f"first and wait until they are gone. To lose what is open, annotate the definition with {escape}=true'"
    )
    policy = _named(
        "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", name, values,
        spec={
            "failurePolicy": "Ignore",
            "paramKind": {"apiVersion": API_VERSION, "kind": PROTECTED_NAMESPACES.name},
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": ["apiextensions.k8s.io"], "apiVersions": ["v1"], "operations": ["DELETE"],
                        "resources": ["customresourcedefinitions"], "scope": "*",
                    }
                ]
            },
            "matchConditions": [
                {"name": "ours", "expression": f"request.name.endsWith('.{GROUP}')"},
                {"name": "not-forced", "expression": f"!({forced})"},
            ],
            "validations": [
                {
                    "expression": "size(params.spec.?namespaces.orValue({})) == 0",
                    "message": "RelayMiners and Suppliers come first",
                    "messageExpression": message,
                }
            ],
        },
    )  # fmt: skip
    return [policy, _binding(name, values, protected=True)]


def deployment(values: Values, *, cluster_wide: bool) -> Object:
    """Build the Deployment: two replicas, one of which leads."""
    selector = {names.LABEL_NAME: NAME}
    arguments = ["python", "-m", "pocket_operator"]
    if not cluster_wide:
        arguments.append("--namespace=$(POD_NAMESPACE)")
    container: Object = {
        "name": "operator",
        "image": values.operator_image,
        "imagePullPolicy": values.pull_policy,
        "command": arguments,
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "RELAYER_IMAGE", "value": values.relayer_image},
            {"name": "MINER_IMAGE", "value": values.miner_image},
            {"name": "CONSOLE_IMAGE", "value": values.console_image},
            {"name": "REDIS_IMAGE", "value": values.redis_image},
            {"name": "IMAGE_PULL_POLICY", "value": values.pull_policy},
            {"name": "LOG_LEVEL", "value": values.log_level},
            {"name": "TMPDIR", "value": "/tmp"},  # noqa: S108 - an emptyDir of the pod
        ],
        "ports": [{"name": "health", "containerPort": 8080, "protocol": "TCP"}],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "health"}, "periodSeconds": 10, "failureThreshold": 3,
            "timeoutSeconds": 3,
        },
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 5, "timeoutSeconds": 3},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "400Mi"}},
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - an emptyDir of the pod
    }  # fmt: skip
    spread = {
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector},
    }  # fmt: skip
    return _named(
        "apps/v1", "Deployment", NAME, values,
        spec={
            "replicas": values.replicas,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": dict(LABELS)},
                "spec": {
                    "serviceAccountName": NAME,
                    "securityContext": {
                        "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "terminationGracePeriodSeconds": 15,
                    "topologySpreadConstraints": [spread],
                    "containers": [container],
                    "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
                },
            },
        },
    )  # fmt: skip


def disruption_budget(values: Values) -> Object:
    """Build the disruption budget: one replica may be evicted at a time."""
    return _named(
        "policy/v1", "PodDisruptionBudget", NAME, values,
        spec={"maxUnavailable": 1, "selector": {"matchLabels": {names.LABEL_NAME: NAME}}},
    )  # fmt: skip


RUNBOOK = f"{monitoring.RUNBOOK}#"
OPERATOR_ALERTS = (
    (
        "PocketOperatorDown", 'absent(pocket_operator_leader{{namespace="{namespace}"}} == 1)', 5, "critical",
        "No operator leads: keys, drains, repairs and updates wait, relayers and miners go on",
    ),
    (
        "PocketOperatorReconcilesFail",
        'sum(rate(pocket_operator_reconciles_total{{namespace="{namespace}",result!="done"}}[10m])) > 0.05', 15,
        "warning", "Reconciliations fail repeatedly",
    ),
    (
        "PocketOperatorRejected",
        'sum by (status) (increase(pocket_operator_api_refusals_total{{namespace="{namespace}"}}[15m])) > 5', 15,
        "warning", "The API server rejects writes of the operator repeatedly",
    ),
    (
        "PocketOperatorContested",
        'sum by (kind) (increase(pocket_operator_contested_writes_total{{namespace="{namespace}"}}[15m])) > 3', 15,
        "warning", "Another client keeps changing what the operator owns",
    ),
)  # fmt: skip


def monitors(values: Values) -> list[Object]:
    """Build the operator's own PodMonitor and alerting rules.

    For clusters with the Prometheus operator.
    """
    rules = [
        {
            "alert": name,
            "expr": expression.format(namespace=values.namespace),
            "for": f"{minutes}m",
            "labels": {"severity": severity, "namespace": values.namespace},
            "annotations": {"summary": summary, "runbook_url": f"{RUNBOOK}{name.lower()}"},
        }
        for name, expression, minutes, severity, summary in OPERATOR_ALERTS
    ]
    group = "monitoring.coreos.com/v1"
    return [
        _named(
            group, "PodMonitor", NAME, values,
            spec={
                "selector": {"matchLabels": {names.LABEL_NAME: NAME}},
                "podMetricsEndpoints": [{"port": "health", "path": "/metrics", "interval": "30s"}],
            },
        ),
        _named(group, "PrometheusRule", NAME, values, spec={"groups": [{"name": NAME, "rules": rules}]}),
    ]  # fmt: skip


def policies(values: Values) -> list[Object]:
    """Return the admission policies.

    Only an administrator of the cluster may create them.
    """
    return [*namespace_policy(values), *template_policy(values)]


def objects(values: Values, *, cluster_wide: bool) -> list[Object]:
    """Return all objects of an installation except CRDs, namespace and policies."""
    manifests = rights(values, cluster_wide=cluster_wide)
    if cluster_wide:
        manifests += aggregated_roles(values)
    return [*manifests, deployment(values, cluster_wide=cluster_wide), disruption_budget(values)]
