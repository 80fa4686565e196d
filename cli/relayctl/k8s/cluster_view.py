"""Gather the resources, pods, Events and Leases of namespaces.

The commands show and check them. Secrets are never read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pocket.errors import PocketError
from pocket.input_files import InputFileError, read_yaml
from pocket.kube.api_client import KubeApi, KubeError, ResourceKind, kubeconfig_files
from pocket_operator.resources import names
from pocket_operator.resources.kinds import CONFIG_MAPS, EVENTS, LEASES, PODS, RELAY_MINERS, SUPPLIERS

Object = dict[str, Any]
CLAIMS: Final = ResourceKind("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
_OURS: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
_OPERATOR: Final = f"{names.LABEL_NAME}=pocket-operator"
_NO_KUBECONFIG: Final = "default"
_DAY_FIRST: Final = 10


class NoResources(PocketError):
    """The cluster does not know the kinds of this project, or refuses to list them."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One reading of a cluster.

    `namespace` is empty for all namespaces. `unread` names what the API server refused to list, with its reason.
    """

    now: datetime
    namespace: str = ""
    relay_miners: tuple[Object, ...] = ()
    suppliers: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    operator_pods: tuple[Object, ...] = ()
    events: tuple[Object, ...] = ()
    leases: tuple[Object, ...] = ()
    claims: tuple[Object, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    def relay_miner_of(self, supplier: Object) -> Object | None:
        """Return the RelayMiner that a Supplier names, None if it does not exist."""
        relay_miner_key = (supplier["metadata"]["namespace"], supplier["spec"].get("relayMinerRef", {}).get("name"))
        return next((row for row in self.relay_miners if namespaced_name(row) == relay_miner_key), None)

    def pods_of(self, relay_miner: Object, component: str) -> list[Object]:
        """Return the pods of a RelayMiner's workload."""
        namespace, name = namespaced_name(relay_miner)
        return [
            pod for pod in self.pods
            if pod["metadata"]["namespace"] == namespace
            and names.selector(name, component).items() <= (pod["metadata"].get("labels") or {}).items()
        ]  # fmt: skip


def namespaced_name(resource: Object) -> tuple[str, str]:
    """Return namespace and name of a resource."""
    return str(resource["metadata"]["namespace"]), str(resource["metadata"]["name"])


async def gather(api: KubeApi, namespace: str, now: datetime | None = None) -> ClusterView:
    """Read a namespace, or all of them if it is empty.

    What may not be listed is named in the result, except for the two kinds of this project. Raises NoResources and
    KubeError.
    """
    try:
        relay_miners = await api.list(RELAY_MINERS, namespace)
        suppliers = await api.list(SUPPLIERS, namespace)
    except KubeError as error:
        if error.status == 404:
            raise NoResources(
                "the cluster does not know RelayMiners and Suppliers: apply crds/ or install the chart"
            ) from None
        raise
    unread: dict[str, str] = {}

    async def listed(kind: ResourceKind, in_namespace: str, selector: str = "", name: str = "") -> tuple[Object, ...]:
        try:
            return tuple(await api.list(kind, in_namespace, selector))
        except KubeError as error:
            if not error.status:
                raise
            unread[name or kind.plural] = str(error)
            return ()

    operators = sorted({str((row.get("status") or {}).get("operator") or "") for row in relay_miners} - {""})
    operator_pods: list[Object] = []
    for operator_namespace in operators:
        operator_pods += await listed(
            PODS, operator_namespace, _OPERATOR, f"pods of the operator in {operator_namespace}"
        )
    return ClusterView(
        now=now or datetime.now(UTC),
        namespace=namespace,
        relay_miners=tuple(relay_miners),
        suppliers=tuple(suppliers),
        pods=await listed(PODS, namespace, _OURS),
        operator_pods=tuple(operator_pods),
        events=await listed(EVENTS, namespace),
        leases=await listed(LEASES, namespace),
        claims=await listed(CLAIMS, namespace),
        unread=unread,
    )


async def config_maps(api: KubeApi, namespace: str) -> list[Object]:
    """Return the operator's ConfigMaps.

    They hold configuration and heads of audit trails. Raises KubeError.
    """
    return await api.list(CONFIG_MAPS, namespace, _OURS)


def default_namespace(kubeconfig: str | None, context: str | None) -> str:
    """Return the namespace of the kubeconfig's context, `default` where it names none."""
    trees = []
    for file in kubeconfig_files(kubeconfig):
        try:
            trees += [tree for tree in read_yaml(file) if isinstance(tree, dict)]
        except InputFileError:
            continue  # `connect` reports it
    chosen = context or next((tree["current-context"] for tree in trees if tree.get("current-context")), None)
    for tree in trees:
        contexts = tree.get("contexts")
        for row in contexts if isinstance(contexts, list) else ():
            if isinstance(row, dict) and row.get("name") == chosen and isinstance(row.get("context"), dict):
                return str(row["context"].get("namespace") or _NO_KUBECONFIG)
    return _NO_KUBECONFIG


def today(view: ClusterView) -> str:
    """Return the UTC date of a reading, as in 2026-11-29."""
    return view.now.isoformat()[:_DAY_FIRST]
