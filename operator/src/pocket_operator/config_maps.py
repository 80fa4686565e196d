"""What the operator itself tells the cluster, in ConfigMaps beside it."""

from collections.abc import Mapping
from typing import Any

from coordination.kube_api import KubeApi
from pocket_operator import names
from pocket_operator.kinds import CONFIG_MAPS


async def publish(api: KubeApi, namespace: str, name: str, data: Mapping[str, str], manager: str) -> None:
    """Makes `data` all that it holds, with a write only where it differs; raises KubeError.

    manager: the field manager, as the API server shows it in `managedFields`.
    """
    observed = await api.find(CONFIG_MAPS, namespace, name)
    if observed is not None and (observed.get("data") or {}) == data:
        return
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}},
        "data": dict(data),
    }
    await api.apply(CONFIG_MAPS, body, manager)
