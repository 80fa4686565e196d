"""Kinds of objects that the operator reads and writes."""

from pocket.api.base import API_VERSION
from pocket.kube.api_client import ResourceKind

RELAY_MINERS = ResourceKind(API_VERSION, "relayminers", "RelayMiner")
SUPPLIERS = ResourceKind(API_VERSION, "suppliers", "Supplier")
PROTECTED_NAMESPACES = ResourceKind(API_VERSION, "protectednamespaces", "ProtectedNamespaces")
PODS = ResourceKind("v1", "pods", "Pod")
SECRETS = ResourceKind("v1", "secrets", "Secret")
EVENTS = ResourceKind("v1", "events", "Event")
LEASES = ResourceKind("coordination.k8s.io/v1", "leases", "Lease")
CONFIG_MAPS = ResourceKind("v1", "configmaps", "ConfigMap")

WATCHED_CHILDREN = (
    CONFIG_MAPS,
    ResourceKind("v1", "services", "Service"),
    ResourceKind("v1", "serviceaccounts", "ServiceAccount"),
    ResourceKind("apps/v1", "deployments", "Deployment"),
    ResourceKind("apps/v1", "statefulsets", "StatefulSet"),
    ResourceKind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    ResourceKind("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    ResourceKind("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
    ResourceKind("networking.k8s.io/v1", "ingresses", "Ingress"),
    ResourceKind("rbac.authorization.k8s.io/v1", "roles", "Role"),
    ResourceKind("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
)
"""Children that are watched with the label selector of the operator."""

OPTIONAL_CHILDREN = (
    ResourceKind("monitoring.coreos.com/v1", "podmonitors", "PodMonitor"),
    ResourceKind("monitoring.coreos.com/v1", "prometheusrules", "PrometheusRule"),
    ResourceKind("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute"),
)
"""Children of kinds that not every cluster has, read by name."""

READ_CHILDREN = (SECRETS, *OPTIONAL_CHILDREN)
"""Children that each reconciliation reads by name. Secrets are never listed or watched."""

BY_KIND = {kind.name: kind for kind in (*WATCHED_CHILDREN, *READ_CHILDREN, RELAY_MINERS, SUPPLIERS, PODS)}
