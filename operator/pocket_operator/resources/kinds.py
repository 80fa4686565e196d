"""The kinds that the operator reads and writes."""

from pocket.api.base import API_VERSION
from pocket.kube.api_client import Kind

RELAY_MINERS = Kind(API_VERSION, "relayminers", "RelayMiner")
SUPPLIERS = Kind(API_VERSION, "suppliers", "Supplier")
HELD_NAMESPACES = Kind(API_VERSION, "heldnamespaces", "HeldNamespaces")
PODS = Kind("v1", "pods", "Pod")
SECRETS = Kind("v1", "secrets", "Secret")
EVENTS = Kind("v1", "events", "Event")
CONFIG_MAPS = Kind("v1", "configmaps", "ConfigMap")

WATCHED_CHILDREN = (
    CONFIG_MAPS,
    Kind("v1", "services", "Service"),
    Kind("v1", "serviceaccounts", "ServiceAccount"),
    Kind("apps/v1", "deployments", "Deployment"),
    Kind("apps/v1", "statefulsets", "StatefulSet"),
    Kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    Kind("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    Kind("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
    Kind("networking.k8s.io/v1", "ingresses", "Ingress"),
    Kind("rbac.authorization.k8s.io/v1", "roles", "Role"),
    Kind("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
)
"""Watched with the label selector of our children."""

OPTIONAL_CHILDREN = (
    Kind("monitoring.coreos.com/v1", "podmonitors", "PodMonitor"),
    Kind("monitoring.coreos.com/v1", "prometheusrules", "PrometheusRule"),
    Kind("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute"),
)
"""Kinds that a cluster need not know; read by name."""

READ_CHILDREN = (SECRETS, *OPTIONAL_CHILDREN)
"""Children that are read by name at each reconciliation: Secrets are never listed or watched."""

BY_KIND = {kind.name: kind for kind in (*WATCHED_CHILDREN, *READ_CHILDREN, RELAY_MINERS, SUPPLIERS, PODS)}
