"""Read the state of Deployments and StatefulSets."""

from collections.abc import Iterable, Mapping
from typing import Any

from pocket_operator.resources.names import ANNOTATION_IMAGE

Object = dict[str, Any]


def wanted_replicas(observed: Mapping[str, Any] | None) -> int:
    """Return the declared number of pods, 0 without the workload."""
    return int(((observed or {}).get("spec") or {}).get("replicas") or 0)


def is_rolling(observed: Mapping[str, Any] | None) -> bool:
    """Return True unless exactly the declared pods exist, all updated and ready."""
    if observed is None:
        return True
    status, wanted = observed.get("status") or {}, wanted_replicas(observed)
    return (
        int(status.get("observedGeneration") or 0) < int(observed["metadata"].get("generation") or 0)
        or int(status.get("updatedReplicas") or 0) < wanted
        or int(status.get("replicas") or 0) > wanted
        or int(status.get("readyReplicas") or 0) < wanted
    )


def rolling_generations(workloads: Iterable[Mapping[str, Any] | None]) -> str:
    """Return the uids and generations of workloads that are not complete.

    The result is empty if all existing ones are.
    """
    rolling = (row["metadata"] for row in workloads if row is not None and is_rolling(row))
    return " ".join(f"{metadata.get('uid', '')}:{metadata.get('generation', 0)}" for metadata in rolling)


def serves(observed: Mapping[str, Any] | None) -> bool:
    """Return True if as many pods are ready as declared, of whichever revision."""
    ready = int(((observed or {}).get("status") or {}).get("readyReplicas") or 0)
    return ready >= max(1, wanted_replicas(observed))


def image_of(observed: Mapping[str, Any] | None) -> str:
    """Return the image that the operator gave a workload, empty without the workload.

    Earlier releases did not note it: then it is that of the first container.
    """
    if observed is None:
        return ""
    if noted := annotation_of(observed, ANNOTATION_IMAGE):
        return noted
    containers = ((observed.get("spec") or {}).get("template", {}).get("spec") or {}).get("containers") or [{}]
    return str(containers[0].get("image", ""))


def partition_of(observed: Mapping[str, Any] | None) -> int:
    """Return the first ordinal that a StatefulSet updates."""
    strategy = ((observed or {}).get("spec") or {}).get("updateStrategy") or {}
    return int((strategy.get("rollingUpdate") or {}).get("partition") or 0)


def annotation_of(observed: Mapping[str, Any] | None, name: str) -> str:
    """Return an annotation, empty if it is missing."""
    return str((((observed or {}).get("metadata") or {}).get("annotations") or {}).get(name, ""))
