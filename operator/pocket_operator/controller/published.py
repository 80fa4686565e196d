"""Publish the operator's own objects, such as ConfigMaps in its namespace."""

from collections.abc import Mapping
from typing import Any

from pocket.kube.api_client import KubeApi, ResourceKind
from pocket_operator.resources import names


async def publish(
    api: KubeApi, kind: ResourceKind, namespaced_name: tuple[str, str], content: Mapping[str, Any], manager: str
) -> None:
    """Apply an object if its content differs.

    place: namespace and name. content: fields other than the metadata, like `data` of a ConfigMap.
    manager: the field manager, as the API server shows it in `managedFields`.

    Raises KubeError.
    """
    namespace, name = namespaced_name
    observed = await api.get_or_none(kind, namespace, name)
    if observed is not None and all((observed.get(part) or {}) == wanted for part, wanted in content.items()):
        return
    body: dict[str, Any] = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"name": name, "namespace": namespace, "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}},
        **content,
    }
    await api.apply(kind, body, manager)
