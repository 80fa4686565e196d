"""Names, labels and annotations that the operator gives; they are part of its interface (docs/labels.md)."""

from typing import NewType

from pocket.api.base import GROUP

Namespace = NewType("Namespace", str)
Name = NewType("Name", str)

FIELD_MANAGER = f"{GROUP}/operator"
MANAGED_BY = "pocket-operator"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_RELAY_MINER = f"{GROUP}/relayminer"
LABEL_TRACK = f"{GROUP}/track"
CANARY = "canary"
"""Value of the track label on a canary and its pods; the other relayers have none."""

ANNOTATION_DESIRED = f"{GROUP}/desired"
"""Digest of what the operator last applied: tells that a field was taken back, which a comparison cannot."""
ANNOTATION_CONFIG = f"{GROUP}/config-digest"
ANNOTATION_REDIS = f"{GROUP}/redis-digest"
ANNOTATION_KEYS = f"{GROUP}/keys-digest"
ANNOTATION_RESTARTED = f"{GROUP}/restarted-at"
ANNOTATION_RECONCILE = f"{GROUP}/reconcile"
ANNOTATION_REQUESTED = f"{GROUP}/reconcile-requested-at"
ANNOTATION_REVISION = f"{GROUP}/revision"
"""Of a canary and its pods: the digest of the pod template that is tried."""
ANNOTATION_TRIED = f"{GROUP}/tried-at"
"""Of a canary: since when its revision is tried."""
ANNOTATION_FAILED = f"{GROUP}/failed"
"""Of a canary: why its revision must not reach the other relayers."""
ANNOTATION_PROMOTE = f"{GROUP}/promote"
"""Of a RelayMiner: a revision that goes to all relayers, whatever its canary does."""
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


def canary(name: str) -> str:
    """Deployment of the relayer that tries a new revision."""
    return f"{name}-relayer-canary"


def canary_config(name: str) -> str:
    """ConfigMap of what rolls, for the canary."""
    return f"{name}-config-canary"


def revision(name: str) -> str:
    """ConfigMap of the revision that the relayers run while canaries are wanted."""
    return f"{name}-relayer-revision"


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
