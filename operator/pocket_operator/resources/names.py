"""Names, labels and annotations of the operator's interface (docs/labels.md)."""

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
"""Value of the track label on a canary and its pods. The other relayers have none."""

ANNOTATION_DESIRED = f"{GROUP}/desired"
"""Digest of what the operator last applied. It shows that a field is no longer wanted, which a comparison cannot."""
ANNOTATION_CONFIG = f"{GROUP}/config-digest"
ANNOTATION_REDIS = f"{GROUP}/redis-digest"
ANNOTATION_KEYS = f"{GROUP}/keys-digest"
ANNOTATION_RESTARTED = f"{GROUP}/restarted-at"
ANNOTATION_RECONCILE = f"{GROUP}/reconcile"
ANNOTATION_REQUESTED = f"{GROUP}/reconcile-requested-at"
ANNOTATION_REVISION = f"{GROUP}/revision"
"""On a canary and its pods: the name of its revision."""
ANNOTATION_TRIED = f"{GROUP}/tried-at"
"""On a canary: the time at which its revision started."""
ANNOTATION_FAILED = f"{GROUP}/failed"
"""On a canary: why its revision must not reach the other relayers."""
ANNOTATION_PROMOTE = f"{GROUP}/promote"
"""On a RelayMiner: the name of a revision that goes to all relayers even if its canary failed."""
ANNOTATION_UPDATE = f"{GROUP}/updating-to"
"""On a miners' StatefulSet: the update to the operator's release that is under way."""
ANNOTATION_IMAGE = f"{GROUP}/image"
"""On a workload: the image that the operator gave it. Another one in its pod template was set by another client."""
ANNOTATION_RENDERING = f"{GROUP}/rendering"
"""On a workload: the digest of how the operator that rendered its pod template renders pod templates."""
ANNOTATION_OFFERED = f"{GROUP}/offered"
"""On a workload that waits for its update: the pod template that this release renders instead of the current one."""
ANNOTATION_APPROVE_UPDATE = f"{GROUP}/approve-update"
"""On a RelayMiner with the update strategy `supervised`: the update that its owner approves."""
ANNOTATION_FORCE_DELETE = f"{GROUP}/force-delete"

FINALIZER = f"{GROUP}/drain"

RELAYER = "relayer"
MINER = "miner"
REDIS = "redis"
CONSOLE = "console"
DRAIN_ANCHOR = "drain"

INHERITED_LABELS = frozenset({"team", "environment", "cost-center", "app.kubernetes.io/version"})
"""Labels of a RelayMiner that its children inherit. No others: Argo CD adopts and prunes objects with its own label."""


def relayer(name: str) -> str:
    """Return the name of the relayers' Deployment, Service and ServiceAccount."""
    return f"{name}-relayer"


def canary(name: str) -> str:
    """Return the name of the canary's Deployment."""
    return f"{name}-relayer-canary"


def canary_config(name: str) -> str:
    """Return the name of the canary's ConfigMap."""
    return f"{name}-config-canary"


def revision(name: str, component: str) -> str:
    """Return the name of the ConfigMap with the revision that a workload's pods run."""
    return f"{name}-{component}-revision"


def miner(name: str) -> str:
    """Return the name of the miners' StatefulSet.

    Their headless Service, ServiceAccount and Lease have it, too.
    """
    return f"{name}-miner"


def redis(name: str) -> str:
    """Return the name of the trial Redis."""
    return f"{name}-redis"


def console(name: str) -> str:
    """Return the name of the console's Deployment, Service, ServiceAccount and Role."""
    return f"{name}-console"


def config(name: str) -> str:
    """Return the name of the ConfigMap whose changes roll the pods."""
    return f"{name}-config"


def hot(name: str) -> str:
    """Return the name of the ConfigMap that relayers reload while they run."""
    return f"{name}-hot"


def keys(name: str, component: str) -> str:
    """Return the name of one workload's key set.

    Relayers lose a draining supplier's key first.
    """
    return f"{name}-{component}-keys"


def audit(name: str) -> str:
    """Return the name of the ConfigMap with the heads of audit trails.

    It outlives the RelayMiner.
    """
    return f"{name}-audit"


def drain_anchor(name: str) -> str:
    """Return the name of the ConfigMap that co-owns what outlives a RelayMiner.

    Until the claims of the deleted RelayMiner are done.
    """
    return f"{name}-drain"


def selector(relay_miner: str, component: str) -> dict[str, str]:
    """Return the immutable labels that select a workload's pods."""
    return {LABEL_RELAY_MINER: relay_miner, LABEL_COMPONENT: component}
