"""Names, labels and annotations that the operator gives; they are part of its interface (docs/reference/labels.md)."""

from typing import NewType

from pocket_api.base import GROUP

Namespace = NewType("Namespace", str)
Name = NewType("Name", str)

FIELD_MANAGER = f"{GROUP}/operator"
MANAGED_BY = "pocket-operator"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_RELAY_MINER = f"{GROUP}/relayminer"

ANNOTATION_DESIRED = f"{GROUP}/desired"
"""Digest of what the operator last applied: tells that a field was taken back, which a comparison cannot."""
ANNOTATION_CONFIG = f"{GROUP}/config-digest"
ANNOTATION_REDIS = f"{GROUP}/redis-digest"
ANNOTATION_KEYS = f"{GROUP}/keys-digest"
ANNOTATION_RESTARTED = f"{GROUP}/restarted-at"
ANNOTATION_RECONCILE = f"{GROUP}/reconcile"
ANNOTATION_REQUESTED = f"{GROUP}/reconcile-requested-at"
ANNOTATION_FORCE_DELETE = f"{GROUP}/force-delete"

FINALIZER = f"{GROUP}/drain"

RELAYER = "relayer"
MINER = "miner"
REDIS = "redis"
KEEPER = "drain"

INHERITED_LABELS = frozenset({"team", "environment", "cost-center", "app.kubernetes.io/version"})
"""Labels of a RelayMiner that its children get. No others: Argo CD would adopt and prune what carries its own."""


def relayer(name: str) -> str:
    """Deployment, Service, ServiceAccount and more of the relayers."""
    return f"{name}-relayer"


def miner(name: str) -> str:
    """StatefulSet, headless Service, ServiceAccount and Lease of the miners."""
    return f"{name}-miner"


def redis(name: str) -> str:
    """The trial Redis."""
    return f"{name}-redis"


def config(name: str) -> str:
    """ConfigMap of what rolls."""
    return f"{name}-config"


def hot(name: str) -> str:
    """ConfigMap of what is hot."""
    return f"{name}-hot"


def keys(name: str, component: str) -> str:
    """Secret of the key set of one workload: relayers lose a draining supplier's key first."""
    return f"{name}-{component}-keys"


def keeper(name: str) -> str:
    """ConfigMap that co-owns what finishes claims and proofs, so that it outlives a deleted RelayMiner."""
    return f"{name}-drain"


def selector(relay_miner: str, component: str) -> dict[str, str]:
    """The immutable labels that select a workload's pods."""
    return {LABEL_RELAY_MINER: relay_miner, LABEL_COMPONENT: component}
